"""Losses reported and believed: records as short as the path needs, and no shorter."""

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.bench.pump import frame
from tincan.loss import (
    CLEAN,
    ENOUGH,
    HALVED_AFTER,
    NO_LIMIT,
    REPORT_INTERVAL,
    SHORTEST,
    Loss,
    cut,
)
from tincan.replay import ReplayWindow
from tincan.wire import ITEM, ITEM_SIZE, LENGTH_MASK, TAG_SIZE, Item, item


def over(path_loses: float, seconds: float, *, per_record: int = 45, rate: int = 2000) -> Loss:
    """A sender of ``rate`` records a second whose path loses this share of datagrams."""
    dice = random.Random(7)
    window, peer, ours = ReplayWindow(), Loss(), Loss()
    sent = datagrams = 0
    for counter in range(int(seconds * rate)):
        now = counter / rate
        length = min(per_record, ours.longest(now))
        sent, datagrams = sent + 1, datagrams + length
        if dice.random() < 1 - (1 - path_loses) ** length:
            continue
        window.commit(counter)
        if window.gap:
            window.gap = False
            report = peer.gap(window, now)
            if report:
                assert ITEM.unpack_from(report)[0] >> 28 == Item.LOSS
                ours.reported(report[ITEM_SIZE:], sent, datagrams, now)
    return ours


@pytest.mark.parametrize("path_loses", [0.001, 0.01, 0.03])
def test_the_estimate_is_that_of_datagrams(path_loses: float) -> None:
    ours = over(path_loses, 5)
    assert ours.share == pytest.approx(path_loses, rel=0.6)
    assert SHORTEST <= ours.longest(5.0) < 45 or path_loses == 0.001


def test_a_clean_path_has_no_limit_and_silence_makes_it_clean() -> None:
    assert over(0.0, 2).longest(2.0) == NO_LIMIT
    ours = over(0.01, 5)
    assert ours.longest(5.0) < NO_LIMIT
    later = 5.0 + 10 * HALVED_AFTER
    assert ours.longest(later) == NO_LIMIT
    assert ours.share < CLEAN


def test_reordering_alone_is_next_to_nothing() -> None:
    window, peer = ReplayWindow(), Loss()
    lost = expected = 0
    for counter in range(20_000):
        window.commit(counter ^ 3)
        if window.gap:
            window.gap = False
            report = peer.gap(window, counter / 2000)
            if report:
                should, did = struct.unpack(">II", report[ITEM_SIZE:])
                expected, lost = expected + should, lost + should - did
    assert lost <= expected * 0.02


def test_reports_are_rare_and_about_enough() -> None:
    window, peer = ReplayWindow(), Loss()
    reports = []
    for counter in range(0, 4000, 2):
        window.commit(counter)
        reports.append(peer.gap(window, counter / 4000))
    told = [report for report in reports if report]
    assert 1 <= len(told) <= 1 / REPORT_INTERVAL + 1
    for report in told:
        expected, received = struct.unpack(">II", report[ITEM_SIZE:])
        assert expected >= ENOUGH
        assert received <= expected


@given(st.binary(max_size=20), st.floats(0, 1e6))
def test_any_report(payload: bytes, now: float) -> None:
    ours = Loss()
    try:
        ours.reported(payload, 10, 100, now)
    except struct.error:
        assert len(payload) != 8
    assert 0 <= ours.share <= 1
    assert ours.longest(now + 1) >= SHORTEST


@given(st.lists(st.sampled_from([60, 66, 900, 1514, 9014, 65226]), min_size=1, max_size=12),
       st.integers(3000, 70_000))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_records_are_cut_and_nothing_is_lost(sizes: list[int], limit: int) -> None:
    frames = [frame(size) for size in sizes]  # none that the kernel is to segment
    found = []
    for plain, count in cut(b"".join(item(Item.FRAME, each) for each in frames), limit):
        at, here = 0, 0
        while at < len(plain):
            size = ITEM.unpack_from(plain, at)[0] & LENGTH_MASK
            found.append(plain[at + ITEM_SIZE : at + ITEM_SIZE + size])
            at += ITEM_SIZE + size
            here += 1
        assert here == count
        assert len(plain) + TAG_SIZE <= limit or count == 1
    assert found == frames
