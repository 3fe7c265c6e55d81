"""The port of signalling: the same story on a rendezvous over websockets and on the twin."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from controller.signal.events import Absent, Event, Present, Received, SignalConnected
from controller.signal.port import Listener, Signalling, SignalState
from controller.signal.sealing import MAX_PAYLOAD_BYTES
from controller.signal.websocket.client import SignalClient
from tests.controller.signal.loopback import eventually, rendezvous
from tests.controller.signal.memory import KEYS
from tests.controller.signal.twin import Room, SignalTwin, of_the_port
from tincan.crypto.primitives import PrivateKey

Maker = Callable[[PrivateKey, str, Listener], Signalling]


@asynccontextmanager
async def through_websockets() -> AsyncIterator[Maker]:
    async with rendezvous() as server:
        url = f"ws://127.0.0.1:{server.port}"

        def make(private: PrivateKey, name: str, listener: Listener) -> Signalling:
            return of_the_port(SignalClient(url, KEYS, private, name, listener))

        yield make


@asynccontextmanager
async def in_memory() -> AsyncIterator[Maker]:
    room = Room()

    def make(private: PrivateKey, name: str, listener: Listener) -> Signalling:
        return of_the_port(SignalTwin(room, private.public.hex(), name, listener))

    yield make


@pytest.mark.parametrize("way", [through_websockets, in_memory])
async def test_two_nodes_meet_talk_and_part(
    way: Callable[[], AbstractAsyncContextManager[Maker]],
) -> None:
    a_key, b_key = PrivateKey.generate(), PrivateKey.generate()
    a_id, b_id = a_key.public.hex(), b_key.public.hex()
    heard_a: list[Event] = []
    heard_b: list[Event] = []
    async with way() as make, asyncio.TaskGroup() as tasks:
        a, b = make(a_key, "alpha", heard_a.append), make(b_key, "beta", heard_b.append)
        assert not a.state.connected
        assert not a.send(b_id, b"too early")
        running_a = tasks.create_task(a.run())
        running_b = tasks.create_task(b.run())
        await eventually(lambda: dict(a.peers) == {b_id: "beta"})
        await eventually(lambda: dict(b.peers) == {a_id: "alpha"})
        assert a.state == SignalState(a.state.url, True, None)
        assert heard_a[0] == SignalConnected()
        met = [event for event in heard_a if isinstance(event, Present)]
        assert [(event.id, event.name, len(event.session)) for event in met] == [(b_id, "beta", 16)]

        assert a.send(b_id, b"offer")
        assert b.send(a_id, bytes(MAX_PAYLOAD_BYTES))
        await eventually(lambda: Received(a_id, b"offer") in heard_b)
        await eventually(lambda: Received(b_id, bytes(MAX_PAYLOAD_BYTES)) in heard_a)
        assert not a.send(b_id, bytes(MAX_PAYLOAD_BYTES + 1))
        assert not a.send("0" * 64, b"nobody")

        running_b.cancel()
        await eventually(lambda: Absent(b_id) in heard_a)
        assert dict(a.peers) == {}
        assert not a.send(b_id, b"too late")
        a.network_changed({"192.0.2.1"})
        running_a.cancel()
    assert not a.state.connected
