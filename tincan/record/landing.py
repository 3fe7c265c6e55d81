"""Where received batches land: slots for headers and bodies (record.slots), so that the bodies of a
record lie in one piece and are decrypted where they are, without a copy.

This works when every datagram (but the last) of a batch has the size the slots were cut for; the
size seen last is a good guess. A batch of another size lies across the slots and is flattened.

Batches and records need not begin or end together: a landing has room for several batches, and
what has come of a record when it is used up moves to its front.
"""

from typing import Final

from tincan.record.layout import HEADER_SIZE
from tincan.record.pages import PIECE, Pool
from tincan.record.slots import Slots

MIN_SLOT: Final = 512
"""Bytes of body; smaller ones would need too many slots for one batch."""
FIRST_SLOT: Final = 1500 - 28 - HEADER_SIZE
"""Bytes of body before anything has arrived: those of the commonest path."""
MAX_LISTS: Final = 16
"""Lists that a landing keeps, one for each size that somebody has sent."""


class Landing:
    """Buffers for a batch, or for the batches over which a record spreads."""

    __slots__ = ("__weakref__", "_lists", "body", "headers")

    def __init__(self, pool: Pool) -> None:
        self.headers = bytearray((HEADER_SIZE + 4) * (PIECE // MIN_SLOT + 1))
        self.body = pool.take(self)  # for what waits, at most a record, and the next batch
        self._lists: dict[tuple[int, int], Slots] = {}

    def slots(self, size: int, lead: int) -> Slots:
        """Return the list of all slots: bodies of ``size`` bytes, headers of ``lead`` + 16."""
        found = self._lists.get((size, lead))
        if found is None:
            if len(self._lists) >= MAX_LISTS:
                self._lists.clear()
            found = self._lists[size, lead] = Slots(
                self.headers, lead + HEADER_SIZE, self.body, size
            )
        return found


def flatten(slots: Slots, first: int, size: int) -> bytes:
    """Return the ``size`` bytes that a batch has scattered over the slots from ``first`` on."""
    whole, rest = divmod(size, slots.full)
    pieces = [slots.datagram(slot, slots.size) for slot in range(first, first + whole)]
    if rest:
        pieces.append(slots.datagram(first + whole, rest)[:rest])
    return b"".join(pieces)
