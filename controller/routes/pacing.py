"""How much may be sent to a peer now.

The Go program reads up to 65535 bytes at once, takes a full buffer for an attack and a frame that
is cut in two for nonsense. So no more than it can read at once may wait there, also while it does
not run; and nothing tells how much that is. Two estimates are used: a rate at which v0.5.0 was
seen to keep up, and the receive window of its kernel, which shrinks by what it has not read.
"""

from typing import Final

RATE: Final = 800_000
"""Bytes a second, about 20,000 routes. (Seen: v0.5.0 keeps up with 200 frames every 10 ms.)"""
BURST_BYTES: Final = 8192
"""What may be sent at once after a silence."""
UNREAD_BYTES: Final = 24 << 10
"""What may be under way to a peer or wait there: well below the 64 KiB of its buffer."""
FIRST_PROBE_S: Final = 0.02
LAST_PROBE_S: Final = 2.0
"""A peer opens a window that is half closed without saying so. One frame asks, ever less often."""


class Pacer:
    """The pace of one connection."""

    def __init__(self) -> None:
        self._credit = float(BURST_BYTES)
        self._refilled_at = 0.0
        self._widest = 0
        self._probe_s = FIRST_PROBE_S
        self._probe_at = 0.0
        self.wait_s = 0.0

    def room(self, now: float, unacknowledged: int, window: int) -> int:
        """Return how many bytes may be sent now, 0 for none until ``wait_s`` later.

        ``unacknowledged`` bytes are under way; ``window`` is what the peer's kernel would take
        after them. A frame longer than the room may be sent if it is the only one.
        """
        self._credit = min(BURST_BYTES, self._credit + RATE * (now - self._refilled_at))
        self._refilled_at = now
        self._widest = max(self._widest, window)
        unread = unacknowledged + self._widest - window
        if unread < UNREAD_BYTES:
            self._probe_s = FIRST_PROBE_S
            self._probe_at = 0.0
            self.wait_s = BURST_BYTES / RATE
            return int(min(self._credit, UNREAD_BYTES - unread))
        if not self._probe_at:
            self._probe_at = now + self._probe_s
        elif now >= self._probe_at:
            self._probe_s = min(2 * self._probe_s, LAST_PROBE_S)
            self._probe_at = now + self._probe_s
            return 1
        self.wait_s = self._probe_at - now
        return 0

    def sent(self, count: int) -> None:
        """Note that ``count`` bytes were sent."""
        self._credit -= count
