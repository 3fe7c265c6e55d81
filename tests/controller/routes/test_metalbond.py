"""The class for programs on real sockets, also among peers that mean harm."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.errors import RouteError, SystemRefusal
from controller.routes import machine
from controller.routes.machine import State
from controller.routes.messages import KEEPALIVE, Action, Hello, Update, hello, subscribe, update
from controller.routes.metalbond import MetalBond
from controller.routes.speaker import Config
from controller.routes.values import Destination, NextHop, Vni
from tests.controller.routes.waiting import PATIENCE_S, until

VNI = Vni(23)
A1 = NextHop.parse("2001:db8::a1")
NET = Destination.parse("10.0.1.0/24")
FAST = Config(keepalive_interval=1, retry_interval=0.1)
DOCS = Path(__file__).parents[3] / "docs" / "metalbond.md"


def net(number: int) -> Destination:
    return Destination((0x0A000000 + number).to_bytes(4, "big"), 32)


class Collected:
    """A client that has the routes."""

    def __init__(self) -> None:
        self.routes: set[tuple[Vni, Destination, NextHop]] = set()

    def add_route(self, vni: Vni, destination: Destination, hop: NextHop) -> None:
        """Take it."""
        self.routes.add((vni, destination, hop))

    def remove_route(self, vni: Vni, destination: Destination, hop: NextHop) -> None:
        """Let go of it."""
        self.routes.remove((vni, destination, hop))


@pytest.fixture
async def server() -> AsyncIterator[tuple[MetalBond, str]]:
    """A reflector and where it listens."""
    async with MetalBond() as bond:
        yield bond, await bond.start_server("[::1]:0")


async def stranger(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("::1", int(address.rpartition(":")[2]))


@contextlib.asynccontextmanager
async def good(address: str) -> AsyncIterator[Collected]:
    """An announcer and a subscriber of ours, which must not notice anything."""
    have = Collected()
    async with MetalBond(FAST) as one, MetalBond(FAST, have) as two:
        two.subscribe(VNI)
        for bond in (one, two):
            bond.add_peer(address)
        yield have
        one.announce_route(VNI, NET, A1)
        await until(lambda: have.routes == {(VNI, NET, A1)})
        one.withdraw_route(VNI, NET, A1)
        await until(lambda: have.routes == set())


async def test_every_operation(server: tuple[MetalBond, str]) -> None:
    _, address = server
    have = Collected()
    async with MetalBond(FAST) as one, MetalBond(FAST, have) as two:
        assert one.peer_state(address) is State.CLOSED
        one.add_peer(address)
        two.add_peer(address)
        with pytest.raises(RouteError):
            one.add_peer(address)
        two.subscribe(VNI)
        assert (two.is_subscribed(VNI), one.is_subscribed(VNI)) == (True, False)
        one.announce_route(VNI, NET, A1)
        assert one.is_route_announced(VNI, NET, A1)
        await until(lambda: have.routes == {(VNI, NET, A1)})
        assert one.peer_state(address) is State.ESTABLISHED
        two.unsubscribe(VNI)
        await until(lambda: not have.routes)
        two.subscribe(VNI)
        await until(lambda: bool(have.routes))
        one.remove_peer(address)
        assert one.peer_state(address) is State.CLOSED
        await until(lambda: not have.routes)
        one.add_peer(address)
        await until(lambda: bool(have.routes))
        one.withdraw_route(VNI, NET, A1)
        assert not one.is_route_announced(VNI, NET, A1)
        await until(lambda: not have.routes)


async def test_it_comes_back_to_a_server_that_comes_back() -> None:
    have = Collected()
    async with MetalBond(FAST, have) as bond, MetalBond(FAST) as other:
        bond.subscribe(VNI)
        other.announce_route(VNI, NET, A1)
        async with MetalBond() as first:
            address = await first.start_server("[::1]:0")
            bond.add_peer(address)
            other.add_peer(address)
            await until(lambda: bool(have.routes))
        await until(lambda: not have.routes)
        await until(lambda: bond.peer_state(address) is State.RETRY)
        async with MetalBond() as second:
            await second.start_server(address)
            await until(lambda: bool(have.routes))


async def test_ipv4_and_both() -> None:
    async with MetalBond() as bond, MetalBond(FAST) as client:
        both = await bond.start_server("[::]:0")
        four = await bond.start_server("127.0.0.1:0")
        targets = [f"127.0.0.1:{both.rpartition(':')[2]}", four]
        for target in targets:
            client.add_peer(target)
        await until(lambda: all(client.peer_state(t) is State.ESTABLISHED for t in targets))
        with pytest.raises(SystemRefusal, match="another program is there"):
            await bond.start_server(four)


async def test_addresses_that_are_none(server: tuple[MetalBond, str]) -> None:
    bond, _ = server
    for wrong in ("::1", "::1:4711", "host", "[::1]:x", "[::1]:70000"):
        with pytest.raises(RouteError):
            bond.add_peer(wrong)
    bond.add_peer("nowhere.invalid:4711")
    await until(lambda: bond.peer_state("nowhere.invalid:4711") is State.RETRY)


async def test_what_a_client_raises_ends_the_node(server: tuple[MetalBond, str]) -> None:
    class Refusing(Collected):
        def add_route(self, vni: Vni, destination: Destination, hop: NextHop) -> None:
            if destination == NET:
                raise RouteError("not this one")
            raise KeyError("a fault")

    _, address = server
    async with MetalBond() as other:
        other.announce_route(VNI, NET, A1)
        other.add_peer(address)
        with pytest.raises(ExceptionGroup) as raised:  # noqa: PT012 (it is raised by the exit)
            async with MetalBond(FAST, Refusing()) as bond:
                bond.subscribe(VNI)
                bond.add_peer(address)
                await until(lambda: bond.speaker.dropped["client_refused"] == 1)
                other.announce_route(VNI, net(1), A1)
                await asyncio.sleep(PATIENCE_S)
        assert raised.group_contains(KeyError)


class TestBadPeers:
    async def test_a_thousand_half_open_connections(
        self, server: tuple[MetalBond, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(machine, "HELLO_TIMEOUT_S", 1.5)
        bond, address = server
        sockets = []
        async with good(address):
            await until(lambda: len(bond.speaker.peers) == 2)
            loop = asyncio.get_running_loop()
            for _ in range(1000):
                sock = socket.socket(socket.AF_INET6)
                sock.setblocking(False)
                await loop.sock_connect(sock, ("::1", int(address.rpartition(":")[2])))
                sockets.append(sock)
            await until(lambda: bond.speaker.closed["no_hello"] == 1000)
            assert len(bond.speaker.peers) == 2
        for sock in sockets:
            sock.close()

    async def test_one_that_never_reads(
        self, server: tuple[MetalBond, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("controller.routes.speaker.MAX_UNREAD_BYTES", 1 << 20)
        monkeypatch.setattr("controller.routes.speaker.LOOK_EVERY_BYTES", 1 << 16)
        bond, address = server
        async with good(address):
            reader, writer = await stranger(address)
            writer.write(hello(Hello(5)))
            await reader.readexactly(8)
            writer.write(KEEPALIVE + subscribe(VNI))
            await until(lambda: len(bond.speaker.reflector.channels) == 1)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            _, announcer = await stranger(address)
            announcer.write(hello(Hello(5)) + KEEPALIVE)
            number = 0
            async with asyncio.timeout(PATIENCE_S):
                while not bond.speaker.closed["does_not_read"]:
                    for action in Action:
                        announcer.write(update(Update(action, VNI, net(number % 500), A1)))
                    number += 1
                    await announcer.drain()
                    if number % 50 == 0:
                        await asyncio.sleep(0.002)
            assert bond.speaker.closed == {"does_not_read": 1}
            assert bond.speaker.reflector.unread() < (1 << 20) + (1 << 17)
            writer.close()
            announcer.close()

    async def test_one_byte_a_moment(self, server: tuple[MetalBond, str]) -> None:
        bond, address = server
        async with good(address):
            _reader, writer = await stranger(address)
            said = hello(Hello(5)) + KEEPALIVE + update(Update(Action.ADD, VNI, net(1), A1))
            for at in range(len(said)):
                writer.write(said[at : at + 1])
                await asyncio.sleep(0.01)
            await until(lambda: bond.speaker.reflector.received.routes == 1)
            writer.close()
            await until(lambda: bond.speaker.reflector.received.routes == 0)

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"GET / HTTP/1.0\r\n\r\n", "wrong_version"),
            (b"\x01\xff\xff\x05" + bytes(1000), "too_long"),
            (b"\x01\x00\x02\x01\x08\x00", "keepalive_0"),
            (hello(Hello(5)) + KEEPALIVE + b"\x01\x00\x02\x05\x10\x17", "no_destination"),
        ],
    )
    async def test_broken_protocols(
        self, server: tuple[MetalBond, str], data: bytes, reason: str
    ) -> None:
        bond, address = server
        async with good(address):
            reader, writer = await stranger(address)
            writer.write(data)
            with contextlib.suppress(ConnectionError):
                while await reader.read(1000):
                    pass
            assert bond.speaker.closed == {reason: 1}
            writer.close()


async def test_the_example_of_the_documentation_runs(server: tuple[MetalBond, str]) -> None:
    bond, address = server
    code = DOCS.read_text().split("```python\n")[1].split("```")[0]
    code = code.replace("[2001:db8::1]:4711", address).replace("asyncio.run(main())", "")
    names: dict[str, object] = {}
    exec(compile(code, str(DOCS), "exec"), names)
    main = names["main"]
    assert callable(main)
    task = asyncio.create_task(main())
    await until(lambda: bond.speaker.reflector.received.routes == 2)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
