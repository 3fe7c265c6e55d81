"""Which peers to be linked with, and how links are made.

contacts     the offers and answers of each peer; pure
negotiator   carries them out: signalling on one side, tincan on the other
"""
