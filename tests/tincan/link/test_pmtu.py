"""Path MTU discovery over simulated paths that drop what is too large, and some of the rest."""

import heapq
import itertools
import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tincan.link.pmtu import BASE, CEILING, CONFIRM_INTERVAL, LADDERS, RAISE_INTERVAL, PathMtu

COMMON = [1200, *itertools.chain(*LADDERS)]


class World:
    """One path. ``mtu`` drops silently, ``device`` answers EMSGSIZE; loss is per round trip."""

    def __init__(
        self,
        mtu: int,
        *,
        rtt: float = 0.02,
        loss: float = 0.0,
        seed: int = 0,
        device: int = CEILING,
        overhead: int = 28,
    ) -> None:
        self.mtu = mtu
        self.device = device
        self.rtt = rtt
        self.loss = loss
        self.rng = random.Random(seed)
        self.now = 0.0
        self.search = PathMtu(overhead, 0.0)
        self.probes: list[tuple[float, int]] = []
        self.queue: list[tuple[float, int, Callable[[], None]]] = []
        self.order = itertools.count()
        self.traffic_until = -math.inf
        self.reached: dict[int, float] = {}  # mtu: when first usable

    def at(self, time: float, action: Callable[[], None]) -> None:
        heapq.heappush(self.queue, (time, next(self.order), action))

    def flow(self, until: float, interval: float = 0.01) -> None:
        """Full-size datagrams from now on."""

        def send() -> None:
            size = self.search.mtu
            if size > self.device:
                self.search.too_big(size, self.now)
            else:
                self.search.sent(size, self.now)
            if self.now + interval <= until:
                self.at(self.now + interval, send)

        self.at(self.now, send)

    def probe(self, size: int) -> None:
        if size > self.device:
            self.search.too_big(size, self.now)
            return
        self.probes.append((self.now, size))
        if size <= self.mtu and self.rng.random() >= self.loss:
            self.at(self.now + self.rtt, lambda: self.search.acknowledged(size, self.now))

    def run(self, until: float) -> None:
        while True:
            due = self.search.deadline
            event = self.queue[0][0] if self.queue else math.inf
            if min(due, event) > until:
                break
            if event <= due:
                self.now, _, action = heapq.heappop(self.queue)
                action()
            else:
                self.now = max(due, self.now)
                for size in self.search.tick(self.now):
                    self.probe(size)
            self.reached.setdefault(self.search.mtu, self.now)
        self.now = until

    def settle(self, within: float = 120.0) -> int:
        end = self.now + within
        while self.now < end and not (self.search.settled and not self.queue):
            self.run(min(end, self.now + 0.1))
        assert self.search.settled
        return self.search.mtu


def test_ethernet_in_one_round_trip_jumbo_in_two() -> None:
    world = World(9000, rtt=0.1)
    world.run(0.0)
    assert [size for _, size in world.probes] == list(LADDERS[0])
    assert world.search.mtu == BASE
    assert world.search.payload == BASE - 28
    world.run(1.0)
    assert world.reached[1500] == pytest.approx(0.1)
    assert world.reached[9000] == pytest.approx(0.2)


@pytest.mark.parametrize("mtu", COMMON)
@pytest.mark.parametrize("device", [1500, 9000, CEILING])
def test_common_paths_are_found_exactly(mtu: int, device: int) -> None:
    world = World(mtu, device=device)
    assert world.settle() == min(mtu, device)
    world.run(world.now + CONFIRM_INTERVAL)
    assert world.search.deadline == math.inf


@settings(max_examples=300, deadline=None)
@given(
    mtu=st.one_of(st.integers(BASE, CEILING), st.integers(BASE, 1600), st.sampled_from(COMMON)),
    device=st.one_of(st.integers(BASE, CEILING), st.sampled_from(COMMON)),
    rtt=st.floats(0.0001, 2.0),
)
def test_any_path_is_found_exactly(mtu: int, device: int, rtt: float) -> None:
    world = World(mtu, device=device, rtt=rtt)
    assert world.settle() == min(mtu, device)
    assert len(world.probes) < 250


@settings(max_examples=300, deadline=None)
@given(
    mtu=st.one_of(st.integers(BASE, CEILING), st.integers(BASE, 1600), st.sampled_from(COMMON)),
    rtt=st.floats(0.0001, 0.3),
    seed=st.integers(0),
)
def test_a_tenth_of_probes_lost_changes_nothing(mtu: int, rtt: float, seed: int) -> None:
    world = World(mtu, rtt=rtt, loss=0.1, seed=seed)
    assert world.settle() == mtu


@settings(deadline=None)
@given(seed=st.integers(0), loss=st.floats(0, 0.9), mtu=st.integers(BASE, CEILING))
def test_never_more_than_the_path_carries(seed: int, loss: float, mtu: int) -> None:
    world = World(mtu, loss=loss, seed=seed)
    world.flow(20.0)
    world.run(20.0)
    assert max(world.reached) <= mtu
    assert len(world.probes) < 20 * 100


