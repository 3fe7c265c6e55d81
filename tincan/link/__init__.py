"""Links: one peer each, with its keys, its paths, and its health.

links.py     all links of this node: made on demand, given sessions and attempts; for the daemon
link.py      one peer: what is due, which path is used, when it is up
outgoing.py  the outgoing half of a link: seals and sends; for egress and link
items.py     items of a record that are no frames: their layout, and who acts on them (pure)
listener.py  what is told of a link, in plain values; the daemon listens
liveness.py  probes and silence (pure)
pmtu.py      path MTU discovery (pure)
loss.py      what a path loses, and how long records may be there (pure)
backlog.py   what waits before our own device (pure)
holding.py   frames that wait for a link (pure)
"""
