"""Allocations, with a TURN client that only remembers; and what a TURN server may send."""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import pytest

from tincan.device.udp import Address
from tincan.ice import turn as module
from tincan.ice.stun import CHANNEL
from tincan.ice.turn import MAX_CHANNELS, MAX_SENDS, RelayTransport

PEER = ("192.0.2.1", 5000)


class Stream(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.backlog = 0
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return self.backlog

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True


class Client:
    """As aioice's, without a server."""

    def __init__(self) -> None:
        self.channel_to_peer: dict[int, Address] = {}
        self.peer_to_channel: dict[Address, int] = {}
        self.refresh_task: asyncio.Task[None] | None = None
        self.receiver: asyncio.DatagramProtocol | None = None
        self.server = ("198.51.100.1", 3478)
        self.counters: Counter[str] = Counter()
        self.stream = Stream()
        self.sent: list[tuple[bytes, Address]] = []
        self.bound: list[tuple[int, Address]] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.refuses = False

    @property
    def connection(self) -> asyncio.BaseTransport:
        return self.stream

    async def channel_bind(self, channel_number: int, addr: Address) -> None:
        self.bound.append((channel_number, addr))
        if self.refuses:
            raise ConnectionError("403")

    async def send_data(self, data: bytes, addr: Address) -> None:
        await self.answers.wait()
        if self.refuses:
            raise ConnectionError("403")
        self.sent.append((data, addr))

    async def delete(self) -> None:
        if self.refresh_task is not None:
            self.refresh_task.cancel()
        await self.answers.wait()


class Owner:
    """Owns tasks, as an agent does."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[None]] = []

    def spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.append(task)
        return task


async def test_relayed_messages_wait_for_their_channel_within_bounds() -> None:
    client, owner = Client(), Owner()
    relay = RelayTransport(client, None, owner.spawn)
    client.answers.clear()
    for number in range(MAX_SENDS + 5):
        relay.sendto(b"%d" % number, PEER)
    assert len(owner.tasks) == MAX_SENDS
    assert client.counters["stun_send_failed"] == 5
    client.answers.set()
    await asyncio.gather(*owner.tasks)
    assert len(client.sent) == MAX_SENDS
    relay.sendto(b"again", PEER)
    await owner.tasks[-1]
    assert client.sent[-1] == (b"again", PEER)


async def test_strangers_do_not_use_up_the_channels() -> None:
    client, owner = Client(), Owner()
    relay = RelayTransport(client, None, owner.spawn)
    client.peer_to_channel = {("192.0.2.1", port): 0x4000 + port for port in range(MAX_CHANNELS)}
    relay.sendto(b"x", ("192.0.2.1", 60000))
    assert client.counters["turn_channels_exhausted"] == 1
    relay.sendto(b"x", ("192.0.2.1", 5))
    await asyncio.gather(*owner.tasks)
    assert client.sent == [(b"x", ("192.0.2.1", 5))]


async def test_a_server_that_refuses_only_counts() -> None:
    client, owner = Client(), Owner()
    client.refuses = True
    relay = RelayTransport(client, None, owner.spawn)
    relay.sendto(b"x", PEER)
    await asyncio.gather(*owner.tasks)
    assert client.counters["turn_bind_failed"] == 1


async def test_datagrams_by_stream_are_framed_and_padded() -> None:
    client = Client()
    send = RelayTransport(client, None, Owner().spawn).send_on(0x4001)
    send(b"\x80abcd")
    send(b"\x80abc")
    assert client.stream.written == (
        CHANNEL.pack(0x4001, 5) + b"\x80abcd\0\0\0" + CHANNEL.pack(0x4001, 4) + b"\x80abc"
    )


async def test_a_stream_that_does_not_drain_drops() -> None:
    client = Client()
    send = RelayTransport(client, None, Owner().spawn).send_on(0x4001)
    client.stream.backlog = module.STREAM_BACKLOG + 1
    send(b"\x80")
    client.stream.backlog, client.stream.closed = 0, True
    send(b"\x80")
    assert client.stream.written == b""
    assert client.counters["relay_backlog"] == 2


async def test_a_channel_is_refreshed_for_as_long_as_it_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "CHANNEL_REFRESH", 0.01)
    client = Client()
    keeping = asyncio.create_task(RelayTransport(client, None, Owner().spawn).keep(0x4001, PEER))
    await asyncio.sleep(0.05)
    client.refuses = True
    await asyncio.sleep(0.05)
    assert not keeping.done()
    keeping.cancel()
    assert len(client.bound) > 2
    assert set(client.bound) == {(0x4001, PEER)}
    assert client.counters["turn_refresh_failed"] > 1


async def test_a_dead_server_does_not_hold_the_end_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FREE_TIMEOUT", 0.01)
    client = Client()
    client.answers.clear()
    client.refresh_task = asyncio.create_task(asyncio.sleep(100))
    relay = RelayTransport(client, None, Owner().spawn)
    await relay.free()
    assert client.refresh_task.done()
    relay.close()
    assert relay.is_closing()


def test_a_channel_of_nobody_is_ignored() -> None:
    RelayTransport(Client(), None, Owner().spawn).channel_received(b"x", 0x4001)