@pytest.mark.parametrize(("before", "after"), [(1500, 1400), (1500, 1280), (9000, 1500), (1500, 1)])
@pytest.mark.parametrize("phase", [0.0, 0.1, 0.24, 0.37, 0.49])
@pytest.mark.parametrize("rtt", [0.0005, 0.02, 0.1, 0.3])
def test_black_hole_is_left_before_the_third_timeout_of_tcp(
    before: int, after: int, phase: float, rtt: float
) -> None:
    world = World(before, rtt=rtt)
    world.settle()
    world.flow(math.inf)
    world.run(world.now + 5)
    assert world.search.mtu == before
    broken = world.now + phase
    world.run(broken)
    world.mtu = after
    while world.search.mtu > max(after, BASE):
        world.run(world.now + 0.01)
        assert world.now < broken + 3.0
    assert world.search.black_holes == 1
    if rtt <= 0.1:
        assert world.now - broken < 1.4
    if after >= BASE:
        world.run(world.now + 0.05 + rtt)
        assert world.search.mtu == after


def test_path_that_widens_is_used_after_the_raise_timer() -> None:
    world = World(1400)
    world.settle()
    world.mtu = 1500
    world.flow(RAISE_INTERVAL * 1.1, 0.1)
    world.run(RAISE_INTERVAL - 1)
    assert world.search.mtu == 1400
    world.run(RAISE_INTERVAL * 1.1)
    assert world.search.mtu == 1500


def test_path_of_the_base_size_is_raised_too() -> None:
    world = World(BASE)
    world.settle()
    world.mtu = 1500
    world.flow(RAISE_INTERVAL * 1.1, 0.1)
    world.run(RAISE_INTERVAL * 1.1)
    assert world.search.mtu == 1500


def test_idle_link_probes_nothing() -> None:
    world = World(1500)
    world.settle()
    world.probes.clear()
    world.search.sent(100, world.now)  # small datagrams do not count
    world.run(10 * RAISE_INTERVAL)
    assert world.probes == []


def test_first_traffic_after_idling_confirms_once() -> None:
    world = World(1500)
    world.settle()
    world.probes.clear()
    world.run(100.0)
    world.search.sent(1500, 100.0)
    assert world.search.deadline == 100.0
    world.run(200.0)
    assert world.probes == [(100.0, 1500)]


def test_confirmations_need_no_help_while_traffic_flows() -> None:
    """Whoever arms a timer by ``deadline`` after each tick and answer only must not miss any."""
    search = PathMtu(28, 0.0)
    for size in search.tick(0.0):
        search.acknowledged(size, 0.01)
    while not search.settled:
        search.tick(search.deadline)
    search.sent(1500, 100.0)
    confirmations = 0
    at = search.deadline
    assert at == 100.0
    while at < 110.0:
        search.sent(1500, at)
        for size in search.tick(at):
            search.acknowledged(size, at)
            confirmations += 1
        at = search.deadline
        search.sent(1500, at - 0.001)
    assert confirmations == pytest.approx(10 / CONFIRM_INTERVAL, abs=1)


def test_confirmations_keep_their_distance_under_load() -> None:
    world = World(1500)
    world.settle()
    world.probes.clear()
    world.flow(world.now + 10, 0.001)
    world.run(world.now + 10)
    assert 10 / (CONFIRM_INTERVAL + 0.03) - 1 <= len(world.probes) <= 10 / CONFIRM_INTERVAL + 1
    assert {size for _, size in world.probes} == {1500}


def test_a_round_trip_that_grows_under_load_costs_one_retreat_at_most() -> None:
    """Bufferbloat: answers are late, not lost; the late one restores the size at once."""
    world = World(1500)
    world.settle()
    world.flow(math.inf)
    world.run(world.now + 5)
    world.rtt = 0.9
    world.run(world.now + 60)
    assert world.search.mtu == 1500
    assert world.search.black_holes <= 2


def test_device_that_shrinks_is_believed_at_once() -> None:
    world = World(9000)
    world.settle()
    world.device = world.mtu = 1400
    changed = world.now
    world.flow(math.inf)
    world.run(changed + 0.05)
    assert world.search.mtu == 1400
    assert world.search.black_holes == 0
    assert world.settle() == 1400


def test_restart_forgets() -> None:
    world = World(1500)
    world.settle()
    world.search.restart(world.now)
    assert world.search.mtu == BASE
    assert world.settle() == 1500


@given(st.integers(0, 65535))
def test_answers_to_what_was_never_asked_are_ignored(size: int) -> None:
    search = PathMtu(28, 0.0)
    search.acknowledged(size, 0.0)
    assert search.mtu == BASE
    search.tick(0.0)
    if size not in LADDERS[0]:
        search.acknowledged(size, 0.0)
        assert search.mtu == BASE


def test_the_kernel_refusing_the_base_changes_nothing() -> None:
    search = PathMtu(48, 0.0)
    search.too_big(BASE, 0.0)
    assert search.mtu == BASE


def test_rtt_from_outside_gives_patience() -> None:
    search = PathMtu(28, 0.0)
    search.tick(0.0, rtt=1.0)
    assert search.deadline == 1.5
