"""The hot path: from the TAP to the links, and from the sockets to the TAP.

loop.py       an event loop that serves hot descriptors first; the daemon runs in it
pump.py       which descriptors are read, and what runs when they are ready; for the daemon
egress.py     TAP to links: reads, packs, has it sent
outlet.py     what egress needs of whatever takes frames; a link is one
ingress.py    sockets to TAP: batches, records, items
demux.py      what lands in no slot: STUN, handshakes, ChannelData, single fragments
delivery.py   writes frames to the device
rehearsal.py  keeps the pump's code and data in the processor's caches
gate.py       what the kernel drops before it is queued for us; for the daemon

Egress and ingress could be two processes: no object is changed by both but counters, which add up,
and pools of memory, of which each would have its own. What would have to cross between them and the
process of the links:

1. routes and admissions (switching.policy), from there to both;
2. addresses that were learned, from both;
3. sealing keys to egress, opening keys to ingress: only egress counts, only ingress moves windows;
4. the carrier in use, to egress;
5. what was heard: addresses, gaps, items that are no frames; from ingress;
6. items to send, to egress.
"""
