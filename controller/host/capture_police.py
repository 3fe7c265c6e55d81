"""Which captured frames may cost a dissection: fair among senders, bounded in all. Pure.

A dissection costs about 100 us, a look at a source address less than 1 us. Every sender has a
token bucket of its own, so that a loud one takes nothing from a quiet one. Senders that nobody
has heard twice share one more bucket: a storm of invented source addresses exhausts that one, and
neither the buckets nor the places of those that are known.
"""

from collections import OrderedDict
from heapq import nsmallest
from typing import Final

MAX_KNOWN: Final = 4096
"""Senders heard at least twice; the longest silent leaves first."""
MAX_NEWCOMERS: Final = 1024
"""Senders heard once."""

# Refusals within LOUD_WINDOW s that are worth a rule in the kernel. A router that has to ask for a
# thousand neighbours at once stays below.
LOUD_AFTER: Final = 1000
LOUD_WINDOW: Final = 1.0


class Bucket:
    """A token bucket, born full. ``refused`` counts the refusals of the last LOUD_WINDOW or so."""

    __slots__ = ("refused", "since", "stamp", "tokens", "window")

    def __init__(self, burst: float, now: float) -> None:
        self.tokens = burst
        self.stamp = now
        self.since = now
        self.window = now
        self.refused = 0

    def take(self, rate: float, burst: float, now: float) -> bool:
        if now - self.window > LOUD_WINDOW:
            self.window = now
            self.refused = 0
        self.tokens = min(burst, self.tokens + (now - self.stamp) * rate)
        self.stamp = now
        if self.tokens < 1.0:
            self.refused += 1
            return False
        self.tokens -= 1.0
        return True


class Police:
    """Admission of one kind of frame.

    ``rate`` and ``burst`` (frames per second, frames) hold for each sender; ``total`` and
    ``total_burst`` for all known senders together, a quarter and a tenth for all newcomers: what
    a storm of invented senders can cost before it is noticed.
    """

    def __init__(self, rate: float, burst: float, total: float, total_burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self.total = total
        self.total_burst = total_burst
        self._known: OrderedDict[bytes, Bucket] = OrderedDict()
        self._newcomers: OrderedDict[bytes, Bucket] = OrderedDict()
        self._all_known = Bucket(total_burst, 0.0)
        self._all_new = Bucket(total_burst / 10, 0.0)

    def admit(self, source: bytes, now: float) -> bool:
        """Whether one more frame of ``source`` (a MAC) may be dissected."""
        bucket = self._known.get(source)
        if bucket is not None:
            self._known.move_to_end(source)
            return bucket.take(self.rate, self.burst, now) and self._all_known.take(
                self.total, self.total_burst, now
            )
        if not self._all_new.take(self.total / 4, self.total_burst / 10, now):
            return False
        bucket = self._newcomers.pop(source, None)
        if bucket is None:
            bucket = Bucket(self.burst, now)
            self._newcomers[source] = bucket
            if len(self._newcomers) > MAX_NEWCOMERS:
                self._newcomers.popitem(last=False)
        else:
            self._known[source] = bucket
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        return bucket.take(self.rate, self.burst, now)

    def knows(self, source: bytes) -> bool:
        """Whether ``source`` was heard at least twice."""
        return source in self._known

    def loud(self, source: bytes) -> bool:
        """Whether ``source`` goes on and on although it is refused: ask after a refusal."""
        bucket = self._known.get(source)
        return bucket is not None and bucket.refused >= LOUD_AFTER

    def regulars(self, count: int) -> list[bytes]:
        """The senders known for longest, without loud ones: whom to hear in an anonymous storm."""
        quiet = (source for source, b in self._known.items() if b.refused < LOUD_AFTER)
        return nsmallest(count, quiet, key=lambda source: self._known[source].since)
