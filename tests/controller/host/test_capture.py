"""The capture on a socket in memory: what is admitted, counted and left to the kernel."""

import asyncio
import errno
import socket
from collections import Counter
from collections.abc import Iterator

import pytest

from controller.errors import MalformedFrame, SystemRefusal
from controller.host import capture as module
from controller.host.capture import BACKLOG, MAX_SAMPLED, READ_BUDGET, Capture
from controller.packets import decode
from controller.packets.addresses import BROADCAST_MAC, ZERO_MAC
from controller.packets.encode import build
from controller.packets.filters import resolution
from controller.packets.packets import ARP_REQUEST, Arp, Captured

A = "02:00:00:00:00:0a"
QUESTION = Arp(ARP_REQUEST, A, "10.0.3.5", ZERO_MAC, "10.0.3.7", 0, A, BROADCAST_MAC)
FRAME = build(QUESTION)


class PacketSocket(socket.socket):
    """One end of a pair of sockets, whose frames all leave the bridge."""

    def recvmsg(
        self, size: int, *_: int
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, object]:
        return self.recv(size), [], 0, ("ipop", 0, socket.PACKET_OUTGOING, 0, b"")


class Tap:
    """The other ends of the capture's sockets, and the filters that it has installed."""

    def __init__(self) -> None:
        self.ends: list[socket.socket] = []
        self.programs: list[bytes] = []
        self.lost = 0
        self.largest_filter = 1 << 20

    def open(self, *_: object, **__: object) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.setblocking(False)
        self.ends.append(theirs)
        return PacketSocket(fileno=ours.detach())

    def attach(self, _: socket.socket, program: bytes) -> None:
        if len(program) > self.largest_filter:
            raise OSError(errno.ENOMEM, "no room")
        self.programs.append(program)

    def overrun(self, _: socket.socket) -> int:
        lost, self.lost = self.lost, 0
        return lost


@pytest.fixture
def tap(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tap]:
    tap = Tap()
    monkeypatch.setattr(module, "open_packet_socket", tap.open)
    monkeypatch.setattr(module, "attach_filter", tap.attach)
    monkeypatch.setattr(module, "overrun", tap.overrun)
    yield tap
    for end in tap.ends:
        end.close()


def capture() -> tuple[Capture, list[Captured], Counter[str]]:
    heard: list[Captured] = []
    counters: Counter[str] = Counter()
    return Capture("ipop", heard.append, lambda reason: None, counters), heard, counters


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_packets_are_heard_and_malformed_ones_counted(tap: Tap) -> None:
    made, heard, counters = capture()
    tap.ends[0].send(FRAME)
    tap.ends[0].send(FRAME[:30])
    await settle()
    assert heard == [QUESTION]
    with pytest.raises(MalformedFrame) as fault:
        decode.parse(FRAME[:30], None)
    assert counters == {f"frames_dropped.{fault.value.reason}": 1}
    made.close()
    made.close()


async def test_frames_that_the_kernel_dropped_are_counted(tap: Tap) -> None:
    made, _, counters = capture()
    for _ in range(8):
        tap.ends[0].send(FRAME)
    tap.lost = 7
    await settle()
    assert counters == {"frames_dropped.capture_overrun": 7}
    made.close()


async def test_gateways_have_a_socket_only_while_there_are_any(tap: Tap) -> None:
    made, _, _ = capture()
    made.watch_gateways(frozenset({A}))
    assert len(tap.ends) == 2
    made.watch_gateways(frozenset({A, "02:00:00:00:00:0b"}))
    assert len(tap.ends) == 2
    made.watch_gateways(frozenset())
    with pytest.raises(ConnectionError):
        tap.ends[1].send(FRAME)
    made.watch_gateways(frozenset({A}))
    assert len(tap.ends) == 3
    made.close()


async def test_a_refusal_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> socket.socket:
        raise PermissionError(errno.EPERM, "not permitted")

    monkeypatch.setattr(module, "open_packet_socket", refuse)
    with pytest.raises(SystemRefusal, match="run as root or with CAP_NET_RAW"):
        capture()


async def test_no_more_senders_are_sampled_than_the_filter_holds(tap: Tap) -> None:
    made, _, counters = capture()
    for number in range(2 * MAX_SAMPLED):
        made._sample(number.to_bytes(6, "big"))
    assert counters == {"capture_muted": MAX_SAMPLED + 1}
    made.close()


async def test_a_filter_that_is_too_long_names_fewer(tap: Tap) -> None:
    made, _, counters = capture()
    senders = [number.to_bytes(6, "big") for number in range(MAX_SAMPLED)]
    tap.largest_filter = len(resolution(senders[:5]))
    for sender in senders:
        made._sample(sender)
    assert tap.programs[-1] == resolution(senders[: MAX_SAMPLED // 4])
    assert "capture_filters_refused" not in counters
    tap.largest_filter = 0
    made._sample(None)
    assert counters["capture_filters_refused"] == 1
    made.close()


async def test_a_storm_is_drained_once_and_not_again_at_once(tap: Tap) -> None:
    made, _, _ = capture()

    def sample(sender: bytes | None) -> int:
        made._sample(sender)
        return made._drain_left

    assert sample(None) == BACKLOG
    while made._drain_left:
        made._count_read()
    assert 0 <= made._read_since_drain < READ_BUDGET
    assert sample(b"\x02" + bytes(5)) == 0
    while made._read_since_drain <= BACKLOG:
        made._count_read()
    assert sample(b"\x06" + bytes(5)) == BACKLOG
    made.close()
