"""What arrives at a socket, sent by a peer or by anybody: taken, or counted, never raised."""

import contextlib
import select
import socket
import struct
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.bench.ends import POOL, End, frame, pair
from tincan.device.udp import UDP_SEGMENT, UdpSocket
from tincan.path.channel import Channel
from tincan.path.direct import Direct
from tincan.pump.rehearsal import Rehearsal
from tincan.record.landing import FIRST_SLOT
from tincan.record.layout import (
    CHANNEL_SIZE,
    HEADER,
    HEADER_SIZE,
    RECORD,
    VERSION,
    VNET_SIZE,
    Item,
    item,
)

STRANGE = 77  # no receiver index of ours


@pytest.fixture
def stranger() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def waiting(sock: UdpSocket) -> bool:
    return bool(select.select([sock.fileno()], [], [], 0)[0])


def drain(end: End) -> None:
    while waiting(end.sock):
        end.ingress.wake(end.port, time.monotonic())


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
            two.ingress.wake(two.port, time.monotonic())
    assert two.port.held is None
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
        two.ingress.wake(two.port, time.monotonic())
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
        assert two.port.filled_to == 3
    assert crosses(one, two)
    assert crosses(one, two)
    assert two.port.held is None


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
    one.close()
    two.close()


@pytest.mark.parametrize("sizes", [[66] * 12, [106] * 30, [300, 300, 66], [1300] * 20])
def test_records_that_the_kernel_batched_come_out_one_by_one(
    ends: tuple[End, End], sizes: list[int]
) -> None:
    """Acknowledgements of one size, each a record of its own, merged on the way (UDP_GRO)."""
    one, two = ends
    datagrams = [each for size in sizes for each in sealed(one, [size])]
    segment = len(datagrams[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        ancillary = [(socket.SOL_UDP, UDP_SEGMENT, struct.pack("=H", segment))]
        sender.sendmsg(datagrams, ancillary, 0, two.sock.address)
        two.ingress.wake(two.port, time.monotonic())
    assert two.tap.frames == len(sizes)
    assert two.counters["records_dropped.forged"] == 0
    assert crosses(one, two)


def sealed(one: End, sizes: list[int], *, protected: bool = False) -> list[bytes]:
    """The datagrams of one record with such frames, and its parity if it is to have one."""
    record, key = one.link.record, one.session.sealing
    assert key is not None
    for size in sizes:
        record.append(item(Item.FRAME, frame(size)))
    (record.seal_protected if protected else record.seal)(key, one.link.outgoing.body, None)
    datagrams = list(record.datagrams())
    record.clear()
    return datagrams


def batches(one: End, sizes: list[int], *, step: int = 44) -> list[list[bytes]]:
    """The datagrams of one record with such frames, as they come in calls of ``step``."""
    datagrams = sealed(one, sizes)
    return [datagrams[at : at + step] for at in range(0, len(datagrams), step)]


def deliver(sender: socket.socket, two: End, run: list[bytes]) -> None:
    ancillary = [(socket.SOL_UDP, UDP_SEGMENT, struct.pack("=H", len(run[0])))]
    sender.sendmsg(run, ancillary if len(run) > 1 else [], 0, two.sock.address)


@pytest.mark.parametrize("receiver", [0, STRANGE])
def test_a_strangers_fragment_costs_no_record(
    ends: tuple[End, End], stranger: socket.socket, receiver: int
) -> None:
    """It asks for slots of another size while a record begins to wait in those there are."""
    one, two = ends
    first, second = batches(one, [65226]), batches(one, [65226, 65226])
    odd = HEADER.pack(RECORD, 0, 2, VERSION, receiver, 7) + bytes(20)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender, stranger:
        for run in first:
            deliver(sender, two, run)
        stranger.sendto(odd, two.sock.address)
        deliver(sender, two, second[0])
        two.ingress.wake(two.port, time.monotonic())
        drain(two)
        stranger.sendto(odd, two.sock.address)
        for run in second[1:]:
            deliver(sender, two, run)
        drain(two)
    assert two.tap.frames == 3
    assert not two.counters["records_dropped.forged"]


def test_strangers_do_not_fill_reassembly(ends: tuple[End, End], stranger: socket.socket) -> None:
    """Not with the index of the rehearsals either."""
    one, two = ends
    Rehearsal(two.ingress, POOL).run_once(time.monotonic())
    runs = batches(one, [65226, 65226])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender, stranger:
        deliver(sender, two, runs[0])
        drain(two)
        for counter in range(200):
            stranger.sendto(HEADER.pack(RECORD, 0, 2, VERSION, 0, counter) + bytes(20),
                            two.sock.address)  # fmt: skip
            drain(two)
        for run in runs[1:]:
            deliver(sender, two, run)
        drain(two)
    assert two.tap.frames == 2
    assert two.counters["datagrams_dropped.unknown_receiver"] == 200


def test_a_rehearsal_delivers_and_counts_nothing(ends: tuple[End, End]) -> None:
    one, two = ends
    rehearsal = Rehearsal(two.ingress, POOL)
    before = dict(two.counters)
    for step in range(20_000):  # for longer than a replay window
        rehearsal.run_once(float(step))
    assert two.tap.frames == 0
    assert dict(two.counters) == before
    assert crosses(one, two)


@pytest.mark.parametrize("size", [60, 61, 62, 63, 1400])
def test_padded_channel_data_opens(ends: tuple[End, End], size: int) -> None:
    """A TURN server may pad it over UDP, too (RFC 8656 section 12.5)."""
    one, two = ends
    two.sock.on_channel = lambda *_: None
    ((datagram,),) = batches(one, [size])
    padded = struct.pack(">HH", 0x4001, len(datagram)) + datagram + bytes(-len(datagram) % 4)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(padded, two.sock.address)
        drain(two)
    assert two.tap.frames == 1


def test_records_of_one_run_end_anywhere(ends: tuple[End, End]) -> None:
    """Batches of 44 datagrams over records of 45 and 135."""
    one, two = ends
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(20):
            for sizes in ([65226], [65226] * 3, [1400], [40000]):
                for run in batches(one, sizes):
                    deliver(sender, two, run)
            drain(two)
    assert two.tap.frames == 20 * 6
    assert not two.counters["records_reassembled"]
    assert not two.counters["batches_flattened"]


@pytest.mark.parametrize("channel", [None, 0x4001], ids=["direct", "relayed"])
def test_no_frame_is_lost_with_one_datagram_of_each_record(
    ends: tuple[End, End], channel: int | None
) -> None:
    one, two = ends
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        wire.bind(("127.0.0.1", 0))
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        wire.setblocking(False)
        lead = 0
        if channel is None:
            one.go_by(Direct(one.sock, wire.getsockname(), one.counters))
        else:
            one.go_by(Channel(one.sock, wire.getsockname(), channel, one.counters))
            two.sock.on_channel, lead = (lambda *_: None), CHANNEL_SIZE
        one.link.outgoing.loss.share = 0.01
        one.link.outgoing.loss._at = time.monotonic()
        arrived: Counter[bytes] = Counter()
        for number in range(30):
            one.tap.waiting = [frame(9000), frame(3000), frame(200)]
            one.egress.wake(time.monotonic())
            with contextlib.suppress(BlockingIOError):
                while True:
                    datagram = wire.recv(2048)
                    record = datagram[lead + 8 : lead + HEADER_SIZE]
                    arrived[record] += 1
                    if arrived[record] != 1 + number % 8:
                        wire.sendto(datagram, two.sock.address)
            drain(two)
    assert two.tap.frames == 90
    assert two.counters["records_restored"] >= 25
    assert not [name for name in two.counters if "drop" in name]
    lost = next(iter(two.session.opening.values())).window.restored
    assert lost == two.counters["records_restored"]


def test_what_follows_a_record_without_end_does_not_wait_for_it(ends: tuple[End, End]) -> None:
    """Nor does it come from whoever sends next: all datagrams are full ones, so nothing ends it."""
    one, two = ends
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger,
    ):
        sender.bind(("127.0.0.1", 0))
        here = sender.getsockname()
        two.go_by(Direct(two.sock, here, two.counters))
        lost = sealed(one, [65226, 65226], protected=True)
        for run in (lost[:40], lost[40:50]):
            deliver(sender, two, run)
        drain(two)
        assert two.port.filled_to == 50
        for number in range(5):
            deliver(sender, two, sealed(one, [1514], protected=True))
            drain(two)
            assert two.tap.frames == number + 1
        half = sealed(one, [9000], protected=True)
        deliver(sender, two, half[:4])
        drain(two)
        stranger.sendto(HEADER.pack(RECORD, 0, 1, VERSION, STRANGE, 0) + b"x", two.sock.address)
        drain(two)
        deliver(sender, two, half[4:])
        drain(two)
        assert two.tap.frames == 6
        assert two.link.path is not None
        assert two.link.path.carrier.address == here
        assert not two.counters["paths_roamed"]


def test_what_its_parity_overtakes_is_not_lost(ends: tuple[End, End]) -> None:
    one, two = ends
    window = next(iter(two.session.opening.values())).window
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for late in (0, 3, 6):
            datagrams = sealed(one, [9000], protected=True)
            for each in [*datagrams[:late], *datagrams[late + 1 :], datagrams[late]]:
                sender.sendto(each, two.sock.address)
            drain(two)
    assert two.tap.frames == 3
    assert two.counters["datagrams_late"] == two.counters["records_restored"] == 3
    assert not window.restored
    assert not two.counters["datagrams_dropped.replayed"]
