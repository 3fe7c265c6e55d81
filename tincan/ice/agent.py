"""One negotiation with one peer: gather candidates, exchange descriptions, connect, close.

A direct path behind easy NATs is up within two round trips of the answer's arrival; a relay,
where there is no direct path, three round trips after HEAD_START (ice.checks).
"""

import asyncio
import logging
import os
import random
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Final, TypeVar

from tincan.device.udp import Address, UdpSocket
from tincan.errors import LinkError, SystemRefusal
from tincan.ice.candidates import offerable, screen, seen_as, seen_behind_nat
from tincan.ice.checks import Base, CheckList
from tincan.ice.library import CandidatePair, local_candidate
from tincan.ice.resolve import Resolver
from tincan.ice.sockets import Sockets, SocketTransport
from tincan.ice.stun import binding_request, mapped_address, transaction_of
from tincan.ice.turn import RelayTransport, TurnStream, TurnUdp
from tincan.path.channel import Channel
from tincan.path.description import MAX_CANDIDATES, Description, TurnServer
from tincan.path.direct import Direct
from tincan.path.path import Carrier, Path
from tincan.path.stream import Stream

log = logging.getLogger(__name__)
T = TypeVar("T")

STUN_WAIT: Final = 0.5
"""Seconds that an offer waits for STUN servers."""
LATER_ANSWERS: Final = 0.05
"""Seconds that it waits for the other servers when one has answered, and twice as long as that
one took."""
RELAY_WAIT: Final = 2.0
"""Seconds that an offer waits for TURN servers."""
ALLOCATION_TIMEOUT: Final = 10.0
"""Seconds after which a TURN server is given up; a late relay is still used."""
CONNECT_TIMEOUT: Final = 12.0
"""Seconds."""
QUERY_REPEATS: Final = (0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds between queries to a STUN server."""
RELAY_LINGER: Final = 30.0
"""Seconds that allocations outlive the choice of a direct path."""
CONSENT_INTERVAL: Final = 5.0
"""Seconds; with CONSENT_FAILURES, the 30 s of RFC 7675 section 5.1."""
CONSENT_FAILURES: Final = 6
MAX_STUN_SERVERS: Final = 3
MAX_TURN_SERVERS: Final = 3


class IceAgent:
    """One negotiation with one peer. There is no restart: negotiate with a new agent.

    ``addresses`` returns the local addresses that may be offered, the best first; ``refuse``
    tells whether a remote one would be routed through the overlay. ``on_data`` gets datagrams of
    ours that came through a TURN server, unless as ChannelData on a socket: the pump sees those.
    ``on_path`` is called when the path changes after ``connect`` has returned one. ``resolver``
    is shared by all agents of a process.

    Call ``gather``, exchange descriptions, call ``connect``; in the end call ``close``.
    """

    def __init__(
        self,
        *,
        controlling: bool,
        sockets: Sockets,
        stun: list[Address],
        turn: list[TurnServer],
        resolver: Resolver,
        addresses: Callable[[], list[str]],
        refuse: Callable[[str], bool],
        on_data: Callable[[bytes], None],
        on_path: Callable[[Path], None],
        counters: Counter[str] | None = None,
    ) -> None:
        self.counters: Counter[str] = Counter() if counters is None else counters
        self._sockets = sockets
        self._stun = stun[:MAX_STUN_SERVERS]
        self._turn = turn[:MAX_TURN_SERVERS]
        self._addresses = addresses
        self._refuse = refuse
        self._on_data = on_data
        self._on_path = on_path
        self._resolver = resolver
        self._hosts: dict[Address, UdpSocket] = {}
        self._relays: list[RelayTransport] = []
        self._open: list[UdpSocket] = []
        self._queries: dict[bytes, tuple[Address, asyncio.Future[Address | None]]] = {}
        self._reflexive: set[Address] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._consent: asyncio.Task[None] | None = None
        self._upkeep: asyncio.Task[None] | None = None
        self._connecting: asyncio.Future[None] | None = None
        self._closed = False
        self._path: Path | None = None
        self._checks = CheckList(
            controlling=controlling,
            refuse=refuse,
            selected=self._pair_selected,
            spawn=self._spawn,
            counters=self.counters,
        )

    @property
    def path(self) -> Path | None:
        """Return the path in use, None before there is one."""
        return self._path

    @property
    def description(self) -> Description:
        """Return what the peer must know, as of now: candidates may come after ``gather``, too."""
        offered = sorted(self._checks.local_candidates, key=lambda c: c.type == "srflx")
        lines = [candidate.to_sdp() for candidate in offered[:MAX_CANDIDATES]]
        return Description(self._checks.local_username, self._checks.local_password, lines)

    # --- gathering

    async def gather(self) -> Description:
        """Open sockets, ask the servers, and return our description within RELAY_WAIT.

        Raise LinkError if there is nothing to offer.
        """
        loop = asyncio.get_running_loop()
        start = loop.time()
        bases = [self._open_host(*item) for item in enumerate(offerable(self._addresses()))]
        lookups = [self._spawn(self._look_up(server)) for server in self._stun]
        queries = {
            self._spawn(self._ask_reflexive(base, rank, lookup))
            for rank, base in enumerate(bases)
            if base is not None
            for lookup in lookups
        }
        relays = [self._spawn(self._allocate(*item)) for item in enumerate(self._turn)]
        await self._reflexive_or_late(queries, start)
        if relays:
            await asyncio.wait(relays, timeout=max(0.0, start + RELAY_WAIT - loop.time()))
        if not self._checks.local_candidates:
            raise LinkError("no local address can be offered, and no TURN server answers")
        return self.description

    def _open_host(self, rank: int, host: str) -> Base | None:
        try:
            sock = self._sockets.open(host)
        except SystemRefusal:  # the address has gone meanwhile
            self.counters["ice_bind_failed"] += 1
            return None
        self._hosts[sock.address] = sock
        self._open.append(sock)
        base = Base(self._checks, self._on_data)
        SocketTransport(sock, base, self.counters)
        sock.on_stun = lambda data, addr: self._stun_received(base, data, (addr[0], addr[1]))
        self._checks.offer(local_candidate("host", sock.address, rank), base)
        return base

    def _stun_received(self, base: Base, data: bytes, addr: Address) -> None:
        server, answer = self._queries.get(transaction_of(data), (None, None))
        if answer is None:
            base.datagram_received(data, addr)
        elif addr == server and not answer.done():
            answer.set_result(mapped_address(data))

    async def _reflexive_or_late(self, queries: set["asyncio.Task[None]"], start: float) -> None:
        """Wait for STUN servers; when one has answered, for the others not much longer."""
        loop = asyncio.get_running_loop()
        deadline = start + STUN_WAIT
        while queries and loop.time() < deadline:
            _, queries = await asyncio.wait(
                queries, timeout=deadline - loop.time(), return_when=asyncio.FIRST_COMPLETED
            )
            if self._reflexive:
                deadline = min(deadline, start + 3 * (loop.time() - start) + LATER_ANSWERS)

    async def _look_up(self, server: Address) -> list[Address]:
        """Return the addresses of a STUN server that may be asked."""
        try:
            return [
                addr for addr in await self._resolver.resolve(*server) if not self._refuse(addr[0])
            ]
        except OSError as error:
            self._complain("stun_failed", *server, error)
            return []

    async def _ask_reflexive(
        self, base: Base, rank: int, lookup: "asyncio.Task[list[Address]]"
    ) -> None:
        """Ask one STUN server how it sees one socket of ours; offer that if it is new."""
        local: Address = base.transport.get_extra_info("sockname")
        at = next((a for a in await lookup if (":" in a[0]) == (":" in local[0])), None)
        if at is None:
            return
        transaction = os.urandom(12)
        answer: asyncio.Future[Address | None] = asyncio.get_running_loop().create_future()
        self._queries[transaction] = at, answer
        try:
            for delay in QUERY_REPEATS:
                base.transport.sendto(binding_request(transaction), at)
                await asyncio.wait([answer], timeout=delay)
                if answer.done():
                    break
        finally:
            del self._queries[transaction]
        mapped = answer.result() if answer.done() else None
        if mapped is not None and mapped != local and mapped not in self._reflexive:
            self._reflexive.add(mapped)
            self._checks.offer(local_candidate("srflx", mapped, rank, local))

    async def _allocate(self, rank: int, server: TurnServer) -> None:
        """Make an allocation on one TURN server and offer it. Failure is logged and counted."""
        try:
            async with asyncio.timeout(ALLOCATION_TIMEOUT):
                await self._open_relay(rank, server)
        except (OSError, SystemRefusal) as error:  # TimeoutError and ssl.SSLError are OSError
            self._complain("turn_failed", server.host, server.port, error)

    async def _open_relay(self, rank: int, server: TurnServer) -> None:
        found = await self._resolver.resolve(server.host, server.port)
        address = next((addr for addr in found if not self._refuse(addr[0])), None)
        if address is None:
            raise OSError("it would be reached through the overlay")
        sock: UdpSocket | None = None
        client: TurnUdp | TurnStream
        if server.transport == "udp":
            client = TurnUdp(address, server, self.counters)
            sock = self._sockets.open(_source_for(address))
            self._open.append(sock)
            SocketTransport(sock, client, self.counters, to=address)
            sock.on_stun = lambda data, addr: self._turn_received(client, data, (addr[0], addr[1]))
        else:
            client = stream = TurnStream(address, server, self.counters)
            tls = ssl.create_default_context() if server.transport == "tls" else None
            name = server.host if tls else None
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: stream, *address, ssl=tls, server_hostname=name)
        relay = RelayTransport(client, sock, self._spawn)
        try:
            relayed = await client.connect()
        except BaseException:
            relay.close()
            self._close_socket(sock)
            raise
        base = Base(self._checks, self._on_data)
        base.connection_made(relay)
        client.receiver = base
        if sock is not None:
            sock.on_channel = relay.channel_received
        self._relays.append(relay)
        stream_rank = rank + MAX_TURN_SERVERS if sock is None else rank
        candidate = local_candidate("relay", relayed, stream_rank, client.mapped_address)
        self._checks.offer(candidate, base)

    def _turn_received(self, client: TurnUdp | TurnStream, data: bytes, addr: Address) -> None:
        if addr == client.server:
            client.datagram_received(data, addr)
        else:
            self.counters["stun_unauthenticated"] += 1

    def _complain(self, counter: str, host: str, port: int, error: Exception) -> None:
        """Count a failure; say so the first time, since every attempt on every link meets it."""
        counter = f"{counter}.{host}:{port}"
        self.counters[counter] += 1
        level = logging.WARNING if self.counters[counter] == 1 else logging.DEBUG
        log.log(level, "server %s port %d: %s", host, port, str(error) or "no answer")

    # --- connecting

    def add_remote(self, candidates: list[str]) -> None:
        """Take candidates of the peer's; those that are malformed or refused only count."""
        ours = [host for host, _ in self._hosts]
        for remote in screen(candidates, self._refuse, ours, self.counters):
            self._checks.add_remote(remote)

    async def connect(self, remote: Description) -> Path:
        """Check until a pair is nominated; raise LinkError after CONNECT_TIMEOUT."""
        self.add_remote(remote.candidates)
        self._connecting = asyncio.get_running_loop().create_future()
        self._checks.start(remote.ufrag, remote.pwd)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await self._connecting
        except TimeoutError:
            raise LinkError(self._why_not()) from None
        finally:
            self._connecting = None
        assert self._path is not None
        self._consent = self._spawn(self._ask_consent())
        return self._path

    def _why_not(self) -> str:
        if not self._checks.remote_candidates:
            return "the peer named no usable address, and no check of its arrived"
        if self._relays:
            relay = "not through TURN either"
        else:
            relay = "no TURN server gave a relay" if self._turn else "no TURN server is configured"
        count = len(self._checks.remote_candidates)
        return f"none of the peer's {count} addresses answered in {CONNECT_TIMEOUT:.0f} s; {relay}"

    def _pair_selected(self, pair: CandidatePair) -> None:
        self._path = self._path_of(pair)
        if self._upkeep is not None:
            self._upkeep.cancel()
        relay = pair.protocol.transport
        if isinstance(relay, RelayTransport):
            channel = relay.client.peer_to_channel[pair.remote_addr]
            self._upkeep = self._spawn(relay.keep(channel, pair.remote_addr))
        elif self._turn and not self._path.relayed:
            self._upkeep = self._spawn(self._free_relays_later())
        if self._connecting is None:
            self._on_path(self._path)
        elif not self._connecting.done():
            self._connecting.set_result(None)

    def _path_of(self, pair: CandidatePair) -> Path:
        path = self._plain_path_of(pair)
        ours, theirs = seen_behind_nat(
            ":" in path.peer_address[0],
            self._reflexive,
            [(c.type, (c.host, c.port)) for c in self._checks.remote_candidates],
        )
        return replace(
            path, behind_nat=ours or path.local in ("srflx", "prflx"), peer_behind_nat=theirs
        )

    def _plain_path_of(self, pair: CandidatePair) -> Path:
        peer, remote = pair.remote_addr, pair.remote_candidate.type
        relay = pair.protocol.transport
        if isinstance(relay, RelayTransport):
            channel = relay.client.peer_to_channel[peer]  # bound, or no check had passed
            server = relay.client.server
            carrier: Carrier = (
                Stream(relay.send_on(channel), server)
                if relay.sock is None
                else Channel(relay.sock, server, channel, self.counters)
            )
            return Path(carrier, "relay", remote, peer)
        local = seen_as(pair.local_addr, self._checks.mapped.get(pair), self._reflexive)
        direct = Direct(self._hosts[pair.local_addr], peer, self.counters)
        return Path(direct, local, remote, peer)

    async def _free_relays_later(self) -> None:
        await asyncio.sleep(RELAY_LINGER)
        while self._relays:
            relay = self._relays.pop()
            await relay.free()
            self._close_socket(relay.sock)

    async def _ask_consent(self) -> None:
        failures = 0
        while failures < CONSENT_FAILURES:
            await asyncio.sleep(CONSENT_INTERVAL * random.uniform(0.8, 1.2))
            pair = self._checks.nominated
            if pair is not None and await self._checks.ask(pair, retransmissions=0):
                failures = 0
            else:
                failures += 1
        self.counters["ice_consent_expired"] += 1  # the link's own liveness draws conclusions

    def stop_consent(self) -> None:
        """End our consent checks: authenticated probes took over. The peer's are answered."""
        if self._consent is not None:
            self._consent.cancel()

    # --- ending

    async def close(self) -> None:
        """Give allocations back, end every task, close every socket; takes FREE_TIMEOUT at most."""
        if self._closed:
            return
        self._closed = True
        self._checks.stop()
        if self._connecting is not None and not self._connecting.done():
            self._connecting.set_exception(LinkError("the negotiation was closed"))
        try:
            while self._tasks:
                for task in self._tasks:
                    task.cancel()
                await asyncio.wait(self._tasks)
            await asyncio.gather(*(relay.free() for relay in self._relays))
            await self._checks.close()
        finally:
            while self._open:
                self._close_socket(self._open[-1])

    def _close_socket(self, sock: UdpSocket | None) -> None:
        if sock is not None and sock in self._open:
            self._open.remove(sock)
            sock.on_stun = sock.on_channel = None
            self._sockets.close(sock)

    def _spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("ICE: a task failed", exc_info=error)


def _source_for(address: Address) -> str:
    """Return the local address from which the kernel would send to ``address``; raise OSError."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(address)  # sends nothing
        return str(probe.getsockname()[0])
