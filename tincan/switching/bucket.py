"""A token bucket: how often something may happen."""


class TokenBucket:
    """At most ``burst`` at once and ``rate`` per second in the long run.

    Counted as the time at which the bucket would be full again (the generic cell rate algorithm,
    ITU-T I.371): one subtraction and one comparison a call, no token is ever added up.
    """

    __slots__ = ("_depth", "_interval", "_theoretical")

    def __init__(self, rate: float, burst: float) -> None:
        if rate <= 0 or burst <= 0:
            raise ValueError("a bucket needs a rate and a depth above zero")
        self._interval = 1 / rate
        # Seconds that a full bucket is worth; the rounding of ``now`` must not cost the last token.
        self._depth = (burst + 0.001) / rate
        self._theoretical = float("-inf")

    def allow(self, now: float, cost: float = 1) -> bool:
        """Take ``cost`` tokens if they are there, at ``now`` in monotonic seconds."""
        full_again = self._theoretical
        if full_again < now:
            full_again = now
        full_again += cost * self._interval
        if full_again - now > self._depth:
            return False
        self._theoretical = full_again
        return True
