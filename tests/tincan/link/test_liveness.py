"""Liveness over a simulated path."""

import heapq
import itertools
import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tincan.link.liveness import (
    DEAD_AFTER,
    MAX_OUTSTANDING,
    MIN_PATIENCE,
    PROBE_INTERVAL,
    SUSPICION_AFTER,
    SUSPICIOUS_INTERVAL,
    Liveness,
    Mood,
    Probe,
)
from tincan.record.layout import ECHO, HEADER_SIZE, ITEM_SIZE, TAG_SIZE


class World:
    """An elected and a passive side; ``path(now)`` says how long a datagram takes, if it does."""

    def __init__(self, path: Callable[[float], float | None]) -> None:
        self.elected = Liveness(True, 0.0)
        self.passive = Liveness(False, 0.0)
        self.path = path
        self.now = 0.0
        self.sent: list[float] = []  # times of probes
        self.answers = 0
        self.died: dict[str, float] = {}
        self.queue: list[tuple[float, int, Callable[[], None]]] = []
        self.order = itertools.count()

    def after(self, delay: float | None, action: Callable[[], None]) -> None:
        if delay is not None:
            heapq.heappush(self.queue, (self.now + delay, next(self.order), action))

    def probe(self, probe: Probe) -> None:
        self.sent.append(self.now)
        self.after(self.path(self.now), lambda: self.answer(probe))

    def answer(self, probe: Probe) -> None:
        self.passive.received(self.now)
        self.answers += 1
        self.after(self.path(self.now), lambda: self.elected.probe_answered(probe.id, self.now))

    def run(self, until: float) -> None:
        while True:
            due = min(self.elected.deadline, self.passive.deadline)
            event = self.queue[0][0] if self.queue else math.inf
            if min(due, event) > until:
                break
            if event <= due:
                self.now, _, action = heapq.heappop(self.queue)
                action()
                continue
            self.now = due
            for probe in self.elected.tick(self.now):
                self.probe(probe)
            assert self.passive.tick(self.now) == []
            assert min(self.elected.deadline, self.passive.deadline) > due
            for name, side in (("elected", self.elected), ("passive", self.passive)):
                if side.dead:
                    self.died.setdefault(name, self.now)
        self.now = until


def suspicious(side: Liveness) -> bool:
    return side.mood is Mood.SUSPICION


def test_first_answer_calms() -> None:
    world = World(lambda now: 0.05)
    world.run(0.0)
    assert world.sent == [0.0]
    assert suspicious(world.elected)
    world.run(0.2)
    assert not suspicious(world.elected)
    assert world.elected.rtt == pytest.approx(0.1)
    world.run(60)
    assert world.sent == pytest.approx([PROBE_INTERVAL * number for number in range(21)])
    assert world.died == {}


def test_probes_often_until_the_first_answer() -> None:
    world = World(lambda now: 0.01 if now > 2.1 else None)
    world.run(3.0)
    assert world.sent == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    assert not suspicious(world.elected)


@pytest.mark.parametrize("breaks", [60.0, 60.9, 61.5, 62.9])
def test_a_dead_path_is_noticed_by_both_in_time(breaks: float) -> None:
    world = World(lambda now: 0.02 if now < breaks else None)
    world.run(80.0)
    assert world.died.keys() == {"elected", "passive"}
    assert max(world.died.values()) <= breaks + DEAD_AFTER
    assert min(world.died.values()) > breaks + DEAD_AFTER - PROBE_INTERVAL - 0.1
    chances = [sent for sent in world.sent if sent >= breaks]
    assert len(chances) >= 6  # not dead for want of asking


def test_suspicion_by_silence_alone() -> None:
    side = Liveness(True, 0.0)
    [probe] = side.tick(0.0)
    side.probe_answered(probe.id, 0.0)
    side.tick(3.0)
    assert not suspicious(side)
    assert side.tick(SUSPICION_AFTER) == [Probe(3)]
    assert suspicious(side)
    assert side.tick(SUSPICION_AFTER + 0.1) == []
    assert side.deadline == SUSPICION_AFTER + SUSPICIOUS_INTERVAL


def test_an_overdue_answer_is_suspicious_even_while_traffic_comes() -> None:
    side = Liveness(True, 0.0)
    [probe] = side.tick(0.0)
    side.probe_answered(probe.id, 0.01)
    [_] = side.tick(3.0)
    side.received(3.0 + MIN_PATIENCE)
    assert side.tick(3.0 + MIN_PATIENCE) == [Probe(3)]


def test_patience_grows_with_the_round_trip() -> None:
    world = World(lambda now: 0.4)  # 0.8 s
    world.run(60.0)
    assert len(world.sent) <= 2 + 60 / PROBE_INTERVAL
    assert world.elected.rtt == pytest.approx(0.8)
    assert world.died == {}


