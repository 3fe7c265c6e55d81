"""The real program, v0.5.0, with ours. Without a Go toolchain these are skipped, and say so."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import pytest

from controller.routes.machine import State
from controller.routes.metalbond import MetalBond
from controller.routes.speaker import Config
from controller.routes.values import Destination, NextHop, NextHopType, Vni
from lab.gobuild import GoMissing, metalbond
from tests.controller.routes.waiting import PATIENCE_S, until

VNI = Vni(23)
NET = [Destination.parse(f"10.0.{n}.0/24") for n in range(10)]
OUR_HOP = NextHop.parse("2001:db8::a1")
GO_HOP = NextHop.parse("2001:db8::b1")
FAST = Config(keepalive_interval=1, retry_interval=0.3)


@pytest.fixture(scope="session")
def go() -> Path:
    """The real program."""
    try:
        return metalbond()
    except GoMissing as missing:
        pytest.skip(str(missing))


class Collected:
    """A client that has the routes."""

    def __init__(self) -> None:
        self.routes: set[tuple[Vni, Destination, NextHop]] = set()

    def add_route(self, vni: Vni, destination: Destination, hop: NextHop) -> None:
        """Take it."""
        assert (vni, destination, hop) not in self.routes
        self.routes.add((vni, destination, hop))

    def remove_route(self, vni: Vni, destination: Destination, hop: NextHop) -> None:
        """Let go of it."""
        self.routes.remove((vni, destination, hop))


class Go:
    """A running Go program. ``received`` are the routes that its log says it has."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    def text(self) -> str:
        """Return its log."""
        return self.log.read_text()

    def received(self) -> set[tuple[str, str]]:
        """Return destination and next hop of each route that it has received and not removed."""
        found: set[tuple[str, str]] = set()
        pattern = r"(Removed )?Received Route: VNI \d+, Prefix: (\S+), NextHop: (\S+)"
        for gone, prefix, hop in re.findall(pattern, self.text()):
            (found.discard if gone else found.add)((prefix, hop))
        return found


@contextmanager
def running(go: Path, folder: Path, *arguments: str) -> Iterator[Go]:
    """Run the Go program until the block ends."""
    log = folder / f"go{len(list(folder.iterdir()))}.log"
    with log.open("wb") as out:
        process = subprocess.Popen([go, *arguments], stdout=out, stderr=out)
    try:
        yield Go(process, log)
    finally:
        process.kill()
        process.wait()


