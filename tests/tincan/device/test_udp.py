"""Our own sockets on the loopback: gather, segment, scatter, and what the kernel says."""

import errno
import resource
import select

import pytest

from tincan.device.udp import UdpSocket
from tincan.errors import SystemRefusal
from tincan.record.slots import MAX_SEGMENTS, Slots

LOOPBACKS = ["127.0.0.1", "::1"]


def slots(count: int, stride: int, size: int) -> Slots:
    """Headers of one byte value each, bodies of another."""
    headers, bodies = bytearray(count * stride), bytearray(count * size)
    for number in range(count):
        headers[number * stride : (number + 1) * stride] = bytes([number & 127]) * stride
        bodies[number * size : (number + 1) * size] = bytes([128 + (number & 127)]) * size
    return Slots(headers, stride, memoryview(bodies), size)


def landing(size: int = 2000) -> Slots:
    return Slots(bytearray(16 * 1000), 16, memoryview(bytearray(1000 * size)), size)


def receive(sock: UdpSocket, into: Slots) -> tuple[int, int, tuple[str, int]] | None:
    """Receive one batch from slot 0 on."""
    return sock.receive(into.iovs[0])


def wait(sock: UdpSocket) -> None:
    assert select.select([sock.fileno()], [], [], 2.0)[0]


@pytest.mark.parametrize("host", LOOPBACKS)
@pytest.mark.parametrize("gro", [True, False])
def test_a_run_of_datagrams_arrives_in_slots(host: str, gro: bool) -> None:
    sender, receiver = UdpSocket(host), UdpSocket(host, gro=gro)
    gather = slots(10, 16, 584)
    sender.send(gather.iov(0, 10), 600, receiver.address)
    found, have = landing(584), 0
    while have < 10:
        wait(receiver)
        answer = receiver.receive(found.iovs[have])
        assert answer is not None
        size, segment, address = answer
        assert segment == 600
        assert address == sender.address
        have += size // 600
    assert [found.datagram(n, 584) for n in range(10)] == [
        gather.datagram(n, 584) for n in range(10)
    ]
    assert receiver.receive(found.iovs[0]) is None
    sender.close()
    receiver.close()
    assert sender.closed


def test_a_short_slot_as_one_datagram() -> None:
    sender, receiver = UdpSocket("127.0.0.1"), UdpSocket("127.0.0.1")
    gather = slots(3, 10, 20)
    gather.end_at(1, 5)
    sender.send(gather.iov(1, 1), 0, receiver.address)
    wait(receiver)
    found = landing()
    assert receiver.receive(found.iovs[0]) == (15, 15, sender.address)
    assert found.datagram(0, 0)[:10] == gather.datagram(1, 5)[:10]
    sender.close()
    receiver.close()


def test_single_datagrams_and_runs_in_turn() -> None:
    """What one call says of the size, the next does not inherit."""
    sender, receiver = UdpSocket("127.0.0.1"), UdpSocket("127.0.0.1", gro=False)
    gather = slots(4, 16, 34)
    for _ in range(3):
        sender.send(gather.iov(0, 1), 0, receiver.address)
        sender.send(gather.iov(1, 3), 50, receiver.address)
    for _ in range(12):
        wait(receiver)
        assert receive(receiver, landing()) == (50, 50, sender.address)
    sender.close()
    receiver.close()


def test_what_does_not_fit_is_told() -> None:
    sender, receiver = UdpSocket("127.0.0.1"), UdpSocket("127.0.0.1")
    sender.sendto(bytes(500), receiver.address)
    wait(receiver)
    small = Slots(bytearray(16), 16, memoryview(bytearray(84)), 84)
    assert receiver.receive(small.iovs[0]) == (100, 0, sender.address)
    sender.sendto(b"", receiver.address)
    wait(receiver)
    assert receiver.receive(small.iovs[0]) == (0, 0, sender.address)
    sender.close()
    receiver.close()


def test_the_same_sender_is_the_same_object() -> None:
    sender, other, receiver = (UdpSocket("127.0.0.1") for _ in range(3))
    found = landing()
    addresses = []
    for each in (sender, sender, other, sender):
        each.sendto(b"x", receiver.address)
        wait(receiver)
        answer = receiver.receive(found.iovs[0])
        assert answer is not None
        addresses.append(answer[2])
        assert answer[2] == each.address
    assert addresses[0] is addresses[1]
    for each in (sender, other, receiver):
        each.close()


def test_refusals_are_oserrors() -> None:
    sender = UdpSocket("127.0.0.1")
    gather = slots(MAX_SEGMENTS * 4, 16, 84)
    with pytest.raises(OSError, match=r"Invalid|too long") as refused:
        sender.send(gather.iov(0, MAX_SEGMENTS * 4), 100, ("127.0.0.1", 9))
    assert refused.value.errno in (errno.EINVAL, errno.EMSGSIZE)
    big = slots(1, 16, 70_000)
    with pytest.raises(OSError, match="too long"):
        sender.send(big.iov(0, 1), 0, ("127.0.0.1", 9))
    with pytest.raises(SystemRefusal, match="port"):
        UdpSocket("127.0.0.1", sender.address[1])
    sender.close()


def test_it_aims_anew_when_the_address_changes() -> None:
    sender = UdpSocket("127.0.0.1")
    receivers = [UdpSocket("127.0.0.1") for _ in range(3)]
    gather = slots(1, 5, 5)
    for receiver in [*receivers, *receivers]:
        sender.send(gather.iov(0, 1), 0, receiver.address)
    for receiver in receivers:
        wait(receiver)
        assert receive(receiver, landing()) is not None
        assert receive(receiver, landing()) is not None
        receiver.close()
    sender.close()


def test_no_descriptor_left_is_a_refusal() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(SystemRefusal):
            UdpSocket("127.0.0.1")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
