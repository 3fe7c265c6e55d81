"""A peer's socket: whole frames in one segment, and what ends it."""

import asyncio
import socket

from controller.routes.connection import Connection, prepare
from controller.routes.wire import Kind, frame
from tests.controller.routes.waiting import until


class End:
    """One end of a connection, with what it has to send and what it got."""

    def __init__(self, sock: socket.socket) -> None:
        prepare(sock)
        self.frames: list[bytes] = []
        self.urgent: list[bytes] = []
        self.got = b""
        self.lost: list[str] = []
        self.connection = Connection(sock, self.take, self.lost.append, self.pull)

    def take(self, data: bytes) -> None:
        """Keep it."""
        self.got += data

    def pull(self, room: int) -> bytes:
        """Return whole frames."""
        source = self.frames if room else self.urgent
        taken = b""
        while source and (not taken or len(taken) + len(source[0]) <= room):
            taken += source.pop(0)
        return taken


def pair() -> tuple[socket.socket, socket.socket]:
    with socket.socket(socket.AF_INET6) as listening:
        listening.bind(("::1", 0))
        listening.listen(1)
        one = socket.create_connection(listening.getsockname()[:2])
        return one, listening.accept()[0]


async def test_each_segment_is_whole_frames() -> None:
    one, two = pair()
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1220)
    end = End(one)
    frames = [frame(Kind.UPDATE, bytes(n % 90)) for n in range(2000)]
    end.frames = list(frames)
    end.connection.flush()
    got, two_reads = b"", 0
    two.setblocking(False)
    while len(got) < len(b"".join(frames)):
        piece = await asyncio.get_running_loop().sock_recv(two, 65535)
        assert len(piece) < 65535
        got += piece
        two_reads += 1
        boundaries = {0}
        at = 0
        for each in frames:
            at += len(each)
            boundaries.add(at)
        assert len(got) in boundaries, "a frame was cut"
    assert got == b"".join(frames)
    assert two_reads > 5
    end.connection.close()
    two.close()


async def test_both_ends() -> None:
    one, two = (End(sock) for sock in pair())
    one.frames = [frame(Kind.KEEPALIVE)] * 3
    one.connection.flush()
    await until(lambda: two.got == frame(Kind.KEEPALIVE) * 3)
    one.connection.close()
    one.connection.close()
    await until(lambda: bool(two.lost))
    assert two.lost == ["closed_by_peer"]
    assert one.lost == []
    two.connection.close()


async def test_a_reset() -> None:
    one, two = pair()
    end = End(one)
    two.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    two.close()
    await until(lambda: bool(end.lost))
    assert end.lost == ["connection_reset"]
    end.connection.close()
