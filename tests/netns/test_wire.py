"""The bench's wire: it delays, loses, limits and keeps apart what it is told to, and nothing else.

left host == wan == [ wire ] == wan == right host
"""

import errno
import math
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from lab.bench.topology import ADDRESSES, Pair
from lab.bench.wire import SO_RCVBUFFORCE, TICK, Character, Line

PORT = 5000
NUMBER = struct.Struct("<I")
HEADERS = 14 + 20 + 8  # Ethernet, IPv4, UDP


# The arithmetic


def test_a_perfect_line_changes_nothing() -> None:
    line = Line(Character())
    assert line.admit([60, 1514, 60], 5.0) == [5.0, 5.0, 5.0]


def test_frames_wait_for_those_before_them() -> None:
    line = Line(Character(rate=8000, delay=10.0))  # a byte each millisecond
    assert line.admit([100, 200], 1.0) == pytest.approx([11.1, 11.3])
    assert line.admit([100], 1.05) == pytest.approx([11.4])
    assert line.admit([100], 9.0) == pytest.approx([19.1])  # the line was free again


def test_the_queue_is_limited() -> None:
    line = Line(Character(rate=8000, queue=250))
    due = line.admit([100] * 6, 0.0)
    assert [at is None for at in due] == [False, False, False, True, True, True]
    assert line.counts.overflowed == 3
    assert line.admit([100], 0.1) != [None]


def test_losses_are_as_frequent_as_told_and_repeat_with_the_seed() -> None:
    def lost(seed: int) -> list[int]:
        line = Line(Character(loss=0.01, seed=seed))
        due = line.admit([60] * 100_000, 0.0)
        return [number for number, at in enumerate(due) if at is None]

    assert lost(1) == lost(1)
    assert lost(1) != lost(2)
    # Six standard deviations: this seed is inside of them, as nearly all are.
    assert len(lost(1)) == pytest.approx(1000, abs=6 * math.sqrt(990))


def test_all_or_nothing() -> None:
    assert Line(Character(loss=1.0)).admit([60] * 3, 0.0) == [None] * 3
    assert Line(Character(loss=0.0)).admit([60] * 3, 0.0) == [0.0] * 3


# On the kernel


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Two hosts and the wire, and nothing on it but what a test sends."""
    with Pair(through_wire=True) as pair:
        for site in pair.sites:
            site.run("echo 1 > /proc/sys/net/ipv6/conf/wan/disable_ipv6")
        left, right = pair.sites
        for site, other in ((left, right), (right, left)):
            mac = other.run("cat /sys/class/net/wan/address").stdout.strip()
            site.run(f"ip neigh replace {other.address} lladdr {mac} dev wan nud permanent")
        yield pair


@pytest.fixture
def ends(pair: Pair) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A sender on the left host, connected to a receiver on the right one."""
    pair.change(Character())
    with pair.left.socket() as sender, pair.right.socket() as receiver:
        # What waits in it before a test reads: the default holds 256 datagrams.
        receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        receiver.bind((ADDRESSES["right"], PORT))
        sender.connect((ADDRESSES["right"], PORT))
        receiver.settimeout(5)
        yield sender, receiver


def arrivals(receiver: socket.socket) -> list[int]:
    """The numbers of the datagrams that have come, until none has for a while."""
    receiver.settimeout(0.5)
    numbers = []
    try:
        while True:
            numbers.append(NUMBER.unpack_from(receiver.recv(2048))[0])
    except TimeoutError:
        return numbers


def test_delay_in_both_directions(pair: Pair, ends: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = ends
    pair.change(Character(delay=0.05))
    times = []
    for number in range(5):
        start = time.monotonic()
        sender.send(NUMBER.pack(number))
        _, source = receiver.recvfrom(64)
        receiver.sendto(b"back", source)
        sender.settimeout(5)
        sender.recv(64)
        times.append(time.monotonic() - start)
    assert min(times) >= 0.1 - 2 * TICK
    assert min(times) < 0.15


def test_everything_arrives_once_in_order_and_unchanged(
    pair: Pair, ends: tuple[socket.socket, socket.socket]
) -> None:
    sender, receiver = ends
    pair.change(Character(delay=0.02))
    sent = [NUMBER.pack(number) + bytes([number % 256]) * (number % 1468) for number in range(1500)]
    for datagram in sent:
        sender.send(datagram)
    received = [receiver.recv(2048) for _ in sent]
    assert received == sent
    counts = pair.change(Character())[0]
    assert counts["carried"] == len(sent)
    assert counts["octets"] == sum(map(len, sent)) + len(sent) * HEADERS


def test_the_same_seed_loses_the_same_frames(
    pair: Pair, ends: tuple[socket.socket, socket.socket]
) -> None:
    sender, receiver = ends
    found = []
    for seed in (7, 7, 8):
        pair.change(Character(loss=0.05, seed=seed))
        for number in range(400):
            sender.send(NUMBER.pack(number))
        found.append(arrivals(receiver))
        counts = pair.change(Character())[0]
        assert counts["carried"] == len(found[-1])
        assert counts["lost"] == 400 - len(found[-1])
    assert found[0] == found[1]
    assert found[0] != found[2]
    assert 300 < len(found[0]) < 400


def test_rate_and_queue(pair: Pair, ends: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = ends
    # 2 ms for a frame of 1000 bytes, and room for ten of them to wait.
    pair.change(Character(rate=4e6, queue=10_000))
    start = time.monotonic()
    for number in range(100):
        sender.send(NUMBER.pack(number).ljust(1000 - HEADERS))
    sent_in = time.monotonic() - start
    first = receiver.recv(2048)
    assert NUMBER.unpack_from(first)[0] == 0
    numbers = [0]
    while len(numbers) < 11:
        numbers.append(NUMBER.unpack_from(receiver.recv(2048))[0])
    took = time.monotonic() - start
    assert took >= 11 * 0.002 - 2 * TICK
    numbers += arrivals(receiver)
    assert numbers == sorted(set(numbers))
    # What was sent while the queue drained found room again.
    assert 11 <= len(numbers) <= 12 + sent_in / 0.002
    counts = pair.change(Character())[0]
    assert counts["overflowed"] == 100 - len(numbers)


def test_datagrams_of_one_segmented_send_are_apart(
    pair: Pair, ends: tuple[socket.socket, socket.socket]
) -> None:
    """What is one buffer to the sender (UDP_SEGMENT) is many frames to the wire."""
    sender, receiver = ends
    pair.change(Character())
    segment = struct.pack("=H", 1000)
    try:
        sender.sendmsg([bytes(20_000)], [(socket.SOL_UDP, 103, segment)])
    except OSError as error:
        if error.errno in (errno.EIO, errno.EINVAL):
            pytest.skip("no UDP_SEGMENT")
        raise
    assert [len(receiver.recv(2048)) for _ in range(20)] == [1000] * 20
    assert pair.change(Character())[0]["carried"] == 20
