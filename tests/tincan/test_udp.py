"""Our own sockets on the loopback: gather, segment, scatter, and what the kernel says."""

import errno
import resource
import select

import pytest

from tincan.errors import SystemRefusal
from tincan.udp import MAX_SEGMENTS, UdpSocket
from tincan.vector import Vector

LOOPBACKS = ["127.0.0.1", "::1"]


def vector(*sizes: int) -> tuple[Vector, bytearray]:
    data = bytearray(i & 255 for i in range(sum(sizes)))
    parts, at = [], 0
    for size in sizes:
        parts.append(memoryview(data)[at : at + size])
        at += size
    return Vector(parts), data


def wait(sock: UdpSocket) -> None:
    assert select.select([sock.fileno()], [], [], 2.0)[0]


@pytest.mark.parametrize("host", LOOPBACKS)
@pytest.mark.parametrize("gro", [True, False])
def test_a_run_of_datagrams_arrives(host: str, gro: bool) -> None:
    sender, receiver = UdpSocket(host), UdpSocket(host, gro=gro)
    gather, data = vector(*[16, 84] * 10)
    sender.send(gather, 0, 20, 100, receiver.address)
    landing, landed = vector(*[2000])
    got = b""
    while len(got) < 1000:
        wait(receiver)
        waiting = receiver.waiting()
        answer = receiver.receive(landing, 1)
        assert answer is not None
        size, segment, address = answer
        assert size == waiting
        assert segment == 100
        assert address == sender.address
        got += bytes(landed[:size])
    assert got == bytes(data)
    assert receiver.waiting() == 0
    assert receiver.receive(landing, 1) is None
    sender.close()
    receiver.close()
    assert sender.closed


def test_a_part_of_a_vector_as_one_datagram() -> None:
    sender, receiver = UdpSocket("127.0.0.1"), UdpSocket("127.0.0.1")
    gather, data = vector(10, 20, 30)
    gather.resize(2, 5)
    sender.send(gather, 1, 2, 0, receiver.address)
    wait(receiver)
    landing, landed = vector(100)
    assert receiver.receive(landing, 1) == (25, 25, sender.address)
    assert landed[:25] == data[10:35]
    sender.close()
    receiver.close()


def test_what_does_not_fit_is_told() -> None:
    sender, receiver = UdpSocket("127.0.0.1"), UdpSocket("127.0.0.1")
    sender.sendto(bytes(500), receiver.address)
    wait(receiver)
    small, _ = vector(100)
    assert receiver.receive(small, 1) == (100, 0, sender.address)
    sender.sendto(b"", receiver.address)
    wait(receiver)
    assert receiver.waiting() == 0
    assert receiver.receive(small, 1) == (0, 0, sender.address)
    sender.close()
    receiver.close()


def test_refusals_are_oserrors() -> None:
    sender = UdpSocket("127.0.0.1")
    gather, _ = vector(*[100] * (MAX_SEGMENTS * 4))
    with pytest.raises(OSError, match=r"Invalid|too long") as refused:
        sender.send(gather, 0, len(gather), 100, ("127.0.0.1", 9))
    assert refused.value.errno in (errno.EINVAL, errno.EMSGSIZE)
    big, _ = vector(70_000)
    with pytest.raises(OSError, match="too long"):
        sender.send(big, 0, 1, 0, ("127.0.0.1", 9))
    with pytest.raises(SystemRefusal, match="port"):
        UdpSocket("127.0.0.1", sender.address[1])
    sender.close()


def test_it_aims_anew_when_the_address_changes() -> None:
    sender = UdpSocket("127.0.0.1")
    receivers = [UdpSocket("127.0.0.1") for _ in range(3)]
    gather, _ = vector(10)
    for receiver in [*receivers, *receivers]:
        sender.send(gather, 0, 1, 0, receiver.address)
    landing, _ = vector(100)
    for receiver in receivers:
        wait(receiver)
        assert receiver.receive(landing, 1) is not None
        assert receiver.receive(landing, 1) is not None
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
