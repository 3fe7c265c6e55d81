"""Losses reported and believed: records as short as the path needs, and no shorter."""

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.bench.ends import frame
from tincan.crypto.window import ReplayWindow
from tincan.link.loss import (
    CLEAN,
    ENOUGH,
    HALVED_AFTER,
    REPORT,
    REPORT_INTERVAL,
    SHORTEST,
    Loss,
    cut,
)
from tincan.record.layout import ITEM, ITEM_SIZE, LENGTH_MASK, TAG_SIZE, Item, item


def over(path_loses: float, seconds: float, *, per_record: int = 45, rate: int = 2000) -> Loss:
    """A sender of ``rate`` records a second whose path loses this share of datagrams."""
    dice = random.Random(7)
    window, peer, ours = ReplayWindow(), Loss(), Loss()
    sent = datagrams = 0
    for counter in range(int(seconds * rate)):
        now = counter / rate
        longest = ours.longest(now)
        length = per_record if longest is None else min(per_record, longest)
        crossing = length + (longest is not None)
        sent, datagrams = sent + 1, datagrams + crossing
        lost = sum(dice.random() < path_loses for _ in range(crossing))
        if lost > crossing - length:
            continue
        window.commit(counter)
        if lost:
            window.restored += 1
            window.gap = True
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
    assert SHORTEST <= (ours.longest(5.0) or 0) <= 3 * SHORTEST or path_loses == 0.001


def test_a_clean_path_has_no_limit_and_silence_makes_it_clean() -> None:
    assert over(0.0, 2).longest(2.0) is None
    ours = over(0.01, 5)
    assert ours.longest(5.0) is not None
    later = 5.0 + 10 * HALVED_AFTER
    assert ours.longest(later) is None
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
                should, gone, _ = REPORT.unpack(report[ITEM_SIZE:])
                expected, lost = expected + should, lost + gone
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
        expected, lost, restored = REPORT.unpack(report[ITEM_SIZE:])
        assert expected >= ENOUGH
        assert lost <= expected
        assert not restored


@given(st.binary(max_size=20), st.floats(0, 1e6))
def test_any_report(payload: bytes, now: float) -> None:
    ours = Loss()
    try:
        ours.reported(payload, 10, 100, now)
    except struct.error:
        assert len(payload) != REPORT.size
    assert 0 <= ours.share <= 1
    assert (ours.longest(now + 1) or SHORTEST) >= SHORTEST


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


def test_what_an_overflowing_queue_drops_is_left_to_tcp() -> None:
    """Records lost while each has a parity lose datagrams in a row."""
    ours = Loss()
    ours.reported(REPORT.pack(100, 30, 0), 100, 1000, 1.0)
    before = ours.longest(1.0)
    for number in range(1, 6):
        ours.reported(REPORT.pack(100, 30, 0), 100 + 100 * number, 1000 + 1000 * number, 1.0)
    after = ours.longest(1.0)
    assert before is not None
    assert after is not None
    assert after > 10 * before
