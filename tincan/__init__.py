"""The link layer and data plane: TAP, links, handshakes, records, forwarding."""
