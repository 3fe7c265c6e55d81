"""The replay window of one receiving key.

The window is wide enough for whole bursts to overtake each other: a wake-up sends at most a few
hundred records, a paced 10 Gbit/s path with 10 ms of reordering holds about 3,000.

A byte ring, cleared as it advances: 0.12 us for check and commit in order (CPython 3.11). A
big integer as bitmap costs four times that, a list of counters is as quick but takes 300 KiB a
key instead of 8.
"""

from typing import Final

WINDOW: Final = 8192  # records
_MASK: Final = WINDOW - 1
COUNTER_LIMIT: Final = 1 << 64


class ReplayWindow:
    """Which counters have been seen: everything older than the window counts as seen.

    ``check`` before decryption, ``commit`` after it: only an authenticated record may move
    the window (RFC 4303 section 3.4.3).
    """

    __slots__ = ("_seen", "count", "gap", "restored", "top")

    def __init__(self) -> None:
        self.top = -1  # highest counter committed
        self.count = 0  # how many were
        self.restored = 0  # how many of those came with a loss (counted by who has made it good)
        self.gap = False  # something was lost; whoever has noted that clears it
        self._seen = bytearray(WINDOW)  # [counter & _MASK], valid for the WINDOW counters to top

    def check(self, counter: int) -> bool:
        """Whether ``counter`` could be new."""
        return counter > self.top or (
            counter > self.top - WINDOW and not self._seen[counter & _MASK]
        )

    def commit(self, counter: int) -> bool:
        """Mark ``counter`` as seen; return whether it was new."""
        top = self.top
        if counter == top + 1:
            self.top = counter
        elif counter > top:
            self._skip(top + 1, counter)
            self.top = counter
            self.gap = True
        elif counter <= top - WINDOW or self._seen[counter & _MASK]:
            return False
        self._seen[counter & _MASK] = 1
        self.count += 1
        return True

    def _skip(self, first: int, end: int) -> None:
        """Forget what the slots of ``first`` up to ``end`` said about counters a lap ago."""
        if end - first >= WINDOW:
            self._seen[:] = bytes(WINDOW)
            return
        start, stop = first & _MASK, end & _MASK
        if start <= stop:
            self._seen[start:stop] = bytes(stop - start)
        else:
            self._seen[start:] = bytes(WINDOW - start)
            self._seen[:stop] = bytes(stop)
