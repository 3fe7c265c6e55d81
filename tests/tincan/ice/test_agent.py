"""Agents over loopback, on real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from tests.tincan.ice.ice_bench import Peer, StunServer, crosses, meet, until
from tincan.device.udp import Address
from tincan.errors import LinkError
from tincan.ice import agent as module
from tincan.ice.resolve import Resolver
from tincan.path.description import Description, TurnServer
from tincan.path.direct import Direct

A, B, C = "127.0.0.1", "127.0.0.2", "127.0.0.3"
Make = Callable[..., Peer]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Make peers that are closed at the end, and must leave nothing behind."""
    before = asyncio.all_tasks()
    peers: list[Peer] = []

    def one(controlling: bool = True, addresses: list[str] | None = None, **more: Any) -> Peer:
        peers.append(Peer(controlling=controlling, addresses=addresses or [A], **more))
        return peers[-1]

    yield one
    for peer in peers:
        await peer.agent.close()
        assert peer.pump.open_sockets == []
    assert asyncio.all_tasks() - before - {asyncio.current_task()} == set()


def serving(**options: Any) -> AbstractAsyncContextManager[StunServer]:
    @asynccontextmanager
    async def serve() -> AsyncIterator[StunServer]:
        server = await StunServer.start(**options)
        yield server
        server.transport.close()

    return serve()


def silent() -> AbstractAsyncContextManager[StunServer]:
    return serving(says=lambda _: None)


def translated(addr: Address) -> Address:
    return "192.0.2.1", addr[1]


def kinds(description: Description) -> list[str]:
    return [line.split()[7] for line in description.candidates]


class Clock:
    """How long the event loop says that something took."""

    def __enter__(self) -> "Clock":
        self._start = asyncio.get_running_loop().time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = asyncio.get_running_loop().time() - self._start


# Connecting.


async def test_two_agents_connect_and_records_cross_both_ways(make: Make) -> None:
    a, b = make(True), make(False, [A, B])
    path_a, path_b = await meet(a, b)
    assert (path_a.local, path_a.remote) == (path_b.local, path_b.remote) == ("host", "host")
    assert isinstance(path_a.carrier, Direct)
    assert path_a.carrier.channel is None
    assert path_a.carrier.address == path_a.peer_address == path_b.carrier.source
    assert await crosses(path_a, b)
    assert await crosses(path_b, a)
    assert a.agent.path is path_a
    assert a.paths == b.paths == []
    assert not a.counters
    assert not b.counters


async def test_over_ipv6(make: Make) -> None:
    a, b = make(True, ["::1"]), make(False, ["::1"])
    path_a, path_b = await meet(a, b)
    assert path_a.carrier.address[0] == "::1"
    assert await crosses(path_a, b)
    assert await crosses(path_b, a)


async def test_either_side_may_start_first(make: Make) -> None:
    for first in (0, 1):
        peers = [make(True), make(False)]
        descriptions = [await peer.agent.gather() for peer in peers]
        early = asyncio.create_task(peers[first].agent.connect(descriptions[1 - first]))
        await asyncio.sleep(0.3)
        await peers[1 - first].agent.connect(descriptions[first])
        await early


async def test_candidates_may_come_later(make: Make) -> None:
    a, b = make(True), make(False)
    offer, answer = await a.agent.gather(), await b.agent.gather()
    connecting = asyncio.create_task(a.agent.connect(Description(answer.ufrag, answer.pwd, [])))
    await asyncio.sleep(0.05)
    a.agent.add_remote(answer.candidates)
    await b.agent.connect(Description(offer.ufrag, offer.pwd, []))
    assert (await connecting).remote == "host"
    assert b.agent.path is not None
    assert b.agent.path.remote == "prflx"


async def test_garbage_meanwhile_moves_counters_only(make: Make) -> None:
    a, b = make(True), make(False)
    offer, answer = await a.agent.gather(), await b.agent.gather()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for sock in (*a.pump.open_sockets, *b.pump.open_sockets):
            for garbage in (b"", b"\0", bytes(20), bytes(100), b"\x7f" * 50):
                stranger.sendto(garbage, sock.address)
            request = b"\0\1\0\x08\x21\x12\xa4\x42" + bytes(12) + b"\0\x24\0\4" + bytes(4)
            stranger.sendto(request, sock.address)
        await asyncio.gather(a.agent.connect(answer), b.agent.connect(offer))
        stranger.setblocking(False)
        with pytest.raises(BlockingIOError):
            stranger.recv(2000)
    assert a.counters == b.counters == {"stun_unauthenticated": 1}


