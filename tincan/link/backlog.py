"""What waits before our own network device, kept short. Pure.

A device slower than its senders queues what they send, up to the socket's send buffer: megabytes,
so seconds at 10 Mbit/s, for a ping as for everything else. TCP in the containers cannot see that
queue (its small-queue limit ends at the TAP), and not every host has a queueing discipline that
cares. So once a queue has stood for WINDOW, we measure how fast it drains and let no large record
in that would wait for longer than TARGET. A queue that empties in between is a burst, and left
alone.
"""

from typing import Final

WINDOW: Final = 0.05  # s
TARGET: Final = 0.05  # s
FLOOR: Final = 128 << 10  # bytes, about two full records: never too much


class Backlog:
    """One socket's queue. All sizes in bytes, ``now`` in s."""

    __slots__ = ("_drained", "_limit", "_since")

    def __init__(self, now: float, sent: int = 0) -> None:
        self._drained = sent  # of what was sent, at _since
        self._since = now
        self._limit: float | None = None  # None: the queue does not stand

    def has_room(self, sent: int, queued: int, now: float) -> bool:
        """Return whether a large record may follow the ``queued`` bytes that wait.

        ``sent``: all that was ever handed to the kernel, those included.
        """
        drained = sent - queued
        if queued <= FLOOR:
            self._since, self._drained, self._limit = now, drained, None
            return True
        elapsed = now - self._since
        if elapsed >= WINDOW:
            rate = max(drained - self._drained, 0) / elapsed
            self._limit = max(FLOOR, rate * TARGET)
            self._since, self._drained = now, drained
        return self._limit is None or queued <= self._limit
