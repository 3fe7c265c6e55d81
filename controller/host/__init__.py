"""This machine: the only layer that asks the kernel and the disk.

netlink             interfaces, addresses, routes: asking, changing, ``watch``; the pyroute2 import
netlink_events      the socket on which the kernel notifies, for netlink
interfaces          what both speak of: Link, Address, and the events of ``watch``       (pure)
tap                 TapPlacement: the TAP in its bridge, and what keeps frames from passing
firewall            runs nft and iptables, to find what drops bridged frames
firewall_rules      what a rule does with a bridged frame                                 (pure)
capture             ARP, ND and gateways' packets from the TAP, for the switch
capture_police      which captured frames may cost a dissection                           (pure)
packet_socket       AF_PACKET sockets and filters; for the capture and the loop guard
directories         one controller per directory: made, locked, removed; called by start
files               private directories and files
node_key            this node's key in state_dir
resolver            the event loop's executor, for which the end does not wait
"""