async def test_a_relay_waits_for_direct_pairs_and_gives_way_to_a_late_one(make: Make) -> None:
    a, b = make(True, [A]), make(False, [B, C])
    offer, answer = await a.agent.gather(), await b.agent.gather()
    direct, relay = (sock.address for sock in b.pump.open_sockets)
    # C is not a relay, but a cannot tell. Nothing comes through at B as yet.
    lines = [
        line.replace("typ host", "typ relay") if C in line else line for line in answer.candidates
    ]
    a.pump.blocked.add(direct)
    b.pump.blocked.add(direct)
    with Clock() as clock:
        path, _ = await asyncio.gather(
            a.agent.connect(Description(answer.ufrag, answer.pwd, lines)), b.agent.connect(offer)
        )
    assert path.relayed
    assert path.carrier.address == relay
    assert clock.seconds >= 0.5
    assert a.paths == b.paths == []
    a.pump.blocked.clear()
    b.pump.blocked.clear()
    await until(lambda: a.paths and b.paths)
    assert a.paths == [a.agent.path]
    assert a.paths[0].carrier.address == direct
    assert not a.paths[0].relayed
    assert b.paths[0].carrier.source == direct
    assert await crosses(a.paths[0], b)
    assert await crosses(b.paths[0], a)


async def test_nobody_there_is_a_link_error_with_the_reason(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONNECT_TIMEOUT", 0.2)
    peer = Description("peer", "p" * 22, ["a 1 udp 100 127.0.0.9 9 typ host"])
    cases = [
        (make(), peer, "1 addresses answered"),
        (make(refuse=lambda host: host == "127.0.0.9"), peer, "no usable address"),
        (make(), Description("peer", "p" * 22, ["rubbish", ""]), "no usable address"),
    ]
    for one, description, reason in cases:
        await one.agent.gather()
        with pytest.raises(LinkError, match=reason):
            await one.agent.connect(description)
    assert cases[1][0].counters == {"ice_candidates_refused": 1}
    assert cases[2][0].counters == {"ice_candidates_malformed": 2}


async def test_the_wrong_password_does_not_connect(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONNECT_TIMEOUT", 0.3)
    a, b = make(True), make(False)
    offer, answer = await a.agent.gather(), await b.agent.gather()
    wrong = Description(answer.ufrag, "x" * 22, answer.candidates)
    results = await asyncio.gather(
        a.agent.connect(wrong), b.agent.connect(offer), return_exceptions=True
    )
    assert [type(result) for result in results] == [LinkError, LinkError]
    assert b.counters["stun_unauthenticated"] > 0


async def test_closing_ends_a_connect(make: Make) -> None:
    one = make()
    await one.agent.gather()
    connecting = asyncio.create_task(one.agent.connect(Description("peer", "p" * 22, [])))
    await asyncio.sleep(0.01)
    await one.agent.close()
    with pytest.raises(LinkError, match="closed"):
        await connecting


async def test_closing_may_be_cancelled_and_still_leaves_no_socket(make: Make) -> None:
    a, b = make(True), make(False)
    await meet(a, b)
    closing = asyncio.create_task(a.agent.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    assert a.pump.open_sockets == []


# Consent.


async def test_checks_are_answered_after_consent_was_stopped(make: Make) -> None:
    a, b = make(True), make(False)
    await meet(a, b)
    a.agent.stop_consent()
    b.agent.stop_consent()
    await asyncio.sleep(0)
    pair = a.agent._checks.nominated
    assert pair is not None
    assert await a.agent._checks.ask(pair, retransmissions=0)
    assert a.agent._tasks == set()


async def test_consent_that_is_not_renewed_is_counted(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONSENT_INTERVAL", 0.01)
    monkeypatch.setattr(module, "CONSENT_FAILURES", 2)
    a, b = make(True), make(False)
    await meet(a, b)
    await asyncio.sleep(0.1)
    assert "ice_consent_expired" not in a.counters
    a.pump.blocked.update(sock.address for sock in a.pump.open_sockets)
    await until(lambda: "ice_consent_expired" in a.counters)


# Gathering.


async def test_hosts_are_offered_at_once_without_a_server(make: Make) -> None:
    offer = await make(addresses=[A, B]).agent.gather()
    assert kinds(offer) == ["host", "host"]
    priorities = [int(line.split()[3]) for line in offer.candidates]
    assert priorities[0] > priorities[1]


async def test_behind_a_nat_the_outside_address_is_offered(make: Make) -> None:
    async with serving(says=translated) as server:
        offer = await make(stun=[server.address]).agent.gather()
    assert kinds(offer) == ["host", "srflx"]
    assert offer.candidates[1].split()[4] == "192.0.2.1"


async def test_without_a_nat_there_is_nothing_more_to_offer(make: Make) -> None:
    async with serving() as server:
        offer = await make(stun=[server.address]).agent.gather()
    assert kinds(offer) == ["host"]


async def test_a_silent_server_costs_half_a_second(make: Make) -> None:
    async with silent() as server:
        with Clock() as clock:
            offer = await make(stun=[server.address]).agent.gather()
        assert len(server.asked) > 1
    assert kinds(offer) == ["host"]
    assert 0.45 < clock.seconds < 3


async def test_the_first_server_to_answer_is_enough(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STUN_WAIT", 60)
    monkeypatch.setattr(module, "QUERY_REPEATS", (60,))
    async with silent() as dead, serving(says=translated) as server, asyncio.timeout(10):
        offer = await make(stun=[dead.address, server.address]).agent.gather()
    assert kinds(offer) == ["host", "srflx"]


async def test_an_answer_that_comes_late_is_in_the_next_description(make: Make) -> None:
    answers = False

    def says(addr: Address) -> Address | None:
        return translated(addr) if answers else None

    async with serving(says=says) as server:
        one = make(stun=[server.address])
        assert kinds(await one.agent.gather()) == ["host"]
        answers = True
        await until(lambda: kinds(one.agent.description) == ["host", "srflx"])


async def test_a_server_is_not_asked_through_the_overlay(make: Make) -> None:
    async with serving() as server:
        one = make(stun=[server.address], refuse=lambda host: host == A)
        await one.agent.gather()
        assert server.asked == []


async def test_a_name_that_does_not_resolve_is_counted(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(_: Resolver, host: str, port: int) -> list[Address]:
        raise OSError(f"{host}: no such name")

    monkeypatch.setattr(Resolver, "resolve", resolve)
    one = make(stun=[("stun.example", 1)], turn=[TurnServer("turn.example", 2, "u", "p")])
    assert kinds(await one.agent.gather()) == ["host"]
    assert one.counters == {"stun_failed.stun.example:1": 1, "turn_failed.turn.example:2": 1}


async def test_an_address_that_is_gone_is_skipped(make: Make) -> None:
    one = make(addresses=["192.0.2.55", A])
    assert kinds(await one.agent.gather()) == ["host"]
    assert one.counters == {"ice_bind_failed": 1}


async def test_nothing_to_offer_is_a_link_error(make: Make) -> None:
    with pytest.raises(LinkError, match="no local address"):
        await make(addresses=["fe80::1"]).agent.gather()


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_silent_relay_costs_a_bounded_time(
    make: Make, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    monkeypatch.setattr(module, "RELAY_WAIT", 0.2)
    monkeypatch.setattr(module, "ALLOCATION_TIMEOUT", 0.3)
    kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as server:
        server.bind((A, 0))
        if transport == "tcp":
            server.listen()
        port = server.getsockname()[1]
        one = make(turn=[TurnServer(A, port, "u", "p", transport)])  # type: ignore[arg-type]
        with Clock() as clock:
            assert kinds(await one.agent.gather()) == ["host"]
        assert 0.15 < clock.seconds < 3
        await until(lambda: one.counters == {f"turn_failed.{A}:{port}": 1})
    assert len(one.pump.open_sockets) == 1


async def test_only_the_server_speaks_for_a_relay(make: Make) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((A, 0))
        one = make(turn=[TurnServer(A, server.getsockname()[1], "u", "p")])
        gathering = asyncio.create_task(one.agent.gather())
        await asyncio.sleep(0.05)
        _, relay = one.pump.open_sockets
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"\1\x17\0\0\x21\x12\xa4\x42" + bytes(12), relay.address)
        await asyncio.sleep(0.05)
        assert one.counters == {"stun_unauthenticated": 1}
        await one.agent.close()
        await gathering
