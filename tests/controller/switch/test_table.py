"""The table: an order that all nodes share, ages, bounds, checksums."""

from itertools import permutations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.packets.addresses import Key
from controller.switch import messages as rpc
from controller.switch import table as bindings
from controller.switch.table import (
    BUCKETS,
    CROWDED_S,
    JITTER_S,
    MAX_PER_MAC,
    MAX_PER_NODE,
    MAX_SEQUENCE,
    MAX_TOMBSTONES,
    RECHECK_S,
    REPROBE_S,
    TOMBSTONE_S,
    Binding,
    Origin,
    Outcome,
    Table,
)
from tests.controller.switch.wire import decode, encode
from tests.controller.switch.world import World, mac

ME, B, C = World.id("a"), World.id("b"), World.id("c")
KEY = (0, "10.0.3.7")


def said(
    node: str = B,
    sequence: int = 0,
    address: str = "00:16:3e:00:00:07",
    key: Key = KEY,
    *,
    alive: bool = True,
    now: float = 0.0,
) -> Binding:
    return Binding(key, address, node, sequence, now, alive=alive)


# --- the order (RFC 7432 section 7.7)


def test_the_first_has_sequence_zero_and_a_mover_one_more() -> None:
    table = Table(ME)
    change = table.learn(KEY, mac(7), 0.0)
    assert change.outcome is Outcome.NEW
    assert change.new is not None
    assert change.new.sequence == 0
    assert table.offer(said(B, 1)).outcome is Outcome.MOVED
    change = table.learn(KEY, mac(7), 1.0)
    assert change.outcome is Outcome.MOVED
    assert change.new is not None
    assert change.new.sequence == 2


def test_the_highest_wins_and_of_equals_the_lowest_node() -> None:
    table = Table(ME)
    table.offer(said(C, 3))
    assert table.offer(said(B, 2)).outcome is Outcome.STALE
    assert table.offer(said(B, 3)).outcome is Outcome.MOVED
    assert table.offer(said(C, 3)).outcome is Outcome.STALE
    assert table.offer(said(C, 4)).outcome is Outcome.MOVED


def test_a_withdrawal_takes_what_came_before_and_nothing_after() -> None:
    table = Table(ME)
    table.offer(said(B, 3))
    assert table.offer(said(B, 4, alive=False)).outcome is Outcome.WITHDRAWN
    assert table.live(KEY) is None
    assert table.offer(said(B, 3)).outcome is Outcome.STALE
    assert table.offer(said(C, 4)).outcome is Outcome.NEW  # a mover has the same number
    assert table.offer(said(B, 4, alive=False)).outcome is Outcome.STALE


def test_a_repetition_is_no_news() -> None:
    table = Table(ME)
    table.offer(said(B, 3))
    assert table.offer(said(B, 3)).outcome is Outcome.SAME
    assert table.learn((0, "10.0.3.8"), mac(8), 0.0).outcome is Outcome.NEW
    assert table.learn((0, "10.0.3.8"), mac(8), 1.0).outcome is Outcome.SAME


def test_a_node_cannot_say_two_things_at_one_number() -> None:
    table = Table(ME)
    table.offer(said(B, 3))
    assert table.offer(said(B, 3, mac(9))).outcome is Outcome.STALE


def test_a_changed_router_flag_is_an_update() -> None:
    table = Table(ME)
    table.learn(KEY, mac(7), 0.0)
    assert table.learn(KEY, mac(7), 1.0, router=True).outcome is Outcome.UPDATED
    assert table.learn(KEY, mac(7), 2.0).outcome is Outcome.SAME  # ARP says nothing about it
    binding = table.live(KEY)
    assert binding is not None
    assert binding.router


def test_the_number_ends_where_the_wire_does() -> None:
    table = Table(ME)
    table.offer(said(B, MAX_SEQUENCE))
    change = table.learn(KEY, mac(7), 0.0)
    assert change.new is not None
    assert change.new.sequence == MAX_SEQUENCE
    assert decode(encode(rpc.Announce([rpc.Entry(KEY[1], mac(7), change.new.sequence)])))


