"""Token buckets never give more than their rate and burst, and may go into debt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.node.rates import Bucket, Buckets


@given(st.lists(st.floats(0, 2), max_size=100))
def test_a_bucket_gives_no_more_than_burst_and_rate(pauses: list[float]) -> None:
    bucket, now, taken = Bucket(3.0, 5.0), 0.0, 0
    for pause in pauses:
        now += pause
        taken += bucket.take(now)
        assert taken <= 5.0 + 3.0 * now + 1e-6


def test_a_charge_may_go_into_debt() -> None:
    bucket = Bucket(2.0, 4.0)
    assert bucket.charge(3.0, 0.0) == 0.0
    assert bucket.charge(5.0, 0.0) == pytest.approx(2.0)
    assert not bucket.take(1.0)
    assert bucket.take(3.0)


def test_the_least_recently_used_key_is_forgotten() -> None:
    buckets: Buckets[str] = Buckets(1.0, 1.0, 2)
    assert buckets.take("a", 0.0)
    assert buckets.take("b", 0.0)
    assert not buckets.take("a", 0.0)
    assert buckets.take("c", 0.0)
    assert len(buckets) == 2
    assert buckets.take("b", 0.0)
    assert buckets.charge("d", 2.0, 0.0) == pytest.approx(1.0)
