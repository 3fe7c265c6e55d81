"""Where received batches land: a scatter list of header and body slots, so that the bodies of a
record lie contiguous and are decrypted where they are, without a copy.

    scatter  [header 0][body 0][header 1][body 1] ...     as the datagrams arrive in one batch
    headers  [header 0][header 1] ...                     one small bytearray
    body     [body 0][body 1] ...                         the record's ciphertext

This works when every datagram (but the last) of a batch has the size the slots were cut for; the
size seen last is a good guess. A batch of another size lies across the slots and is flattened.
"""

from typing import Final, NamedTuple

from tincan.udp import MAX_BATCH
from tincan.vector import Vector
from tincan.wire import HEADER_SIZE, MAX_RECORD

MIN_SLOT: Final = 512  # bytes of body; smaller ones would need too many slots for one batch
FIRST_SLOT: Final = 1500 - 28 - HEADER_SIZE  # before anything arrived: the usual path
BODY_SIZE: Final = MAX_RECORD + MAX_BATCH  # a record's worth, then one more batch
MAX_LISTS: Final = 16


class Scatter(NamedTuple):
    """A list to receive into, two parts for each slot. ``full``: bytes of these two."""

    parts: list[memoryview]
    vector: Vector
    full: int

    def needed(self, size: int, first: int = 0) -> int:
        """How many parts a batch of ``size`` bytes takes from slot ``first`` on, at least two."""
        return min(2 * (-(-size // self.full) or 1), len(self.parts) - 2 * first)


class Landing:
    """Buffers for one batch, or for the batches of one record that spans several."""

    __slots__ = ("_lists", "body", "headers")

    def __init__(self) -> None:
        self.headers = bytearray((HEADER_SIZE + 4) * (BODY_SIZE // MIN_SLOT + 1))
        self.body = memoryview(bytearray(BODY_SIZE))
        self._lists: dict[tuple[int, int], Scatter] = {}

    def scatter(self, slot: int, lead: int) -> Scatter:
        """Return the list of all slots: bodies of ``slot`` bytes, headers of ``lead`` + 16."""
        found = self._lists.get((slot, lead))
        if found is not None:
            return found
        if len(self._lists) >= MAX_LISTS:
            self._lists.clear()
        stride = lead + HEADER_SIZE
        heads = memoryview(self.headers)
        parts: list[memoryview] = []
        for i in range(BODY_SIZE // slot):
            parts += (heads[i * stride : (i + 1) * stride], self.body[i * slot : (i + 1) * slot])
        scatter = self._lists[slot, lead] = Scatter(parts, Vector(parts), slot + stride)
        return scatter


def flatten(parts: list[memoryview], size: int) -> bytes:
    """Return the first ``size`` bytes that lie scattered over ``parts``."""
    needed = 0
    for count, part in enumerate(parts, 1):  # noqa: B007
        needed += len(part)
        if needed >= size:
            break
    return b"".join(parts[:count])[:size]