utterances = st.lists(
    st.builds(
        said,
        st.sampled_from([B, C, World.id("d")]),
        st.integers(0, 3),
        key=st.sampled_from([KEY, (0, "10.0.3.8"), (9, "10.0.3.7")]),
        alive=st.booleans(),
    ),
    max_size=6,
)


@given(utterances, st.randoms(use_true_random=False))
def test_whatever_the_order_and_however_often_the_result_is_the_same(
    heard: list[Binding], random: Random
) -> None:
    results = set()
    for _ in range(4):
        shuffled = heard + random.choices(heard, k=3) if heard else []
        random.shuffle(shuffled)
        table = Table(ME)
        for utterance in shuffled:
            table.offer(utterance)
        held = sorted((b.key, b.node, b.sequence) for b in table)
        results.add((*held, table.checksum(B), table.checksum(C)))
    assert len(results) == 1


@given(utterances)
def test_the_order_is_total(heard: list[Binding]) -> None:
    for one, other in permutations(heard, 2):
        if (one.sequence, one.alive, one.node) != (other.sequence, other.alive, other.node):
            assert one.beats(other) != other.beats(one)


# --- indexes and checksums


def add_up(table: Table) -> None:
    """Check every index against the bindings themselves."""
    live = list(table)
    assert len(table) == len(live)
    for node in (ME, B, C):
        owned = [b for b in live if b.node == node]
        assert {b.key for b in table.of_node(node)} == {b.key for b in owned}
        total = 0
        for b in owned:
            total ^= b.checksum
        assert table.checksum(node) == f"{total:016x}"
        assert bool(table.checksums(node)) == bool(owned)
        buckets = table.in_buckets(node, range(BUCKETS))
        assert {b.key for b in buckets} == {b.key for b in owned}
    for b in live:
        assert b in table.of_mac(b.vlan, b.mac)


operations = st.lists(
    st.tuples(
        st.sampled_from(["learn", "offer", "withdraw", "forget"]),
        st.sampled_from([(v, f"10.0.3.{n}") for v in (0, 1) for n in range(3)]),
        st.sampled_from([mac(n) for n in range(3)]),
        st.sampled_from([B, C]),
        st.integers(0, 9),
        st.booleans(),
    ),
    max_size=40,
)


@given(operations)
def test_the_indexes_add_up(history: list[tuple[str, Key, str, str, int, bool]]) -> None:
    table = Table(ME)
    for now, (operation, key, address, node, sequence, flag) in enumerate(history):
        if operation == "learn":
            table.learn(key, address, now, router=flag)
        elif operation == "offer":
            table.offer(said(node, sequence, address, key, alive=flag, now=now))
        elif operation == "withdraw":
            table.withdraw(key, now)
        else:
            table.forget(key)
        add_up(table)
    table.due(1e6)
    add_up(table)


def test_equal_tables_have_equal_checksums_and_others_do_not() -> None:
    mine, theirs = Table(B), Table(ME)
    for n in range(200):
        key = (0, f"10.0.3.{n}")
        change = mine.learn(key, mac(n), 0.0)
        assert change.new is not None
        theirs.offer(change.new)
    assert mine.checksum(B) == theirs.checksum(B) != "0" * 16
    assert mine.checksums(B) == theirs.checksums(B)
    mine.learn((0, "10.0.3.5"), mac(9), 1.0)
    differing = [
        n
        for n in range(BUCKETS)
        if mine.checksums(B)[8 * n : 8 * n + 8] != theirs.checksums(B)[8 * n : 8 * n + 8]
    ]
    assert 1 <= len(differing) <= 2
    assert mine.checksum(B) != theirs.checksum(B)


# --- ages


