"""Deadlines without a clock, and rates without a thread."""

import heapq
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Timers:
    """Calls that are due later. Nothing is ever cancelled: what is called looks whether it is
    still wanted, so that a timer costs one heap entry and no bookkeeping."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[float], None]]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def deadline(self) -> float:
        """When ``run`` has something to do; infinite when never."""
        return self._heap[0][0] if self._heap else float("inf")

    def call_at(self, when: float, function: Callable[[float], None]) -> None:
        """Call ``function(now)`` from the first ``run`` at or after ``when``."""
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, function))

    def run(self, now: float) -> None:
        """Make the calls that are due. Those they ask for in turn wait for the next run."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            due.append(heapq.heappop(self._heap)[2])
        for function in due:
            function(now)


class Bucket:
    """A token bucket: ``rate`` a second on average, ``burst`` at once."""

    __slots__ = ("_burst", "_rate", "_then", "_tokens")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._then = float("-inf")

    def take(self, now: float) -> bool:
        """Return whether one more may pass now."""
        if self._tokens < self._burst:
            self._tokens = min(self._burst, self._tokens + (now - self._then) * self._rate)
        self._then = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Buckets(Generic[K]):
    """A token bucket for each of at most ``limit`` keys; the least recently used is forgotten."""

    def __init__(self, rate: float, burst: float, limit: int) -> None:
        self._rate = rate
        self._burst = burst
        self._limit = limit
        self._buckets: OrderedDict[K, Bucket] = OrderedDict()

    def take(self, key: K, now: float) -> bool:
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= self._limit:
                self._buckets.popitem(last=False)
            bucket = self._buckets[key] = Bucket(self._rate, self._burst)
        else:
            self._buckets.move_to_end(key)
        return bucket.take(now)