async def free_port() -> str:
    """Return an address where nobody listens now."""
    server = await asyncio.start_server(lambda r, w: None, "::1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    return f"[::1]:{port}"


def client(address: str, *more: str) -> list[str]:
    return ["client", "--server", address, "--keepalive", "1", *more]


async def test_go_clients_at_our_server(go: Path, tmp_path: Path) -> None:
    async with MetalBond(FAST) as bond, AsyncExitStack() as stack:
        address = await bond.start_server("[::1]:0")
        one = stack.enter_context(
            running(
                go,
                tmp_path,
                *client(address, "--subscribe", "23", "--announce", "23#10.0.1.0/24#2001:db8::a1"),
            )
        )
        nat = "23#10.0.2.7/32#2001:db8::a2#NAT#1024#2047"
        lb = "23#10.0.3.1/32#2001:db8::a2#LB"
        two = stack.enter_context(
            running(
                go,
                tmp_path,
                *client(address, "--subscribe", "23", "--announce", nat, "--announce", lb),
            )
        )
        theirs = {("10.0.2.7/32", "2001:db8::a2"), ("10.0.3.1/32", "2001:db8::a2")}
        await until(lambda: one.received() == theirs)
        await until(lambda: two.received() == {("10.0.1.0/24", "2001:db8::a1")})
        assert "PortFrom: 1024 PortTo: 2047" in one.text()
        assert "LOADBALANCER_TARGET" in one.text()
        two.process.kill()
        await until(lambda: one.received() == set())
        await asyncio.sleep(3)  # longer than 2.5 intervals
        assert "esetting" not in one.text()
        assert len(bond.speaker.peers) == 1


async def test_our_clients_at_a_go_server(go: Path, tmp_path: Path) -> None:
    address = await free_port()
    have = Collected()
    async with AsyncExitStack() as stack:
        server = stack.enter_context(
            running(go, tmp_path, "server", "--listen", address, "--keepalive", "2")
        )
        bond = await stack.enter_async_context(MetalBond(FAST, have))
        other = await stack.enter_async_context(MetalBond(FAST))
        nat = NextHop.parse("2001:db8::a2", NextHopType.NAT, ports=(7, 9))
        bond.subscribe(VNI)
        bond.announce_route(VNI, NET[1], OUR_HOP)
        for each in (NextHop.parse("2001:db8::a2", NextHopType.LOADBALANCER_TARGET), nat):
            other.announce_route(VNI, NET[2], each)
        bond.add_peer(address)
        other.add_peer(address)
        theirs = stack.enter_context(running(go, tmp_path, *client(address, "--subscribe", "23")))
        lb = NextHop.parse("2001:db8::a2", NextHopType.LOADBALANCER_TARGET)
        await until(lambda: have.routes == {(VNI, NET[2], nat), (VNI, NET[2], lb)})
        await until(lambda: ("10.0.1.0/24", "2001:db8::a1") in theirs.received())
        # UNSUBSCRIBE takes our announcements, too, at a Go server: they are announced again.
        bond.unsubscribe(VNI)
        assert bond.is_route_announced(VNI, NET[1], OUR_HOP)
        await until(lambda: have.routes == set())
        bond.subscribe(VNI)
        await until(lambda: len(have.routes) == 2)
        await until(lambda: ("10.0.1.0/24", "2001:db8::a1") in theirs.received())
        other.withdraw_route(VNI, NET[2], nat)
        await until(lambda: have.routes == {(VNI, NET[2], lb)})
        server.process.kill()
        await until(lambda: have.routes == set())
        stack.enter_context(
            running(go, tmp_path, "server", "--listen", address, "--keepalive", "2")
        )
        await until(lambda: have.routes == {(VNI, NET[2], lb)})
        assert bond.peer_state(address) is State.ESTABLISHED


async def test_one_of_two_servers_dies(go: Path, tmp_path: Path) -> None:
    address = await free_port()
    have = Collected()
    async with AsyncExitStack() as stack:
        theirs = stack.enter_context(running(go, tmp_path, "server", "--listen", address))
        ours = await stack.enter_async_context(MetalBond(FAST))
        here = await ours.start_server("[::1]:0")
        announcer = await stack.enter_async_context(MetalBond(FAST))
        announcer.announce_route(VNI, NET[1], OUR_HOP)
        bond = await stack.enter_async_context(MetalBond(FAST, have))
        bond.subscribe(VNI)
        for each in (announcer, bond):
            each.add_peer(address)
            each.add_peer(here)

        def sources() -> int:
            route = bond.speaker.reflector.received.find(VNI, NET[1], OUR_HOP)
            return 0 if route is None else len(route.sources)

        await until(lambda: sources() == 2)
        theirs.process.kill()
        await until(lambda: sources() == 1)
        assert have.routes == {(VNI, NET[1], OUR_HOP)}
        await ours.shutdown()
        await until(lambda: have.routes == set())


async def test_both_kinds_at_our_program_and_the_pages(go: Path, tmp_path: Path) -> None:
    """Our command line as a server; killed and started again, all come back."""
    address, pages = await free_port(), await free_port()
    have = Collected()

    def start() -> subprocess.Popen[bytes]:
        words = ["metalbond", "server", "--listen", address, "--http", pages, "--keepalive", "1"]
        return subprocess.Popen(
            [sys.executable, "-m", "controller.cli", *words], stderr=subprocess.DEVNULL
        )

    async with AsyncExitStack() as stack:
        server = start()
        stack.callback(lambda: server.wait())
        stack.callback(lambda: server.kill())
        bond = await stack.enter_async_context(MetalBond(FAST, have))
        bond.subscribe(VNI)
        bond.announce_route(VNI, NET[1], OUR_HOP)
        bond.add_peer(address)
        await until(lambda: bond.peer_state(address) is State.ESTABLISHED)
        theirs = stack.enter_context(
            running(
                go,
                tmp_path,
                *client(address, "--subscribe", "23", "--announce", "23#10.0.2.0/24#2001:db8::b1"),
            )
        )
        mine = {(VNI, NET[2], GO_HOP)}
        await until(lambda: have.routes == mine)
        await until(lambda: theirs.received() == {("10.0.1.0/24", "2001:db8::a1")})
        shown = json.loads(await get(pages, "/routes.json"))["vnet"]["23"]
        assert set(shown) == {
            '{"IPVersion":4,"Prefix":"10.0.1.0/24"}',
            '{"IPVersion":4,"Prefix":"10.0.2.0/24"}',
        }
        server.kill()
        server.wait()
        await until(lambda: have.routes == set())
        server = start()
        await until(lambda: have.routes == mine)  # the Go client needs 5 to 9 s
        server.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(server.wait, PATIENCE_S) == 0


async def test_a_large_replay_never_resets_the_real_program(go: Path, tmp_path: Path) -> None:
    """Also when it does not run for a while: it takes more than 64 KiB at once for an attack."""
    count = 15_000
    async with MetalBond() as bond, AsyncExitStack() as stack:
        address = await bond.start_server("[::1]:0")
        for number in range(count):
            network = Destination((0x0A000000 + number).to_bytes(4, "big"), 32)
            bond.announce_route(VNI, network, OUR_HOP)
        theirs = stack.enter_context(
            running(go, tmp_path, "client", "--server", address, "--keepalive", "5")
        )
        await until(lambda: "Received Route" in theirs.text())
        theirs.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(1.0)
        theirs.process.send_signal(signal.SIGCONT)
        await until(lambda: theirs.text().count("Received Route") == count)
        assert "esetting" not in theirs.text()
        assert not bond.speaker.closed


async def get(address: str, path: str) -> str:
    """Return what a GET has as its body."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer.partition(b"\r\n\r\n")[2].decode()