def test_round_trip_longer_than_the_suspicious_interval() -> None:
    world = World(lambda now: 1.0)
    world.run(60.0)
    assert not suspicious(world.elected)
    assert world.died == {}
    assert len(world.sent) <= 5 + 60 / PROBE_INTERVAL


def test_smoothing_is_that_of_rfc_6298() -> None:
    side = Liveness(True, 0.0)
    for number, sample in enumerate((0.1, 0.2)):
        start = number * PROBE_INTERVAL
        [probe] = side.tick(start)
        side.probe_answered(probe.id, start + sample)
    assert side.rtt == pytest.approx(0.1 * 7 / 8 + 0.2 / 8)
    assert side.rtt_variation == pytest.approx(0.05 * 3 / 4 + 0.1 / 4)


def test_unknown_and_repeated_answers_change_nothing() -> None:
    side = Liveness(True, 0.0)
    [probe] = side.tick(0.0)
    side.probe_answered(99, 0.1)
    side.probe_answered(0, 0.1)
    assert side.rtt is None
    side.probe_answered(probe.id, 0.1)
    before = side.heard, side.rtt, side.deadline
    side.probe_answered(probe.id, 0.2)
    assert (side.heard, side.rtt, side.deadline) == before


def test_an_answer_excuses_the_probes_before_it() -> None:
    side = Liveness(True, 0.0)
    side.tick(0.0)
    [second] = side.tick(0.5)
    side.probe_answered(second.id, 0.55)
    assert not suspicious(side)
    side.tick(1.0)
    assert not suspicious(side)
    assert side.rtt == pytest.approx(0.05)


def test_what_is_outstanding_is_bounded() -> None:
    """A path that works towards us only: we are heard by nobody, and hear the peer's data."""
    side = Liveness(True, 0.0)
    probes = 0
    for tick in range(1000):
        side.received(tick * 0.1)
        probes += len(side.tick(tick * 0.1))
        assert len(side._outstanding) <= MAX_OUTSTANDING
    assert probes == 200
    assert not side.dead


def test_a_late_tick_is_our_own_sleep() -> None:
    for elected in (True, False):
        side = Liveness(elected, 0.0)
        for probe in side.tick(0.0):
            side.probe_answered(probe.id, 0.0)
        side.tick(30.0)
        assert not side.dead
        while not side.dead:
            at = side.deadline
            side.tick(at)
        assert at == pytest.approx(30.0 + DEAD_AFTER - SUSPICION_AFTER)


def test_dead_is_for_good() -> None:
    side = Liveness(True, 0.0)
    while not side.dead:
        [*_] = side.tick(side.deadline)
    side.received(7.0)
    side.suspect(7.0)
    side.probe_answered(13, 7.0)
    assert side.tick(7.0) == []
    assert side.dead
    assert side.deadline == math.inf


def test_suspect_probes_at_once() -> None:
    world = World(lambda now: 0.01)
    world.run(10.0)
    world.elected.suspect(10.0)
    world.passive.suspect(10.0)
    world.run(10.1)
    assert world.sent[-1] == 10.0
    assert not suspicious(world.elected)


def test_probe_numbers_wrap() -> None:
    side = Liveness(True, 0.0)
    side._next_id = 0xFFFFFFFF
    assert side.tick(0.0) == [Probe(0xFFFFFFFF)]
    assert side.tick(0.5) == [Probe(1)]


@pytest.mark.parametrize("ip_header", [20, 40])
def test_idle_budget(ip_header: int) -> None:
    """Below 100 B/s of IP, both directions together, an hour long."""
    world = World(lambda now: 0.03)
    world.run(3600.0)
    size = ip_header + 8 + HEADER_SIZE + ITEM_SIZE + ECHO.size + TAG_SIZE
    assert (len(world.sent) + world.answers) * size / 3600 < 65


@given(seed=st.integers(0), loss=st.floats(0, 0.1), rtt=st.floats(0.0001, 0.5))
def test_loss_alone_hardly_kills(seed: int, loss: float, rtt: float) -> None:
    rng = random.Random(seed)
    world = World(lambda now: None if rng.random() < loss else rtt / 2)
    world.run(600.0)
    assert world.died == {}


@given(seed=st.integers(0), loss=st.floats(0, 1))
def test_deadlines_always_move_on(seed: int, loss: float) -> None:
    rng = random.Random(seed)
    world = World(lambda now: None if rng.random() < loss else rng.expovariate(2))
    world.run(60.0)
    assert len(world.sent) <= 60 / SUSPICIOUS_INTERVAL + 1
