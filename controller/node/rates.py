"""Token buckets on a clock that is an argument: one, and one for each of many. Pure."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Bucket:
    """A token bucket, full at first: ``rate`` a second on average, ``burst`` at once."""

    __slots__ = ("_burst", "_rate", "_then", "_tokens")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._then = float("-inf")

    def take(self, now: float) -> bool:
        """Take a token if there is one, and return whether there was."""
        self._refill(now)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def charge(self, cost: float, now: float) -> float:
        """Take ``cost`` tokens, into debt if need be; return the seconds until it is paid."""
        self._refill(now)
        self._tokens -= cost
        return max(0.0, -self._tokens / self._rate)

    def _refill(self, now: float) -> None:
        if self._tokens < self._burst:
            passed = max(0.0, now - self._then)
            self._tokens = min(self._burst, self._tokens + passed * self._rate)
        self._then = now


class Buckets(Generic[K]):
    """A token bucket for each of at most ``limit`` keys; the least recently used is forgotten.

    A key that was forgotten starts with a full bucket. That gives a flood from many keys no more
    than those keys would have had anyway.
    """

    def __init__(self, rate: float, burst: float, limit: int) -> None:
        self._rate = rate
        self._burst = burst
        self._limit = limit
        self._buckets: OrderedDict[K, Bucket] = OrderedDict()

    def __len__(self) -> int:
        """Return how many keys are remembered."""
        return len(self._buckets)

    def take(self, key: K, now: float) -> bool:
        """Take a token of ``key`` if there is one, and return whether there was."""
        return self._of(key).take(now)

    def charge(self, key: K, cost: float, now: float) -> float:
        """Take ``cost`` tokens of ``key``, like ``Bucket.charge``."""
        return self._of(key).charge(cost, now)

    def _of(self, key: K) -> Bucket:
        bucket = self._buckets.get(key)
        if bucket is not None:
            self._buckets.move_to_end(key)
            return bucket
        if len(self._buckets) >= self._limit:
            self._buckets.popitem(last=False)
        bucket = self._buckets[key] = Bucket(self._rate, self._burst)
        return bucket
