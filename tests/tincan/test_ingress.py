"""What arrives at a socket, sent by a peer or by anybody: taken, or counted, never raised."""

import select
import socket
import struct
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.bench.pump import End, frame, pair
from tincan.landing import FIRST_SLOT
from tincan.udp import UDP_SEGMENT, UdpSocket
from tincan.wire import HEADER, RECORD, VERSION, VNET_SIZE, Item, item

STRANGE = 77  # no receiver index of ours


@pytest.fixture
def ends() -> Iterator[tuple[End, End]]:
    one, two = pair(1500)
    yield one, two
    one.sock.close()
    two.sock.close()


@pytest.fixture
def stranger() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def waiting(sock: UdpSocket) -> bool:
    return bool(select.select([sock.fileno()], [], [], 0)[0])


def drain(end: End) -> None:
    while waiting(end.sock):
        end.ingress.wake(end.source, time.monotonic())


def crosses(one: End, two: End) -> bool:
    before = two.tap.frames
    one.tap.waiting = [frame(65226)]
    one.egress.wake(time.monotonic())
    drain(two)
    return two.tap.frames == before + 1


@pytest.mark.parametrize("known", [False, True], ids=["strange index", "known index"])
def test_a_record_without_end_fills_nothing(
    ends: tuple[End, End], stranger: socket.socket, known: bool
) -> None:
    """Fragments in order, all of the expected size, for longer than any record is."""
    one, two = ends
    receiver = next(iter(two.ingress.keys)) if known else STRANGE
    with stranger:
        for index in range(200):
            datagram = HEADER.pack(RECORD, index, 255, VERSION, receiver, 5) + bytes(FIRST_SLOT)
            stranger.sendto(datagram, two.sock.address)
            two.ingress.wake(two.source, time.monotonic())
    assert two.source.held is None
    assert crosses(one, two)


def test_datagrams_that_come_one_by_one_are_not_copied(ends: tuple[End, End]) -> None:
    """As they do where no device and no kernel makes batches of them."""
    one, two = ends
    one.sock.segment_offload = False
    assert crosses(one, two)  # in several wake-ups, perhaps: the budget counts datagrams
    assert crosses(one, two)
    assert two.counters["batches_flattened"] == 0


@pytest.mark.parametrize("tag", [b"", b"\x81\0\0\0", b"\x81\0\xe0\0", b"\x88\xa8\0\7"])
def test_tagged_frames_are_delivered(ends: tuple[End, End], tag: bytes) -> None:
    """Also with a tag that says no more than a priority (VID 0)."""
    one, two = ends
    plain = frame(100)
    tagged = plain[: VNET_SIZE + 12] + tag + plain[VNET_SIZE + 12 :]
    for _ in range(2):
        one.tap.waiting = [tagged]
        one.egress.wake(time.monotonic())
        two.ingress.wake(two.source, time.monotonic())
    assert two.tap.frames == 2


def test_an_unfinished_record_is_given_up_for_the_next(
    ends: tuple[End, End], stranger: socket.socket
) -> None:
    one, two = ends
    receiver = next(iter(two.ingress.keys))
    with stranger:
        for index in range(3):
            datagram = HEADER.pack(RECORD, index, 9, VERSION, receiver, 5) + bytes(FIRST_SLOT)
            stranger.sendto(datagram, two.sock.address)
        drain(two)
        assert two.source.have == 3
    assert crosses(one, two)
    assert crosses(one, two)
    assert two.source.held is None


@st.composite
def datagrams(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from([0, 1, 0x40, 0x80, 0x80, 0x80, 0x81, 0x82, 0x90, 255]))
    index, count = draw(st.integers(0, 3)), draw(st.integers(0, 5))
    receiver = draw(st.sampled_from([1, 1, STRANGE]))
    head = HEADER.pack(kind, index, count, draw(st.sampled_from([1, 1, 2])), receiver, 9)
    size = draw(st.sampled_from([0, 1, 15, 16, 17, 40, FIRST_SLOT - 1, FIRST_SLOT, 2000, 9000]))
    return (head + bytes(size))[draw(st.sampled_from([0, 0, 0, 1, 5])) :]


@given(st.lists(datagrams(), max_size=12), st.sampled_from([None, 0x4001]))
@settings(max_examples=60, deadline=None)
def test_whatever_arrives_is_counted(arriving: list[bytes], channel: int | None) -> None:
    one, two = pair(1500)
    if channel is not None:
        two.sock.on_channel = lambda *_: None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for datagram in arriving:
            if channel is not None and datagram:
                datagram = struct.pack(">HH", channel, len(datagram)) + datagram
            stranger.sendto(datagram, two.sock.address)
        drain(two)
    assert two.tap.frames == 0
    if channel is None:
        assert crosses(one, two)
    one.sock.close()
    two.sock.close()


@pytest.mark.parametrize("sizes", [[66] * 12, [106] * 30, [300, 300, 66], [1300] * 20])
def test_records_that_the_kernel_batched_come_out_one_by_one(
    ends: tuple[End, End], sizes: list[int]
) -> None:
    """Acknowledgements of one size, each a record of its own, merged on the way (UDP_GRO)."""
    one, two = ends
    sealed = []
    for size in sizes:
        record = one.link.record
        record.append(item(Item.FRAME, frame(size)))
        key = one.session.sealing
        assert key is not None
        record.seal(key, 1456, None)
        record.clear()
        sealed += list(record.datagrams())
    segment = len(sealed[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        ancillary = [(socket.SOL_UDP, UDP_SEGMENT, struct.pack("=H", segment))]
        sender.sendmsg(sealed, ancillary, 0, two.sock.address)
        two.ingress.wake(two.source, time.monotonic())
    assert two.tap.frames == len(sizes)
    assert two.counters["records_dropped.forged"] == 0
    assert crosses(one, two)
