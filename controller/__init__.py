"""The control plane: bridge membership, ARP and ND, bindings, signalling, status."""
