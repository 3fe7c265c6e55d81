"""A datagram that stands in for any one of a record's: their sum modulo 2. Pure.

A path that loses 1 % of its datagrams loses 9 % of records of nine, but of those with a parity only
0.4 %: two of ten must be gone. TCP in a container then sees a better path than there is.
"""

from collections.abc import Sequence


def parity(bodies: bytes | memoryview, size: int) -> bytes:
    """Return the sum of the bodies of ``size`` bytes that ``bodies`` consists of."""
    total = 0
    # Integers of that length add up at 1.4 GB/s (CPython 3.11); a loop over bytes, at 0.03.
    for start in range(0, len(bodies), size):
        total ^= int.from_bytes(bodies[start : start + size], "little")
    return total.to_bytes(size, "little")


def restored(pieces: Sequence[bytes]) -> bytes | None:
    """Return the body that is missing among ``pieces``: all the others, and the parity.

    Return None if they have not all one size: then this is no record with a parity.
    """
    size = len(pieces[0])
    if any(len(piece) != size for piece in pieces):
        return None
    return parity(b"".join(pieces), size)
