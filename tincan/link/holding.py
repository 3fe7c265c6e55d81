"""Frames that wait for a link that is being set up: bounded, not lost. Pure."""

from collections import Counter, deque
from typing import Final

HOLD_FRAMES: Final = 128
HOLD_BYTES: Final = 512 << 10
HOLD_AGE: Final = 5.0  # s; a frame older than that is of no use to anybody
NEVER: Final = float("inf")


class Holding:
    """A queue of items (virtio header and frame); the oldest gives way."""

    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters
        self._items: deque[tuple[float, bytes]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def deadline(self) -> float:
        """When the oldest is too old."""
        return self._items[0][0] + HOLD_AGE if self._items else NEVER

    def add(self, item: bytes, now: float) -> None:
        """Keep ``item`` for a while."""
        self.expire(now)
        while self._items and (
            len(self._items) >= HOLD_FRAMES or self._bytes + len(item) > HOLD_BYTES
        ):
            self._drop("hold_full")
        self._items.append((now, item))
        self._bytes += len(item)

    def expire(self, now: float) -> None:
        """Give up what is too old."""
        while now >= self.deadline:
            self._drop("held_too_long")

    def take(self, now: float) -> list[bytes]:
        """Return what is still of use, oldest first, and keep nothing."""
        self.expire(now)
        items = [item for _, item in self._items]
        self._items.clear()
        self._bytes = 0
        return items

    def _drop(self, reason: str) -> None:
        self._bytes -= len(self._items.popleft()[1])
        self._counters[f"frames_dropped.{reason}"] += 1
