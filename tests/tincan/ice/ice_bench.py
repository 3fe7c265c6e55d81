"""What the tests of ICE share: a pump that only demultiplexes, and a STUN server."""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import aioice.stun

from tincan.device.udp import Address, UdpSocket
from tincan.ice.agent import IceAgent
from tincan.ice.resolve import Resolver
from tincan.ice.stun import CHANNEL, is_channel_data, is_stun
from tincan.path.description import TurnServer
from tincan.path.path import Path


class BenchPump:
    """Reads sockets as the real pump does, one datagram at a time, and keeps the records."""

    def __init__(self) -> None:
        self.records: asyncio.Queue[bytes] = asyncio.Queue()
        self.open_sockets: list[UdpSocket] = []
        self.blocked: set[Address] = set()  # what comes to or from these is lost

    def open(self, host: str, port: int = 0) -> UdpSocket:
        sock = UdpSocket(host, port, gro=False)
        self.open_sockets.append(sock)
        asyncio.get_running_loop().add_reader(sock.fileno(), self._read, sock)
        return sock

    def close(self, sock: UdpSocket) -> None:
        self.open_sockets.remove(sock)
        asyncio.get_running_loop().remove_reader(sock.fileno())
        sock.close()

    def _read(self, sock: UdpSocket) -> None:
        while sock in self.open_sockets:
            try:
                datagram, addr = sock.sock.recvfrom(65536)
            except BlockingIOError:
                return
            self._demultiplex(sock, datagram, (addr[0], addr[1]))

    def _demultiplex(self, sock: UdpSocket, datagram: bytes, addr: Address) -> None:
        if sock.address in self.blocked or addr in self.blocked:
            return
        if is_stun(datagram):
            if sock.on_stun is not None:
                sock.on_stun(datagram, addr)
        elif is_channel_data(datagram):
            channel, length = CHANNEL.unpack_from(datagram)
            inner = datagram[CHANNEL.size : CHANNEL.size + length]
            if not is_stun(inner):
                self.on_data(inner)
            elif sock.on_channel is not None:
                sock.on_channel(inner, channel)
        elif datagram:
            self.on_data(datagram)

    def on_data(self, datagram: bytes) -> None:
        if datagram[0] >= 0x80:
            self.records.put_nowait(datagram)


def send(path: Path, datagram: bytes) -> None:
    """Send a record along ``path``."""
    path.carrier.send_plain([datagram])


class Peer:
    """An agent with its pump, and what it reported."""

    def __init__(
        self,
        *,
        controlling: bool,
        addresses: list[str],
        stun: list[Address] | None = None,
        turn: list[TurnServer] | None = None,
        refuse: Callable[[str], bool] = lambda _: False,
        **more: Any,
    ) -> None:
        self.pump = BenchPump()
        self.counters: Counter[str] = Counter()
        self.paths: list[Path] = []
        self.agent = IceAgent(
            controlling=controlling,
            sockets=self.pump,
            stun=stun or [],
            turn=turn or [],
            resolver=Resolver(),
            addresses=lambda: addresses,
            refuse=refuse,
            on_data=self.pump.on_data,
            on_path=self.paths.append,
            counters=self.counters,
            **more,
        )


async def meet(a: Peer, b: Peer) -> tuple[Path, Path]:
    """Exchange descriptions and connect: ``a`` offers."""
    offer = await a.agent.gather()
    answer = await b.agent.gather()
    paths = await asyncio.gather(a.agent.connect(answer), b.agent.connect(offer))
    return paths[0], paths[1]


async def crosses(path: Path, to: Peer, datagram: bytes = b"\x80record") -> bool:
    """Whether a record sent along ``path`` arrives."""
    send(path, datagram)
    try:
        return await asyncio.wait_for(to.pump.records.get(), 2) == datagram
    except TimeoutError:
        return False


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition, 5 s at most."""
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("waited in vain")


class StunServer(asyncio.DatagramProtocol):
    """Answers binding requests. ``says`` overrides the address it reports; None: it is silent."""

    def __init__(self, says: Callable[[Address], Address | None] = lambda addr: addr) -> None:
        self.says = says
        self.asked: list[Address] = []

    @classmethod
    async def start(cls, host: str = "127.0.0.1", **options: Any) -> "StunServer":
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        _, server = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: cls(**options), local_addr=(host, 0), family=family
        )
        return server

    @property
    def address(self) -> Address:
        name = self.transport.get_extra_info("sockname")
        return name[0], name[1]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        request = aioice.stun.parse_message(data)
        self.asked.append((addr[0], addr[1]))
        seen = self.says((addr[0], addr[1]))
        if seen is None or request.message_class != aioice.stun.Class.REQUEST:
            return
        response = aioice.stun.Message(
            aioice.stun.Method.BINDING, aioice.stun.Class.RESPONSE, request.transaction_id
        )
        response.attributes["XOR-MAPPED-ADDRESS"] = seen
        self.transport.sendto(bytes(response), addr)
