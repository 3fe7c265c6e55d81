"""How two nodes find a path: ICE (RFC 8445), with STUN and TURN. Lowest first:

stun.py         the STUN and ChannelData formats, and which datagrams are theirs; pure. The
                rendezvous' STUN server (controller.signal.rendezvous.stun) uses it, too
description.py  what an offer or an answer carries, and what a TURN server is
candidates.py   which candidates are offered, accepted and paired; pure
resolve.py      names of servers to addresses
library.py      the one importer of aioice, and what it needs around it
sockets.py      a UDP socket of ours as the transport that ICE sends by
turn.py         allocations on TURN servers, over UDP, TCP and TLS
checks.py       the check list: when pairs are checked, which one is nominated
agent.py        one negotiation: gather, exchange, connect, close; made by link.links

A peer's word is checked in candidates.parse (its candidates), stun.is_stun (its datagrams'
shape) and checks.CheckList (its authenticity).
"""
