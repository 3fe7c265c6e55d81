"""Calls that are due later, without a clock. Pure."""

import heapq
from collections.abc import Callable


class Timers:
    """Calls that are due later.

    Nothing is ever cancelled: the function called looks whether it is still wanted, so that a
    timer costs one heap entry and no bookkeeping.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[float], None]]] = []
        self._count = 0

    def __len__(self) -> int:
        """Return how many calls are waiting."""
        return len(self._heap)

    @property
    def deadline(self) -> float:
        """The time at which ``run`` has something to do; infinite when never."""
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
