"""Keys and what is computed with them.

primitives   the one importer of cryptography
noise        Noise IKpsk2, as a pure state machine
window       which record counters have been seen
"""
