"""What the TAP hands over goes to the right links, whole, once, in order, however it is mixed."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tincan.device.device import Offloads
from tincan.device.twin import Twin
from tincan.pump.egress import TAP_BUDGET, Egress
from tincan.record.batch import Batch
from tincan.record.layout import (
    ITEM,
    ITEM_SIZE,
    LENGTH_MASK,
    MAX_FRAME,
    MAX_PLAIN,
    RECORD_FULL,
    TAG_SIZE,
    VNET_SIZE,
    Item,
)
from tincan.record.pages import Pool
from tincan.switching.bucket import TokenBucket
from tincan.switching.policy import Policy

POOL = Pool()
OURS = bytes.fromhex("0200000000aa")
LARGEST = MAX_FRAME - VNET_SIZE  # 64 KiB of IP behind Ethernet and a VLAN tag
FLOOD = -1
UNKNOWN = -2


class FakeLink:
    """Takes records apart instead of sending them; the buffer is no good afterwards."""

    def __init__(self, number: int) -> None:
        self.mac = bytes([2, 0, 0, 0, 1, number])
        self.record = Batch(POOL)
        self.up = True
        self.attended = True
        self.blocked = False
        self.frames: list[bytes] = []
        self.held: list[bytes] = []
        self.records = 0

    def flush(self, now: float) -> None:
        record = self.record
        assert 0 < record.fill <= MAX_PLAIN
        at = count = 0
        while at < record.fill:
            word = ITEM.unpack_from(record.view, at)[0]
            assert word >> 28 == Item.FRAME
            at += ITEM_SIZE
            self.frames.append(bytes(record.view[at : at + (word & LENGTH_MASK)]))
            at += word & LENGTH_MASK
            count += 1
        assert (at, count) == (record.fill, record.frames)
        record.view[: record.fill + TAG_SIZE] = b"\xee" * (record.fill + TAG_SIZE)
        record.clear()
        self.records += 1

    def hold(self, item: bytes, now: float) -> None:
        self.held.append(item)


class Scene:
    def __init__(self, links: int, *, vnet_hdr: bool = True) -> None:
        self.tap = Twin(Offloads(vnet_hdr, vnet_hdr, vnet_hdr))
        self.counters: Counter[str] = Counter()
        self.policy: Policy[FakeLink] = Policy(self.counters, lambda *_: None)
        self.policy._out = {  # as many floods as a test likes
            reason: TokenBucket(1e9, 1e9)
            for reason in ("broadcast", "multicast", "unknown_unicast")
        }
        self.links = [FakeLink(number) for number in range(links)]
        for link in self.links:
            self.policy.links.append(link)
            self.policy.table.pin(link.mac, 0, link, 0.0)
        self.egress = Egress(self.tap, self.policy, self.counters, POOL)
        self._serial = 0

    def frame(self, to: int, size: int, vlan: int | None = None) -> bytes:
        """A virtio header and a frame of ``size`` bytes, unlike any other."""
        self._serial += 1
        if to == FLOOD:
            destination = b"\xff" * 6
        elif to == UNKNOWN:
            destination = bytes.fromhex("0200000000bb")
        else:
            destination = self.links[to].mac
        tag = b"" if vlan is None else b"\x81\0" + vlan.to_bytes(2, "big")
        head = destination + OURS + tag + b"\x08\0\x45"
        serial = self._serial.to_bytes(4, "big")
        body = (serial * (size // 4 + 1))[: size - len(head)]
        vnet = bytes(VNET_SIZE)
        if self.tap.offloads.vnet_hdr:
            vnet = b"\1" + serial * 2 + b"\0"
        return vnet + head + body

    def wake(self) -> None:
        """Until the TAP has nothing more."""
        while self.tap.waiting:
            before = len(self.tap.waiting)
            self.egress.wake(1.0)
            assert 0 < before - len(self.tap.waiting) <= TAP_BUDGET
            assert not any(link.record.fill for link in self.links), "waits for company"


SIZES = st.one_of(
    st.integers(60, 1514),
    st.sampled_from([60, 1514, 9014, 30000, 49152, 65226, 65549, LARGEST]),
)

TAGS = st.sampled_from([None, None, 0, 7])  # 0: a priority, no VLAN


@given(
    st.integers(1, 4).flatmap(
        lambda links: st.tuples(
            st.just(links),
            st.lists(
                st.lists(st.tuples(st.integers(UNKNOWN, links - 1), SIZES, TAGS), max_size=25),
                max_size=4,
            ),
            st.sets(st.integers(0, links - 1)),
        )
    ),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_every_frame_to_its_links_once_and_in_order(
    drawn: tuple[int, list[list[tuple[int, int, int | None]]], set[int]], vnet_hdr: bool
) -> None:
    count, wakes, down = drawn
    scene = Scene(count, vnet_hdr=vnet_hdr)
    for number in down:
        scene.links[number].up = False
    expected: list[list[bytes]] = [[] for _ in range(count)]
    for wake in wakes:
        for to, size, vlan in wake:
            floods = to < 0 or vlan == 7  # a MAC is known in its VLAN only
            frame = scene.frame(to, size, vlan)
            scene.tap.waiting.append(frame)
            for number in range(count):
                if number not in down if floods else number == to:
                    expected[number].append(frame)
        scene.wake()
    for number, link in enumerate(scene.links):
        assert (link.held if number in down else link.frames) == expected[number]
        assert not (link.frames if number in down else link.held)


@pytest.mark.parametrize("short", range(-20, 40, 4))
def test_the_last_frame_before_a_record_is_full_may_be_the_largest(short: int) -> None:
    scene = Scene(2)
    sizes = [LARGEST, LARGEST, RECORD_FULL - short - 2 * LARGEST - 3 * (ITEM_SIZE + VNET_SIZE)]
    frames = [scene.frame(0, size) for size in [*sizes, LARGEST, LARGEST]]
    frames.append(scene.frame(FLOOD, LARGEST))
    scene.tap.waiting = list(frames)
    scene.wake()
    assert scene.links[0].frames == frames
    assert scene.links[0].records == 2
    assert scene.links[1].frames == frames[-1:]


def test_small_frames_of_one_wake_share_a_record() -> None:
    scene = Scene(2)
    scene.tap.waiting = [scene.frame(number % 2, 100) for number in range(40)]
    scene.wake()
    assert [link.records for link in scene.links] == [1, 1]


def test_a_budget_is_kept() -> None:
    scene = Scene(1)
    scene.tap.waiting = [scene.frame(0, 60) for _ in range(TAP_BUDGET + 1)]
    scene.egress.wake(0.0)
    assert len(scene.tap.waiting) == 1
    assert len(scene.links[0].frames) == TAP_BUDGET


def test_a_link_that_went_down_between_two_wakes_holds_what_comes() -> None:
    scene = Scene(2)
    scene.tap.waiting = [scene.frame(0, 100)]
    scene.wake()
    scene.links[0].up = False
    scene.policy.changed()
    frames = [scene.frame(0, 100), scene.frame(1, 100), scene.frame(0, 200)]
    scene.tap.waiting = list(frames)
    scene.wake()
    assert scene.links[0].held == [frames[0], frames[2]]
    assert scene.links[1].frames == [frames[1]]


def test_a_tap_that_fails_is_counted() -> None:
    scene = Scene(1)
    scene.tap.broken = True
    assert not scene.egress.wake(0.0)
    assert scene.counters["tap_read_errors"] == 1
