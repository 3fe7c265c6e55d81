"""Deadlines and rates, on a clock that is an argument."""

from controller.node.rates import Bucket, Buckets
from controller.node.timers import Timers


def test_calls_come_in_order_and_not_before_their_time() -> None:
    timers = Timers()
    calls: list[tuple[str, float]] = []
    timers.call_at(2.0, lambda now: calls.append(("second", now)))
    timers.call_at(1.0, lambda now: calls.append(("first", now)))
    timers.call_at(2.0, lambda now: calls.append(("third", now)))
    assert timers.deadline == 1.0
    timers.run(0.9)
    assert calls == []
    timers.run(2.5)
    assert calls == [("first", 2.5), ("second", 2.5), ("third", 2.5)]
    assert timers.deadline == float("inf")


def test_a_call_that_asks_for_another_at_once_waits_for_the_next_run() -> None:
    timers = Timers()
    calls: list[float] = []

    def again(now: float) -> None:
        calls.append(now)
        timers.call_at(now, again)

    timers.call_at(1.0, again)
    timers.run(1.0)
    assert calls == [1.0]
    timers.run(1.0)
    assert calls == [1.0, 1.0]


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = Bucket(rate=10.0, burst=5.0)
    assert sum(bucket.take(100.0) for _ in range(50)) == 5
    assert sum(bucket.take(101.0) for _ in range(50)) == 5
    assert sum(bucket.take(101.0 + n / 100) for n in range(1, 101)) == 10
    assert sum(bucket.take(1000.0) for _ in range(50)) == 5


def test_buckets_forget_the_least_recently_used() -> None:
    buckets: Buckets[str] = Buckets(rate=0.0, burst=1.0, limit=2)
    assert buckets.take("a", 0.0)
    assert buckets.take("b", 0.0)
    assert not buckets.take("a", 0.0)
    assert buckets.take("c", 0.0)  # in the place of b
    assert not buckets.take("a", 0.0)
    assert buckets.take("b", 0.0)
