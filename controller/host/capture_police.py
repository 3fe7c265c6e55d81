"""Admission of captured frames to a dissection: fair among senders, bounded in all. Pure.

A dissection costs about 100 us, a look at a source address less than 1 us. Every sender has a
token bucket of its own, so that one over its rate takes nothing from the others. Senders that
were heard only once share one more bucket: a storm of invented source addresses empties that
one, and takes neither tokens nor places from the known senders.
"""

from collections import OrderedDict
from heapq import nsmallest
from typing import Final

MAX_KNOWN: Final = 4096
"""Senders heard at least twice that are remembered; the longest silent is forgotten first."""
MAX_NEWCOMERS: Final = 1024
"""Senders heard once that are remembered."""
OVER_RATE_AFTER: Final = 1000
"""Refusals within REFUSAL_WINDOW_S that are worth a rule in the kernel.

A router that has to ask for a thousand neighbours at once stays below.
"""
REFUSAL_WINDOW_S: Final = 1.0


class Bucket:
    """A token bucket, full at first, that counts its refusals in windows of REFUSAL_WINDOW_S."""

    __slots__ = ("refused", "since", "stamp", "tokens", "window")

    def __init__(self, burst: float, now: float) -> None:
        self.tokens = burst
        self.stamp = now
        self.since = now
        self.window = now
        self.refused = 0

    def take(self, rate: float, burst: float, now: float) -> bool:
        """Take a token if there is one, and return whether there was. ``rate`` is tokens/s."""
        if now - self.window > REFUSAL_WINDOW_S:
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

    ``rate`` and ``burst`` (frames/s, frames) hold for each sender, ``total`` and ``total_burst``
    for all known senders together. All newcomers together have a quarter of ``total`` and a
    tenth of ``total_burst``: this is what a storm of invented senders can cost.
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
        """Return whether one more frame of ``source`` (a MAC) may be dissected."""
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
        """Return whether ``source`` was heard at least twice."""
        return source in self._known

    def is_over_rate(self, source: bytes) -> bool:
        """Return whether ``source`` goes on although it is refused. Ask after a refusal."""
        bucket = self._known.get(source)
        return bucket is not None and bucket.refused >= OVER_RATE_AFTER

    def longest_known(self, count: int) -> list[bytes]:
        """Return up to ``count`` senders, those known for longest, without any over its rate.

        They are worth hearing in a storm of invented senders.
        """
        within_rate = (source for source, b in self._known.items() if b.refused < OVER_RATE_AFTER)
        return nsmallest(count, within_rate, key=lambda source: self._known[source].since)
