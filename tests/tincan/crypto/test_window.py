"""The replay window against a model that remembers everything."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tincan.crypto.window import COUNTER_LIMIT, WINDOW, ReplayWindow


class Model:
    """What the window promises, at any cost in memory."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.top = -1

    def new(self, counter: int) -> bool:
        return counter > self.top - WINDOW and counter not in self.seen

    def commit(self, counter: int) -> bool:
        if not self.new(counter):
            return False
        self.seen.add(counter)
        self.top = max(self.top, counter)
        return True


def agree(counters: list[int]) -> None:
    window, model = ReplayWindow(), Model()
    for counter in counters:
        assert window.check(counter) is model.new(counter), counter
        assert window.commit(counter) is model.commit(counter), counter
        assert not window.check(counter)
    assert window.top == model.top


near_edges = st.sampled_from([0, 1, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW, 3 * WINDOW - 1])
steps = st.lists(st.one_of(st.integers(-2 * WINDOW, 2 * WINDOW), near_edges, st.integers(-3, 3)))


@given(start=st.one_of(st.integers(0, 3 * WINDOW), st.integers(0, COUNTER_LIMIT - 1)), steps=steps)
def test_agrees_with_the_model_on_walks(start: int, steps: list[int]) -> None:
    counters = [start]
    for step in steps:
        counters.append(min(max(counters[-1] + step, 0), COUNTER_LIMIT - 1))
    agree(counters)


@given(st.lists(st.integers(0, 5 * WINDOW)))
def test_agrees_with_the_model_on_any_order(counters: list[int]) -> None:
    agree(counters)


def test_agrees_with_the_model_over_many_laps() -> None:
    rng = random.Random(1)
    counters = []
    position = 0
    for _ in range(40_000):
        position += rng.choice((0, 1, 1, 1, 2, 50))
        counters.append(max(0, position - rng.choice((0, 0, 1, 7, WINDOW - 1, WINDOW, WINDOW + 1))))
    agree(counters)


@pytest.mark.parametrize("burst", [64, 1000, WINDOW // 2])
def test_bursts_that_overtake_each_other_are_all_accepted(burst: int) -> None:
    window = ReplayWindow()
    for first in range(0, 20 * WINDOW, 2 * burst):
        for counter in (*range(first + burst, first + 2 * burst), *range(first, first + burst)):
            assert window.check(counter)
            assert window.commit(counter)


def test_last_counter_of_64_bits() -> None:
    window = ReplayWindow()
    assert window.commit(COUNTER_LIMIT - 1)
    assert not window.check(COUNTER_LIMIT - 1)
    assert window.check(COUNTER_LIMIT - 2)
    assert not window.check(COUNTER_LIMIT - 1 - WINDOW)


def test_a_check_alone_moves_nothing() -> None:
    window = ReplayWindow()
    assert window.check(10**6)
    assert window.check(0)
    assert window.commit(0)
