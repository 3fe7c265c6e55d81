"""Records whose datagrams came in pieces, or one of them not at all: bounded, pure."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from tincan.record.layout import MAX_RECORD
from tincan.record.parity import restored

MAX_PARTIAL: Final = 64
"""Records in pieces at a time, over all peers."""
MAX_BYTES: Final = 4 << 20
"""Bytes of all of them."""
MAX_AGE: Final = 1.0
"""Seconds that the first piece waits for the last: longer than any reordering."""

Key: TypeAlias = tuple[int, int]
"""A record: receiver index, record counter."""
Whole: TypeAlias = tuple[bytes, bool]
"""A ciphertext; whether it took the parity to complete it."""


@dataclass(slots=True)
class Partial:
    """One record: what has arrived of it."""

    count: int
    born: float
    pieces: dict[int, bytes] = field(default_factory=dict)
    size: int = 0


class Reassembly:
    """Collects fragments until a record is whole; the oldest gives way when bounds are reached.

    ``partial``: what waits, in order of birth; for others to look whether a record is in it.
    """

    def __init__(self, counters: Counter[str]) -> None:
        self.partial: dict[Key, Partial] = {}
        self._bytes = 0
        self._restored: dict[Key, int] = {}  # and which of its fragments was not needed
        self._counters = counters

    def add(self, key: Key, index: int, count: int, body: bytes, now: float) -> Whole | None:
        """Take a fragment, or the parity (``index`` = ``count``).

        Return the record when this was the last one needed, else None.
        """
        partial = self.partial.get(key)
        if partial is None:
            self.expire(now)
            if len(self.partial) >= MAX_PARTIAL:
                self._drop(next(iter(self.partial)))
            partial = self.partial[key] = Partial(count, now)
        if count != partial.count or index > count or index in partial.pieces:
            self._counters["datagrams_dropped.fragment_refused"] += 1
            return None
        partial.pieces[index] = body
        partial.size += len(body)
        self._bytes += len(body)
        if partial.size > MAX_RECORD:
            self._drop(key)
            return None
        if len(partial.pieces) < count:
            while self._bytes > MAX_BYTES:
                self._drop(next(iter(self.partial)))
            return None
        del self.partial[key]
        self._bytes -= partial.size
        pieces = partial.pieces
        restoring = count in pieces
        if restoring:
            missing = restored(list(pieces.values()))
            if missing is None:
                self._counters["records_dropped.incomplete"] += 1
                return None
            index = next(i for i in range(count) if i not in pieces)
            pieces[index] = missing
            if len(self._restored) >= MAX_PARTIAL:
                del self._restored[next(iter(self._restored))]
            self._restored[key] = index
        return b"".join(pieces[i] for i in range(count)), restoring

    def was_late(self, key: Key, index: int) -> bool:
        """Return whether this fragment's record was restored without it: it was late, not lost.

        Say so once for each fragment.
        """
        if self._restored.get(key) != index:
            return False
        del self._restored[key]
        return True

    def expire(self, now: float) -> None:
        """Give up records that have waited too long."""
        while self.partial:
            key = next(iter(self.partial))
            if now - self.partial[key].born <= MAX_AGE:
                break
            self._drop(key)

    def _drop(self, key: Key) -> None:
        partial = self.partial.pop(key)
        self._bytes -= partial.size
        self._counters["records_dropped.incomplete"] += 1