def test_a_silent_owner_is_named_in_time_and_again() -> None:
    table = Table(ME)
    table.learn(KEY, mac(7), 100.0)
    first = table.deadline
    assert 100 + REPROBE_S - JITTER_S <= first <= 100 + REPROBE_S
    assert table.due(first - 0.1) == []
    assert [b.key for b in table.due(first)] == [KEY]
    assert table.deadline == first + RECHECK_S
    assert [b.key for b in table.due(first + RECHECK_S)] == [KEY]


def test_an_owner_that_is_heard_is_left_alone() -> None:
    table = Table(ME)
    table.learn(KEY, mac(7), 100.0)
    table.learn(KEY, mac(7), 300.0)
    assert table.due(400.0) == []
    assert [b.key for b in table.due(300 + REPROBE_S)] == [KEY]


def test_only_learned_local_bindings_age() -> None:
    table = Table(ME)
    table.offer(said())
    table.learn((0, "10.0.3.1"), mac(1), 0.0, origin=Origin.BRIDGE)
    assert table.deadline == float("inf")
    assert table.due(1e9) == []
    assert len(table) == 2


def test_what_has_moved_away_or_gone_is_not_named() -> None:
    table = Table(ME)
    table.learn(KEY, mac(7), 0.0)
    table.learn((0, "10.0.3.8"), mac(8), 0.0)
    table.offer(said(B, 5))
    table.withdraw((0, "10.0.3.8"), 1.0)
    assert table.due(REPROBE_S) == []


def test_a_tombstone_ends() -> None:
    table = Table(ME)
    table.learn(KEY, mac(7), 0.0)
    table.withdraw(KEY, 10.0)
    assert table.offer(said(B, 0)).outcome is Outcome.STALE
    table.due(10 + TOMBSTONE_S)
    assert table.get(KEY) is None
    assert table.offer(said(B, 0)).outcome is Outcome.NEW


def test_in_a_crowd_the_silent_are_named_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bindings, "MAX_PER_NODE", 8)
    table = Table(ME)
    for n in range(8):
        table.learn((0, f"10.0.3.{n}"), mac(n), 0.0)
    named = {b.key for b in table.due(CROWDED_S)}
    assert {(0, "10.0.3.5"), (0, "10.0.3.6"), (0, "10.0.3.7")} <= named


# --- bounds


def test_a_node_has_so_many_bindings_and_no_more() -> None:
    table = Table(ME)
    for n in range(MAX_PER_NODE):
        table.offer(said(B, 0, mac(n), (0, f"10.1.{n >> 8}.{n & 255}")))
    assert table.offer(said()).outcome is Outcome.FULL
    assert table.offer(said(C)).outcome is Outcome.NEW
    assert table.offer(said(B, 1)).outcome is Outcome.FULL  # not by moving either
    assert len(table) == MAX_PER_NODE + 1
    table.offer(said(B, 1, mac(0), (0, "10.1.0.0"), alive=False))
    assert table.offer(said(B, 1)).outcome is Outcome.MOVED


def test_a_mac_has_so_many_addresses_and_no_more() -> None:
    table = Table(ME)
    for n in range(MAX_PER_MAC):
        table.learn((0, f"10.1.1.{n}"), mac(7), 0.0)
    assert table.learn(KEY, mac(7), 0.0).outcome is Outcome.FULL
    assert table.learn(KEY, mac(8), 0.0).outcome is Outcome.NEW


def test_all_nodes_together_have_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bindings, "MAX_BINDINGS", 3)
    table = Table(ME)
    for n, node in enumerate((ME, B, C)):
        table.offer(said(node, 0, mac(n), (0, f"10.0.3.{n}")))
    assert table.offer(said()).outcome is Outcome.FULL
    assert table.offer(said(C, 1, mac(9), (0, "10.0.3.0"))).outcome is Outcome.MOVED


def test_the_oldest_tombstone_goes_first() -> None:
    table = Table(ME)
    for n in range(MAX_TOMBSTONES + 1):
        key = (0, f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}")
        table.offer(said(B, 1, mac(1), key, alive=False, now=n))
    assert table.get((0, "10.0.0.0")) is None
    assert table.get((0, "10.0.0.1")) is not None
    assert len(table) == 0
