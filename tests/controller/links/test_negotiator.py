"""The mesh carries out what topology decides: bounded, and names reach whoever must know them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from controller.dataplane.client import Tunnel
from controller.links.contacts import Offer, Please
from controller.links.negotiator import Mesh
from controller.signal.events import Present, Received, Refused
from controller.signal.keys import NetworkKeys
from tincan.control import messages as api
from tincan.control.codec import encode
from tincan.crypto.primitives import PrivateKey

LOW, HIGH = "0" * 64, "f" * 64
THERE = api.Description("abcd", "a" * 22, [])


class SlowTunnel:
    """A tincan whose answers wait until they are released."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.release = asyncio.Event()

    async def call(self, method: str, wish: Any, kind: Any) -> api.Offer:
        self.calls.append(wish)
        await self.release.wait()
        return api.Offer(THERE)


@asynccontextmanager
async def meshed() -> AsyncIterator[tuple[Mesh, SlowTunnel, list[tuple[str, str]], Counter[str]]]:
    tunnel, named, counters = SlowTunnel(), [], Counter[str]()
    async with asyncio.TaskGroup() as tasks:
        mesh = Mesh(
            (),
            NetworkKeys.derive("n", "secret secret"),
            PrivateKey.generate(),
            "a",
            cast(Tunnel, tunnel),
            tasks,
            counters,
            named=lambda peer, name: named.append((peer, name)),
            forgotten=lambda peer: None,
        )
        yield mesh, tunnel, named, counters
        tunnel.release.set()


async def test_a_peer_that_floods_offers_waits_for_itself() -> None:
    async with meshed() as (mesh, tunnel, _, _):
        mesh._on_signal(Present(LOW, "b", b"s"))
        for number in range(1, 500):
            mesh._on_signal(Received(LOW, encode(Offer(number, THERE))))
        await asyncio.sleep(0)
        assert [call.number for call in tunnel.calls] == [1]
        tunnel.release.set()
    assert [call.number for call in tunnel.calls] == [1, 499]
    assert mesh._negotiating == {}


async def test_a_peer_that_begs_without_end_gets_one_offer_at_a_time() -> None:
    async with meshed() as (mesh, tunnel, _, _):
        mesh._on_signal(Present(HIGH, "b", b"s"))
        for _ in range(500):
            mesh._on_signal(Received(HIGH, encode(Please("again"))))
        await asyncio.sleep(0)
        assert len(tunnel.calls) == 1
        tunnel.release.set()
    assert len(tunnel.calls) == 2


async def test_the_name_of_a_linked_peer_is_told_when_presence_comes_after_the_link() -> None:
    """As after a takeover: tincan has the links before the rendezvous has been asked."""
    async with meshed() as (mesh, _, named, _):
        mesh.linked(LOW, False)
        assert named == []
        mesh._on_signal(Present(LOW, "bob", b"s"))
        mesh._on_signal(Present(LOW, "eve", b"t"))
        assert named == [(LOW, "bob"), (LOW, "eve")]


async def test_a_rendezvous_cannot_invent_counters() -> None:
    async with meshed() as (mesh, _, _, counters):
        for number in range(100):
            mesh._on_signal(Refused(f"because {number}"))
        mesh._on_signal(Refused("wrong secret"))
    assert counters == {"signal_refused.other": 100, "signal_refused.wrong secret": 1}
