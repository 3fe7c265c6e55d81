"""The keys that two nodes share: handshakes, their order, and what a handshake must show. Pure.

table.py      the states of a session and the events that move it; read by session.py only
keys.py       one key to seal with, one key to open with; the hot path holds these two alone
admission.py  what happens to a handshake datagram before any of it is believed
session.py    one peer's session: starts, answers, repeats and ages handshakes; used by links
"""
