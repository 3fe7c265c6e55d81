"""Signalling: how nodes that do not know each other's addresses come to talk.

messages, proof, sealing      what is said, how membership is proven, what is sealed   (pure)
registry, quota               the rendezvous' state and limits                         (pure)
presence, events, backoff     a node's state, what it tells, when it tries again       (pure)
transport                     websockets, the only import of that library
rendezvous, stun, endpoint    the server; embeddable
client                        SignalClient, one for each rendezvous
cli                           the command ``rendezvous``
"""
