"""Loops: who blocks, when, for how long; and that neither recordings nor garbage do it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import MalformedFrame
from controller.loops import beacon
from controller.loops.beacon import MAX_ECHOES, Beacon
from controller.loops.machine import (
    HOLD,
    INTERVAL,
    MAX_NEIGHBOURS,
    TRANSITIONS,
    Change,
    Emit,
    Loops,
    Nearest,
    State,
)

A, B, C = (f"{number:064x}" for number in (0xA, 0xB, 0xC))
KEY = bytes(range(32))
SOURCE = "0a:00:00:00:00:01"


@dataclass
class Wire:
    """Segments by name; every node is on one. Beacons arrive at once."""

    where: dict[str, str]
    now: float = 1000.0
    nodes: dict[str, Loops] = field(default_factory=dict)
    changes: list[tuple[float, str, Change]] = field(default_factory=list)
    recorded: list[Beacon] = field(default_factory=list)
    silent: set[str] = field(default_factory=set)  # without a controller

    def __post_init__(self) -> None:
        for number, node in enumerate(self.where):
            self.nodes[node] = Loops(node)
            self.now += 0.1 * number
            self.nodes[node].activate(True, self.now)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            awake = [n for n in self.nodes if n not in self.silent]
            node = min(awake, key=lambda n: self.nodes[n].deadline)
            due = max(self.nodes[node].deadline, self.now)
            if due > end:
                break
            self.now = due
            self.tick(node)
        self.now = end

    def tick(self, node: str) -> None:
        for action in self.nodes[node].tick(self.now, int(self.now * 1e6)):
            if isinstance(action, Change):
                self.changes.append((self.now, node, action))
            if isinstance(action, Emit):
                self.recorded.append(action.beacon)
                for other in self.nodes:
                    same = self.where[other] == self.where[node]
                    if other != node and same and other not in self.silent:
                        self.play(action.beacon, other)

    def play(self, sent: Beacon, to: str) -> str:
        counter = self.nodes[to].heard(sent, self.now)
        self.tick(to)
        return counter

    def blocked(self) -> set[str]:
        return {node for node, loops in self.nodes.items() if loops.state is State.BLOCKED}


def test_apart_nobody_blocks() -> None:
    wire = Wire({A: "one", B: "two"})
    wire.run(60)
    assert not wire.changes
    assert len(wire.recorded) == pytest.approx(2 * 60 / INTERVAL, rel=0.1)


@pytest.mark.parametrize("order", list(itertools.permutations([A, B, C])))
def test_all_but_the_lowest_block_within_a_second(order: tuple[str, ...]) -> None:
    wire = Wire(dict.fromkeys(order, "one") | {C: "two"})
    wire.run(5)
    assert wire.blocked() == {B}
    wire.where[C] = "one"
    wire.run(1)
    assert wire.blocked() == {B, C}
    assert wire.nodes[A].state is State.SERVING
    wire.run(60)
    assert wire.blocked() == {B, C}
    # Once each, but for A and B, who were together before C came.
    assert len(wire.changes) == 3


def test_the_block_moves_when_the_one_that_serves_leaves_and_ends_with_the_loop() -> None:
    wire = Wire(dict.fromkeys((A, B, C), "one"))
    wire.run(3)
    wire.where[A] = "elsewhere"
    wire.run(HOLD + 0.1)
    assert wire.blocked() == {C}
    assert wire.nodes[B].state is State.SERVING
    wire.where[C] = "a third place"
    wire.run(HOLD + INTERVAL)
    assert not wire.blocked()
    assert {loops.state for loops in wire.nodes.values()} == {State.ALONE}


def test_a_recording_played_elsewhere_blocks_nobody() -> None:
    wire = Wire({A: "one", B: "one"})
    wire.run(3)
    recorded = list(wire.recorded)
    wire.where[B] = "two"
    wire.run(HOLD + INTERVAL)
    assert not wire.blocked()
    changes = len(wire.changes)
    counters = {wire.play(each, B) for each in recorded}
    assert counters <= {"beacons_unproven", "beacons_refused.replayed", "beacons_own"}
    for _ in range(20):  # a live one, but heard in one direction only
        wire.run(0.2)
        assert (
            wire.play(next(b for b in reversed(wire.recorded) if b.node == A), B) != "beacons_heard"
        )
    assert len(wire.changes) == changes


def test_old_beacons_do_not_hide_a_loop() -> None:
    wire = Wire({A: "one", B: "one"})
    wire.run(2)
    recorded = list(wire.recorded)
    for _ in range(30):
        wire.run(0.2)
        for each in recorded:
            for node in (A, B):
                wire.play(each, node)
    assert wire.blocked() == {B}


def test_a_restarted_controller_keeps_the_block_until_it_knows() -> None:
    wire = Wire({A: "one", B: "one"})
    wire.run(2)
    for where, blocked in (("one", {B}), ("two", set())):
        wire.where[B] = where
        wire.nodes[B] = Loops(B)
        wire.nodes[B].resume(wire.now)
        wire.nodes[B].activate(True, wire.now)
        wire.tick(B)
        wire.run(HOLD - 0.1)
        assert wire.blocked() == {B}
        wire.run(1)
        assert wire.blocked() == blocked


def test_the_one_that_serves_may_lose_its_controller() -> None:
    wire = Wire({A: "one", B: "one"})
    wire.run(2)
    wire.silent.add(A)
    wire.nodes[B].unattended([A])  # its tincan forwards
    wire.run(60)
    assert wire.blocked() == {B}
    wire.nodes[B].unattended([])
    wire.run(INTERVAL)
    assert not wire.blocked()


def test_a_flood_keeps_the_block() -> None:
    wire = Wire({A: "one", B: "one"})
    wire.run(2)
    wire.where[B] = "two"
    for _ in range(20):
        wire.run(1)
        wire.nodes[B].flooded(wire.now)
    assert wire.blocked() == {B}
    wire.run(HOLD + INTERVAL)
    assert not wire.blocked()


def test_without_links_there_is_no_beacon() -> None:
    wire = Wire({A: "one"})
    wire.nodes[A].activate(False, wire.now)
    wire.run(10)
    assert not wire.recorded


def test_neighbours_are_bounded() -> None:
    loops = Loops(A)
    loops.activate(True, 0.0)
    for number in range(3 * MAX_NEIGHBOURS):
        loops.heard(Beacon(f"{number + 100:064x}", 1), 0.0)
    emitted = loops.tick(0.0, 5)
    assert isinstance(emitted[-1], Emit)
    assert len(emitted[-1].beacon.echoes) == MAX_NEIGHBOURS
    loops.tick(HOLD + 1, 10)
    assert loops.heard(Beacon(C, 1), HOLD + 1) == "beacons_unproven"


def test_the_table_knows_every_state() -> None:
    for state, nearest in itertools.product(State, Nearest):
        after = TRANSITIONS.get((state, nearest), state)
        assert (after is State.BLOCKED) == (nearest is Nearest.LOWER)
        assert (after is State.ALONE) == (nearest is Nearest.NOBODY)


echoes = st.lists(
    st.tuples(st.binary(min_size=8, max_size=8).map(bytes.hex), st.integers(0, 2**64 - 1)),
    max_size=MAX_ECHOES,
)


@given(st.binary(min_size=32, max_size=32), st.integers(0, 2**64 - 1), echoes, st.integers(0, 50))
def test_beacons_come_back_as_they_went(
    node: bytes, number: int, echoes: list[tuple[str, int]], padding: int
) -> None:
    sent = Beacon(node.hex(), number, tuple(echoes))
    frame = beacon.build(sent, SOURCE, KEY)
    assert len(frame) <= 1514
    assert beacon.parse(frame + bytes(padding), KEY) == sent
    with pytest.raises(MalformedFrame, match="forged"):
        beacon.parse(frame, bytes(32))
    for cut in range(0, len(frame), 7):
        with pytest.raises(MalformedFrame):
            beacon.parse(frame[:cut], KEY)


@given(st.binary(max_size=200))
def test_garbage_is_refused(garbage: bytes) -> None:
    for frame in (garbage, beacon.build(Beacon(A, 1), SOURCE, KEY)[:20] + garbage):
        with pytest.raises(MalformedFrame):
            beacon.parse(frame, KEY)
