"""Paths to a peer: who carries datagrams, and the attempts that find one.

description.py  what signalling carries for ICE: descriptions, TURN servers
path.py         protocol of a carrier; a path: a carrier and how it was found
direct.py       carrier: by a UDP socket to the peer
channel.py      carrier: by a UDP socket through a TURN server
stream.py       carrier: by a stream (TCP or TLS) to a TURN server
attempt.py      one run of ICE, its sockets, and what became of it; for link

ice.agent makes carriers; link.outgoing sends by them.
"""
