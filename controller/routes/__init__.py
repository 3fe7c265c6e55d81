"""MetalBond, version 1 of the protocol: a route reflector and a client, as the Go program 0.5.0.

values        VNI, destinations, next hops: what a program of one's own handles
wire          the frame: its header, and frames from any split of bytes
messages      the protobuf messages, declared once; their checks (protobuf is imported here only)
table         routes and who announces them
channel       what changed in one VNI, read by every subscriber at its own pace
reflector     who is told what: the rules of a version of the program
machine       one peer's states, a table, and its timers
peer          one peer: its machine, its frames, its subscriptions, what it is still to be sent
installed     which received routes the user of this node has been given
speaker       the node: peers, subscriptions, announcements; the pure core that the rest drives
pacing        how much may be on its way to a peer that cannot reassemble
connection    a peer's socket
metalbond     the class for programs: start_server, add_peer, subscribe, announce_route, ...
clients       who takes received routes: the Client protocol, and one that takes none
kernel        the client that installs routes in the kernel
endpoint      "[::1]:4711", to listen at or to connect to
pages         routes as HTML, JSON, YAML
metrics       figures for Prometheus
http          the server of these pages
options       the values of the command line
cli           ``controller metalbond server|client``

values to speaker, and pacing, pages, metrics and options, are pure: the time is an argument.
"""
