"""What waits for a link is kept in order, within bounds, and counted when it is given up."""

from collections import Counter

from tincan.link.holding import HOLD_AGE, HOLD_BYTES, HOLD_FRAMES, NEVER, Holding


def test_kept_in_order_until_taken() -> None:
    holding = Holding(Counter())
    assert holding.deadline == NEVER
    for number in range(5):
        holding.add(bytes([number]), number / 10)
    assert holding.deadline == HOLD_AGE
    assert holding.take(1.0) == [bytes([number]) for number in range(5)]
    assert holding.take(1.0) == []


def test_the_oldest_gives_way() -> None:
    counters: Counter[str] = Counter()
    holding = Holding(counters)
    for number in range(HOLD_FRAMES + 3):
        holding.add(number.to_bytes(2, "big"), 0.0)
    assert counters["frames_dropped.hold_full"] == 3
    assert holding.take(0.0)[0] == (3).to_bytes(2, "big")
    for _ in range(20):
        holding.add(bytes(HOLD_BYTES // 8), 0.0)
    assert len(holding) == 8


def test_what_is_too_old_is_counted() -> None:
    counters: Counter[str] = Counter()
    holding = Holding(counters)
    holding.add(b"old", 0.0)
    holding.add(b"new", 1.0)
    assert holding.take(HOLD_AGE) == [b"new"]
    assert counters["frames_dropped.held_too_long"] == 1
