"""The keys that two nodes share: handshakes, their order, and what a handshake must show. Pure.

table.py      the states of a session and the events that move it; read by session.py only
admission.py  what happens to a handshake datagram before any of it is believed
session.py    one peer's session: starts, answers, repeats and ages handshakes; used by links

The keys themselves are record/keys.py: the hot path holds those and knows no session.
"""
