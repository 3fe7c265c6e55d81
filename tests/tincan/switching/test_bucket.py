"""The token bucket against one that counts tokens."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tincan.switching.bucket import TokenBucket


class Counted:
    """Tokens added up exactly."""

    def __init__(self, rate: int, burst: int) -> None:
        self.rate, self.burst = Fraction(rate), Fraction(burst)
        self.tokens = self.burst
        self.last = Fraction(0)

    def available(self, now: Fraction) -> Fraction:
        self.tokens = min(self.burst, self.tokens + (now - self.last) * self.rate)
        self.last = now
        return self.tokens


@given(
    rate=st.integers(1, 5000),
    burst=st.integers(1, 1000),
    calls=st.lists(st.tuples(st.integers(0, 3_000_000), st.integers(1, 50)), max_size=200),
)
def test_agrees_with_counted_tokens(rate: int, burst: int, calls: list[tuple[int, int]]) -> None:
    bucket, model = TokenBucket(rate, burst), Counted(rate, burst)
    now = Fraction(0)
    for microseconds, cost in calls:
        now += Fraction(microseconds, 1_000_000)
        available = model.available(now)
        allowed = bucket.allow(float(now), cost)
        if abs(available - cost) > Fraction(2, 1000):  # what floats may get wrong
            assert allowed is (available >= cost)
        if allowed:
            model.tokens -= cost


def test_burst_then_rate() -> None:
    bucket = TokenBucket(1000, 200)
    assert sum(bucket.allow(1e6) for _ in range(1000)) == 200
    passed = sum(bucket.allow(1e6 + step / 100_000) for step in range(100_000))
    assert 999 <= passed <= 1001


def test_idle_time_is_not_saved_up() -> None:
    bucket = TokenBucket(10, 5)
    bucket.allow(0.0)
    assert sum(bucket.allow(1e6) for _ in range(100)) == 5


def test_refusals_cost_nothing() -> None:
    bucket = TokenBucket(1, 1)
    assert bucket.allow(0.0)
    assert not any(bucket.allow(0.5) for _ in range(100))
    assert bucket.allow(1.0)


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (1, 0), (-1, 1)])
def test_useless_buckets_are_refused(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="bucket"):
        TokenBucket(rate, burst)
