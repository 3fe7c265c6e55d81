"""The rendezvous: introduces nodes to each other, and tells them their public addresses.

cli         the command ``rendezvous``
server      Rendezvous: signalling and STUN in one event loop; also embedded by app
registry    the members of each network, without a socket                     (pure)
quota       what one address may ask of it                                    (pure)
sockets     where it listens
stun        the STUN server
"""
