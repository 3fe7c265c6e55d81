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
BLIND_BYTES: Final = 4096
"""What may be sent before it is looked again at what the kernel knows: a few messages now and
then, as between idle peers, cost no look."""
UNREAD_BYTES: Final = 24 << 10
"""What may be under way to a peer or wait there: well below the 64 KiB of its buffer."""
LEAST_BYTES: Final = 1024
"""Less than this is waited with, or each frame would be sent by itself."""
FIRST_PROBE_S: Final = 0.02
LAST_PROBE_S: Final = 2.0
"""A peer opens a window that is half closed without saying so, and a window may be smaller for
good. So a few frames ask, ever less often: a window that is not smaller after them is read from."""
PROBE_BYTES: Final = 1200
"""More than the steps of 1 KiB in which windows of this size are told."""
PROBED_BYTES: Final = 16 << 10
"""What is sent at most to a peer whose window does not open: it does not run, and is lost soon."""


class Pacer:
    """The pace of one connection."""

    def __init__(self) -> None:
        self._credit = float(BURST_BYTES)
        self._blind = 0
        self._refilled_at = 0.0
        self._widest = 0
        self._probe_s = FIRST_PROBE_S
        self._probe_at = 0.0
        self._probed = 0
        self._window_then = 0
        self.wait_s = 0.0

    @property
    def blind(self) -> int:
        """The bytes that may be sent without asking for `room`."""
        return self._blind

    def room(self, now: float, unacknowledged: int, window: int) -> int:
        """Return how many bytes may be sent now, 0 for none until ``wait_s`` later.

        ``unacknowledged`` bytes are under way; ``window`` is what the peer's kernel would take
        after them. A frame longer than the room may be sent if it is the only one.
        """
        self._credit = min(BURST_BYTES, self._credit + RATE * (now - self._refilled_at))
        self._refilled_at = now
        self._widest = max(self._widest, window)
        unread = unacknowledged + self._widest - window
        if unread >= UNREAD_BYTES:
            if unacknowledged or not self._window_then or window < self._window_then:
                return self._probe(now, window)
            self._widest = window  # it took a probe, and its window is as it was: it reads
            unread = 0
        self._probe_s = FIRST_PROBE_S
        self._probe_at = 0.0
        self._probed = self._window_then = 0
        self.wait_s = BURST_BYTES / RATE
        room = int(min(self._credit, UNREAD_BYTES - unread))
        if room < LEAST_BYTES:
            room = 0
        self._blind = min(room, BLIND_BYTES)
        return room

    def _probe(self, now: float, window: int) -> int:
        """Return what may be sent to a peer that seems not to read."""
        self._blind = 0
        if not self._probe_at:
            self._probe_at = now + self._probe_s
        if now < self._probe_at or self._probed >= PROBED_BYTES:
            self.wait_s = max(self._probe_at - now, FIRST_PROBE_S)
            return 0
        self._probe_s = min(2 * self._probe_s, LAST_PROBE_S)
        self._probe_at = now + self._probe_s
        self._probed += PROBE_BYTES
        self._window_then = window
        return PROBE_BYTES

    def heard(self) -> None:
        """Note that the peer has sent something: it runs, so that it may be probed once more."""
        self._probed = max(0, self._probed - PROBE_BYTES)

    def sent(self, count: int) -> None:
        """Note that ``count`` bytes were sent."""
        self._credit -= count
        self._blind = max(0, self._blind - count)
