"""The controller's end of the socket to tincan, when the other end is slow."""

import asyncio
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.dataplane.client import Tunnel
from controller.errors import TunnelLost
from tincan.control import messages as api
from tincan.control.codec import decode, encode


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(str(tmp_path / api.SOCKET_NAME))
        sock.listen()
        yield sock


def connected(
    tmp_path: Path, listener: socket.socket
) -> tuple[Tunnel, socket.socket, Counter[str]]:
    counters: Counter[str] = Counter()
    tunnel = Tunnel(tmp_path, "INFO", "1", lambda event: None, counters)
    assert tunnel._try_connect()
    tunnel._forget_process()  # it is ourselves
    other, _ = listener.accept()
    other.setblocking(False)
    return tunnel, other, counters


async def read_all(other: socket.socket, count: int) -> list[api.Request]:
    loop = asyncio.get_running_loop()
    found: list[api.Request] = []
    async with asyncio.timeout(5):
        while len(found) < count:
            found.append(decode(await loop.sock_recv(other, 1 << 17), api.Request))
    return found


async def test_what_is_said_once_arrives_although_the_socket_was_full(
    tmp_path: Path, listener: socket.socket
) -> None:
    tunnel, other, counters = connected(tmp_path, listener)
    while not counters["tunnel_messages_dropped.socket_full"]:
        tunnel.notify("inject", api.Frame(bytes(60)))
    tunnel.notify("set_blocked", api.Blocked(True))
    tunnel.notify("set_blocked", api.Blocked(False))
    question = asyncio.create_task(tunnel.call("query_counters", None, dict[str, int]))
    requests: list[api.Request] = []
    while not requests or requests[-1].method != "query_counters":
        requests += await read_all(other, 1)
    assert [r.method for r in requests[-3:]] == ["set_blocked", "set_blocked", "query_counters"]
    assert [b"true" in bytes(r.params) for r in requests[-3:-1]] == [True, False]
    other.send(encode({"id": requests[-1].id, "result": {"frames": 1}}))
    assert await question == {"frames": 1}
    tunnel.close()
    other.close()


async def test_a_tincan_that_takes_nothing_is_given_up(
    tmp_path: Path, listener: socket.socket
) -> None:
    tunnel, other, counters = connected(tmp_path, listener)
    while not counters["tunnel_messages_dropped.socket_full"]:
        tunnel.notify("inject", api.Frame(bytes(60)))
    with pytest.raises(TunnelLost):
        await tunnel.call("heartbeat", api.Heartbeat(True), type(None), within=0.1)
    for _ in range(5000):
        tunnel.notify("unpin", api.Pins([]))
    assert tunnel.lost.is_set()
    assert not tunnel._backlog
    tunnel.close()
    other.close()
