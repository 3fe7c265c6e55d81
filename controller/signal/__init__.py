"""Signalling: how nodes without a link meet. It carries sealed offers, and nothing else.

port          what a way of signalling does for links: Signalling, SignalState
events        what it tells: Present, Absent, Received, ...                   (pure)
keys          the keys that the network's secret turns into                   (pure)
sealing       messages and names that only members can read or make           (pure)
websocket/    the node's side of a rendezvous: the port over websockets
rendezvous/   the rendezvous itself, as a command and inside a controller
"""
