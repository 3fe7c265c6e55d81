"""A node's side of a rendezvous.

client      SignalClient: implements signal.port; one for each rendezvous
presence    joining, members, sealed messages, without a socket               (pure)
messages    the messages between node and rendezvous                          (pure)
proof       the proof of membership in them                                   (pure)
backoff     the delays between attempts
transport   websockets, for both sides; the only import of that library
"""
