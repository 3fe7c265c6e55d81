"""ICE agents on sockets that we own: the one module that imports aioice.

aioice parses and authenticates STUN, keeps the check list and speaks TURN. Ours is what it leaves
to be wished for: sockets that the pump reads, which candidates there are, when checks are sent
again, which valid pair is nominated, channels that do not expire, and who owns the tasks. What is
private of aioice and used here is pinned by a test (tests/tincan/test_ice.py).

Times are chosen so that a direct path behind easy NATs is up within two round trips of the
answer's arrival, and a relay, where there is no direct path, within HEAD_START and three.
"""

import asyncio
import contextlib
import logging
import os
import random
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, cast

from aioice import Candidate, Connection, stun, turn
from aioice.candidate import candidate_foundation, candidate_priority
from aioice.ice import CandidatePair, StunProtocol

from tincan.candidates import offerable, screen, seen_as, worth_pairing
from tincan.errors import LinkError, SystemRefusal
from tincan.path import MAX_CANDIDATES, Description, Path, Sockets, TurnServer
from tincan.resolve import resolve
from tincan.stun import (
    FIRST_OF_OURS,
    binding_request,
    channel_data,
    is_stun,
    mapped_address,
    transaction_of,
)
from tincan.udp import Address, UdpSocket

log = logging.getLogger(__name__)

STUN_WAIT = 0.5  # s that an offer waits for STUN servers
RELAY_WAIT = 2.0  # s that an offer waits for TURN servers
ALLOCATION_TIMEOUT = 10.0  # s after which a TURN server is given up; a late relay is still used
CONNECT_TIMEOUT = 12.0  # s
CLOSE_TIMEOUT = 0.5  # s for telling TURN servers
PACE = 0.005  # s between first checks, the least of RFC 8445 section 14.2
HEAD_START = 0.5  # s that direct pairs have before a relayed one is nominated
NOMINATION_TIMEOUT = 2.0  # s
# s between repetitions of a check. Denser than RFC 8445 section 14.3 asks for (500 ms and more):
# the first ones are meant to be lost, they open the NAT for the peer's.
REPEATS = (0.1, 0.2, 0.4, 0.8, *(1.0,) * 10)
QUERY_REPEATS = (0.1, 0.2, 0.4, 0.8, 1.6)  # the same for queries to STUN servers
CHANNEL_REFRESH = 240.0  # s; permissions live 300 s, channels 600 s (RFC 8656 sections 9, 12)
RELAY_LINGER = 30.0  # s that allocations outlive the choice of a direct path
CONSENT_INTERVAL = 5.0  # s, and CONSENT_FAILURES of them: RFC 7675
CONSENT_FAILURES = 6

MAX_STUN_SERVERS = 3
MAX_TURN_SERVERS = 3
MAX_REMOTE = 64  # addresses that a peer may tell of or be seen at, in one negotiation
MAX_SENDS = 64  # STUN messages waiting for a TURN server to bind their channel
STREAM_BACKLOG = 1 << 20  # bytes unsent in a stream to a TURN server; beyond it datagrams drop

Waiting, Succeeded = CandidatePair.State.WAITING, CandidatePair.State.SUCCEEDED
Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


def _parse(data: bytes, counters: Counter[str]) -> stun.Message | None:
    """Return the STUN message in ``data``; count what is none."""
    if is_stun(data):
        with contextlib.suppress(ValueError, struct.error):  # struct.error: its length checks
            return stun.parse_message(data)
    counters["stun_malformed"] += 1
    return None


def _relayed(pair: CandidatePair) -> bool:
    return pair.local_candidate.type == "relay" or pair.remote_candidate.type == "relay"


class _Transport(asyncio.DatagramTransport):
    """A socket of ours in the shape that aioice sends through; the pump does the reading."""

    def __init__(self, sock: UdpSocket, counters: Counter[str], to: Address | None = None) -> None:
        super().__init__({"sockname": sock.address})
        self._sock = sock
        self._counters = counters
        self._to = to
        self._protocol: asyncio.DatagramProtocol | None = None

    def serve(self, protocol: asyncio.DatagramProtocol) -> None:
        self._protocol = protocol
        protocol.connection_made(self)

    def sendto(self, data: Any, addr: Any = None) -> None:
        try:
            self._sock.sendto(data, addr or self._to)
        except OSError:  # unreachable, filtered, full: to ICE a lost packet, which it repeats
            self._counters["stun_send_failed"] += 1

    def is_closing(self) -> bool:
        return self._protocol is None

    def close(self) -> None:
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.connection_lost(None)


class _Transaction:
    """One STUN request and its repetitions (RFC 8489 section 6.2.1), denser than aioice's."""

    def __init__(
        self, request: stun.Message, addr: Address, key: bytes | None, send: Callable[[], None]
    ) -> None:
        self.request = request
        self.addr = addr
        self.send = send
        self.hurried = False
        self._key = key
        self._answer: asyncio.Future[tuple[stun.Message, Address]] = asyncio.Future()

    def answered(self, message: stun.Message, addr: Address) -> None:
        if self._answer.done() or (self._key and not message.check_message_integrity(self._key)):
            return
        if message.message_class == stun.Class.RESPONSE:
            self._answer.set_result((message, addr))
        else:
            self._answer.set_exception(stun.TransactionFailed(message))

    async def run(self, repeats: Iterable[float]) -> tuple[stun.Message, Address]:
        for delay in repeats:
            self.send()
            await asyncio.wait([self._answer], timeout=delay)
            if self._answer.done():
                return self._answer.result()
        raise stun.TransactionTimeout


class _Checks(StunProtocol):
    """The STUN side of one local candidate: what arrives there, and the requests sent from it."""

    def __init__(self, negotiation: "_Negotiation", on_data: Callable[[bytes], None]) -> None:
        super().__init__(negotiation)
        self._negotiation = negotiation
        self._on_data = on_data
        self._pending: dict[bytes, _Transaction] = {}

    def datagram_received(self, data: bytes | str, addr: tuple[Any, ...]) -> None:
        datagram = cast(bytes, data)
        if datagram and datagram[0] >= FIRST_OF_OURS:  # through a relay; the pump takes the others
            self._on_data(datagram)
            return
        message = _parse(datagram, self._negotiation.counters)
        if message is None:
            return
        if message.message_class == stun.Class.REQUEST:
            self._negotiation.request_received(message, (addr[0], addr[1]), self)
        elif transaction := self._pending.get(message.transaction_id):
            transaction.answered(message, (addr[0], addr[1]))

    async def request(
        self,
        request: stun.Message,
        addr: Address,
        integrity_key: bytes | None = None,
        retransmissions: int | None = None,
    ) -> tuple[stun.Message, Address]:
        if integrity_key is not None:
            request.add_message_integrity(integrity_key)
        transaction = _Transaction(
            request, addr, integrity_key, lambda: self.send_stun(request, addr)
        )
        self._pending[request.transaction_id] = transaction
        try:
            return await transaction.run(REPEATS if retransmissions is None else REPEATS[3:4])
        finally:
            del self._pending[request.transaction_id]

    def hurry(self, addr: Address) -> None:
        """Repeat at once, once, what was asked of ``addr``: its own check came through."""
        for transaction in self._pending.values():
            if transaction.addr == addr and not transaction.hurried:
                transaction.hurried = True
                transaction.send()


class _Negotiation(Connection):
    """aioice's connection with our rules of checking and nomination.

    Nomination is regular (RFC 8445 section 8.1.1) so that both sides end on the same pair: the
    controlling side checks everything, then nominates one valid pair: a direct one as soon as
    there is one, a relayed one only when direct pairs have had their chance, and a direct one
    still if it turns out valid later.
    """

    def __init__(
        self,
        *,
        controlling: bool,
        refuse: Callable[[str], bool],
        selected: Callable[[CandidatePair], None],
        spawn: Spawn,
        counters: Counter[str],
    ) -> None:
        super().__init__(ice_controlling=controlling)
        self.counters = counters
        self.mapped: dict[CandidatePair, Address | None] = {}  # where the peer saw our check
        self._refuse = refuse
        self._selected = selected
        self._spawn = spawn
        self._more_pairs = asyncio.Event()
        self._nomination: asyncio.Task[None] | None = None
        self._relay_after = 0.0
        self._pacing: asyncio.Task[None] | None = None

    @property
    def nominated(self) -> CandidatePair | None:
        return self._nominated.get(1)

    def add_protocol(self, protocol: _Checks, candidate: Candidate) -> None:
        """Offer and check from one more local candidate; it may come late."""
        protocol.local_candidate = candidate
        self._protocols.append(protocol)
        self.offer(candidate)
        for remote in self._remote_candidates:
            self._pair_remote_candidate(remote)
        self.sort_check_list()

    def offer(self, candidate: Candidate) -> None:
        self._local_candidates.append(candidate)

    def add_remote(self, candidate: Candidate) -> None:
        if len(self._remote_candidates) >= MAX_REMOTE:
            self.counters["ice_candidates_refused"] += 1
            return
        self._add_remote_candidate(candidate, candidate.host)

    def start(self, ufrag: str, pwd: str) -> None:
        """Begin to check. What the peer has checked so far is taken up."""
        self.remote_username, self.remote_password = ufrag, pwd
        loop = asyncio.get_running_loop()
        self._relay_after = loop.time() + HEAD_START
        loop.call_later(HEAD_START, self._choose)
        self._early_checks_done = True
        for check in self._early_checks:
            self.check_incoming(*check)
        self._early_checks.clear()
        self._pacing = self._spawn(self._pace())

    async def _pace(self) -> None:
        # Nothing is left frozen (RFC 8445 section 6.1.2.6): that spares checks between many
        # components; with one, it only costs time.
        while True:
            self._more_pairs.clear()
            for pair in self._check_list:
                if pair.task is None and pair.state in (Waiting, CandidatePair.State.FROZEN):
                    self.check_start_task(pair)
                    await asyncio.sleep(PACE)
                    break
            else:
                await self._more_pairs.wait()

    # What aioice calls.

    def _pair_remote_candidate(self, remote_candidate: Candidate) -> None:
        for protocol in self._protocols:
            local = protocol.local_candidate
            if (
                local.can_pair_with(remote_candidate)
                and worth_pairing(local.type, local.host, remote_candidate.host)
                and not self._find_pair(protocol, remote_candidate)
            ):
                self._check_list.append(CandidatePair(protocol, remote_candidate))
        self._more_pairs.set()

    def request_received(
        self, message: stun.Message, addr: Address, protocol: StunProtocol
    ) -> None:
        known = any((c.host, c.port) == addr for c in self._remote_candidates)
        if "PRIORITY" not in message.attributes:  # where aioice raises KeyError
            self.counters["stun_malformed"] += 1
        elif not known and (
            len(self._remote_candidates) >= MAX_REMOTE
            or (protocol.local_candidate.type != "relay" and self._refuse(addr[0]))
        ):
            self.counters["ice_candidates_refused"] += 1
        else:
            super().request_received(message, addr, protocol)

    def respond_error(
        self,
        request: stun.Message,
        addr: Address,
        protocol: StunProtocol,
        error_code: tuple[int, str],
    ) -> None:
        self.counters["stun_unauthenticated"] += 1  # strangers get silence

    def switch_role(self, ice_controlling: bool) -> None:
        self.counters["ice_role_conflict"] += 1  # the order of the ids gives the roles, not chance

    def check_incoming(self, message: stun.Message, addr: Address, protocol: StunProtocol) -> None:
        super().check_incoming(message, addr, protocol)
        cast(_Checks, protocol).hurry(addr)

    def check_start_task(self, pair: CandidatePair) -> None:
        if pair.task is None:
            pair.task = self._spawn(self.check_start(pair))

    async def check_start(self, pair: CandidatePair) -> None:
        self.check_state(pair, CandidatePair.State.IN_PROGRESS)
        valid = await self.ask(pair)
        pair.nominated = valid and pair.remote_nominated
        self.check_state(pair, Succeeded if valid else CandidatePair.State.FAILED)
        self.check_complete(pair)

    def check_complete(self, pair: CandidatePair) -> None:
        pair.task = None
        if pair.state is Succeeded and pair.nominated and pair is not self.nominated:
            self._nominated[1] = pair
            self._drop_checks(direct_too=not _relayed(pair))
            self._selected(pair)
        self._choose()

    # The rules.

    async def ask(
        self, pair: CandidatePair, *, nominate: bool = False, retransmissions: int | None = None
    ) -> bool:
        """Whether the peer answers a check of ``pair``, and from where it was asked."""
        assert self.remote_password is not None  # checks only start when it is known
        try:
            response, source = await pair.protocol.request(
                self.build_request(pair, nominate=nominate),
                pair.remote_addr,
                self.remote_password.encode(),
                retransmissions,
            )
        except stun.TransactionError:
            return False
        self.mapped[pair] = response.attributes.get("XOR-MAPPED-ADDRESS")
        return source == pair.remote_addr  # RFC 8445 section 7.2.5.2.1

    def _choose(self) -> None:
        """Nominate a valid pair, if it is time and ours to."""
        current = self.nominated
        if not self.ice_controlling or self._closing or self._nomination is not None:
            return
        if current is not None and not _relayed(current):
            return
        valid = [pair for pair in self._check_list if pair.state is Succeeded]  # best first
        direct = next((pair for pair in valid if not _relayed(pair)), None)
        if direct is not None:
            self._nomination = self._spawn(self._nominate(direct))
        elif valid and current is None and self._direct_had_its_chance():
            self._nomination = self._spawn(self._nominate(valid[0]))

    def _direct_had_its_chance(self) -> bool:
        return asyncio.get_running_loop().time() >= self._relay_after or not any(
            pair.state not in (Succeeded, CandidatePair.State.FAILED)
            for pair in self._check_list
            if not _relayed(pair)
        )

    async def _nominate(self, pair: CandidatePair) -> None:
        agreed = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(NOMINATION_TIMEOUT):
                agreed = await self.ask(pair, nominate=True)
        self._nomination = None
        pair.nominated = agreed
        if not agreed:
            self.check_state(pair, CandidatePair.State.FAILED)
        self.check_complete(pair)

    def _drop_checks(self, direct_too: bool) -> None:
        """End the checks that can no longer win; what the peer checks is still answered."""
        if direct_too and self._pacing is not None:
            self._pacing.cancel()
        for pair in self._check_list:
            if pair.state is not Succeeded and (direct_too or _relayed(pair)):
                if pair.task is not None:
                    pair.task.cancel()
                    pair.task = None
                self.check_state(pair, CandidatePair.State.FAILED)


class _TurnGuard:
    """In front of aioice's TURN clients: nothing that arrives raises, and channels come early."""

    counters: Counter[str]
    channel_to_peer: dict[int, Address]

    def datagram_received(self, data: bytes | str, addr: Address) -> None:
        datagram = cast(bytes, data)
        if turn.is_channel_data(datagram) or _parse(datagram, self.counters) is not None:
            super().datagram_received(datagram, addr)  # type: ignore[misc]

    async def channel_bind(self, channel_number: int, addr: Address) -> None:
        # The response and the first ChannelData may arrive in one batch.
        self.channel_to_peer[channel_number] = addr
        await super().channel_bind(channel_number, addr)  # type: ignore[misc]


class _TurnUdp(_TurnGuard, turn.TurnClientUdpProtocol):
    pass


class _TurnStream(_TurnGuard, turn.TurnClientTcpProtocol):
    pass


class _Relay(asyncio.DatagramTransport):
    """A TURN allocation as a transport whose tasks are owned (aioice's own are not)."""

    def __init__(
        self, client: _TurnUdp | _TurnStream, sock: UdpSocket | None, spawn: Spawn
    ) -> None:
        super().__init__()
        self.client = client
        self.sock = sock
        self._spawn = spawn
        self._sends = 0

    def sendto(self, data: Any, addr: Any = None) -> None:
        if self.is_closing() or self._sends >= MAX_SENDS:
            self.client.counters["stun_send_failed"] += 1
            return
        self._sends += 1
        self._spawn(self._send(data, addr))

    async def _send(self, data: bytes, addr: Address) -> None:
        try:
            await self.client.send_data(data, addr)
        except (OSError, stun.TransactionError):  # 403 for this peer, or the server is gone
            self.client.counters["turn_bind_failed"] += 1
        finally:
            self._sends -= 1

    def send_on(self, channel: int) -> Callable[[bytes], None]:
        """Return the function that sends a datagram to the peer of ``channel`` by stream."""
        stream = cast(asyncio.Transport, self.client.transport)

        def send(datagram: bytes) -> None:
            if stream.is_closing() or stream.get_write_buffer_size() > STREAM_BACKLOG:
                self.client.counters["relay_backlog"] += 1
            else:
                stream.write(channel_data(channel, datagram) + bytes(-len(datagram) % 4))

        return send

    async def keep(self, channel: int, peer: Address) -> None:
        """Refresh the channel, and with it the permission, for as long as this runs."""
        while True:
            await asyncio.sleep(CHANNEL_REFRESH)
            try:
                await self.client.channel_bind(channel, peer)
            except (OSError, stun.TransactionError) as error:
                self.client.counters["turn_refresh_failed"] += 1
                log.warning("TURN server %s no longer relays: %s", self.client.server, error)

    def is_closing(self) -> bool:
        return bool(self.client.transport.is_closing())

    def close(self) -> None:
        self.client.transport.close()  # comes back to the protocol as connection_lost

    async def free(self) -> None:
        """Give the allocation back, if the server answers in time."""
        refreshing = self.client.refresh_task
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self.client.delete()
        if refreshing is not None:
            await asyncio.wait([refreshing])


class IceAgent:
    """One negotiation with one peer: gather, exchange descriptions, connect, close.

    ``addresses`` returns the local addresses that may be offered, ``refuse`` whether a remote one
    would be routed through the overlay. ``on_data`` gets datagrams of ours that came through a
    TURN server other than as ChannelData on a socket: the pump sees those. ``on_path`` is called
    whenever the path changes after ``connect`` has returned one. ``ports`` asks for the same
    source ports as last time, by local address. There is no restart: negotiate with a new agent.
    """

    def __init__(
        self,
        *,
        controlling: bool,
        sockets: Sockets,
        stun: list[Address],
        turn: list[TurnServer],
        addresses: Callable[[], list[str]],
        refuse: Callable[[str], bool],
        on_data: Callable[[bytes], None],
        on_path: Callable[[Path], None],
        counters: Counter[str] | None = None,
        ports: Mapping[str, int] | None = None,
    ) -> None:
        self.counters: Counter[str] = Counter() if counters is None else counters
        self._sockets = sockets
        self._stun = stun[:MAX_STUN_SERVERS]
        self._turn = turn[:MAX_TURN_SERVERS]
        self._addresses = addresses
        self._refuse = refuse
        self._on_data = on_data
        self._on_path = on_path
        self._wanted_ports = dict(ports or {})
        self._hosts: list[UdpSocket] = []
        self._relays: list[_Relay] = []
        self._open: list[UdpSocket] = []
        self._queries: dict[bytes, tuple[Address, asyncio.Future[Address | None]]] = {}
        self._reflexive: set[Address] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._keeping: asyncio.Task[None] | None = None
        self._consent: asyncio.Task[None] | None = None
        self._connected: asyncio.Future[None] | None = None
        self._closed = False
        self._path: Path | None = None
        self._negotiation = _Negotiation(
            controlling=controlling,
            refuse=refuse,
            selected=self._pair_selected,
            spawn=self._spawn,
            counters=self.counters,
        )

    @property
    def path(self) -> Path | None:
        """The path in use, None before there is one."""
        return self._path

    @property
    def ports(self) -> dict[str, int]:
        """The source port on each local address, to ask for again."""
        return {sock.address[0]: sock.address[1] for sock in self._hosts}

    @property
    def description(self) -> Description:
        """What the peer must know, as of now: candidates may still come after ``gather``."""
        lines = [candidate.to_sdp() for candidate in self._negotiation.local_candidates]
        ice = self._negotiation
        return Description(ice.local_username, ice.local_password, lines[:MAX_CANDIDATES])

    # Gathering.

    async def gather(self) -> Description:
        """Open sockets, ask the servers, return our description within RELAY_WAIT.

        Raise LinkError if there is nothing to offer.
        """
        loop = asyncio.get_running_loop()
        start = loop.time()
        queries = []
        for rank, host in enumerate(offerable(self._addresses())):
            protocol = self._open_host(host, rank)
            if protocol is not None:
                for server in self._stun:
                    queries.append(self._spawn(self._ask_reflexive(protocol, rank, server)))
        relays = [self._spawn(self._allocate(*item)) for item in enumerate(self._turn)]
        await self._reflexive_or_late(queries, start)
        if relays:
            await asyncio.wait(relays, timeout=max(0.0, start + RELAY_WAIT - loop.time()))
        if not self._negotiation.local_candidates:
            raise LinkError("no local address can be offered, and no TURN server answers")
        return self.description

    def _open_host(self, host: str, rank: int) -> _Checks | None:
        sock = None
        for port in dict.fromkeys((self._wanted_ports.get(host, 0), 0)):
            with contextlib.suppress(SystemRefusal):  # port taken, or address gone meanwhile
                sock = self._sockets.open(host, port)
                break
        if sock is None:
            self.counters["ice_bind_failed"] += 1
            return None
        self._hosts.append(sock)
        self._open.append(sock)
        protocol = _Checks(self._negotiation, self._on_data)
        _Transport(sock, self.counters).serve(protocol)
        sock.on_stun = lambda data, addr: self._stun_received(protocol, data, (addr[0], addr[1]))
        self._negotiation.add_protocol(protocol, _candidate("host", sock.address, rank))
        return protocol

    def _stun_received(self, protocol: _Checks, data: bytes, addr: Address) -> None:
        server, answer = self._queries.get(transaction_of(data), (None, None))
        if answer is None:
            protocol.datagram_received(data, addr)
        elif addr == server and not answer.done():
            answer.set_result(mapped_address(data))

    async def _reflexive_or_late(self, queries: list["asyncio.Task[None]"], start: float) -> None:
        """Wait for STUN servers; when one has answered, for the others only as long again."""
        loop = asyncio.get_running_loop()
        deadline = start + STUN_WAIT
        pending = set(queries)
        while pending and loop.time() < deadline:
            _, pending = await asyncio.wait(
                pending, timeout=deadline - loop.time(), return_when=asyncio.FIRST_COMPLETED
            )
            if self._reflexive:
                deadline = min(deadline, start + 2 * (loop.time() - start) + PACE)

    async def _ask_reflexive(self, protocol: _Checks, rank: int, server: Address) -> None:
        """Ask one STUN server how it sees one socket; offer that if it is news."""
        base: Address = protocol.transport.get_extra_info("sockname")
        try:
            found = await resolve(*server)
        except OSError as error:
            self.counters["stun_unresolved"] += 1
            log.warning("STUN server: %s", error)
            return
        same_family = [a for a in found if (":" in a[0]) == (":" in base[0])]
        if not same_family or self._refuse(same_family[0][0]):
            return
        transaction = os.urandom(12)
        answer: asyncio.Future[Address | None] = asyncio.get_running_loop().create_future()
        self._queries[transaction] = (same_family[0], answer)
        try:
            for delay in QUERY_REPEATS:
                protocol.transport.sendto(binding_request(transaction), same_family[0])
                await asyncio.wait([answer], timeout=delay)
                if answer.done():
                    break
        finally:
            del self._queries[transaction]
        mapped = answer.result() if answer.done() else None
        if mapped is not None and mapped != base and mapped not in self._reflexive:
            self._reflexive.add(mapped)
            self._negotiation.offer(_candidate("srflx", mapped, rank, base))

    async def _allocate(self, rank: int, server: TurnServer) -> None:
        """Make an allocation on one TURN server and offer it. Failure is logged and counted."""
        try:
            async with asyncio.timeout(ALLOCATION_TIMEOUT):
                await self._open_relay(rank, server)
        except (OSError, SystemRefusal, stun.TransactionError) as error:
            self.counters["turn_failed"] += 1
            reason = str(error) or "no answer"
            log.warning("TURN server %s port %d: %s", server.host, server.port, reason)

    async def _open_relay(self, rank: int, server: TurnServer) -> None:
        address = next(
            (a for a in await resolve(server.host, server.port) if not self._refuse(a[0])), None
        )
        if address is None:
            raise OSError("it would be reached through the overlay")
        client: _TurnUdp | _TurnStream
        sock: UdpSocket | None = None
        settings = (server.user, server.password, turn.DEFAULT_ALLOCATION_LIFETIME)
        if server.transport == "udp":
            client = _TurnUdp(address, *settings, CHANNEL_REFRESH)  # type: ignore[arg-type]
            client.counters = self.counters
            sock = self._sockets.open(_source_for(address))
            self._open.append(sock)
            _Transport(sock, self.counters, address).serve(client)
        else:
            client = _TurnStream(address, *settings, CHANNEL_REFRESH)  # type: ignore[arg-type]
            client.counters = self.counters
            tls = ssl.create_default_context() if server.transport == "tls" else None
            await asyncio.get_running_loop().create_connection(
                lambda: client,
                *address,
                ssl=tls,
                server_hostname=server.host if tls else None,
            )
        relay = _Relay(client, sock, self._spawn)
        protocol = _Checks(self._negotiation, self._on_data)
        protocol.connection_made(relay)
        if sock is not None:
            sock.on_stun = client.datagram_received
            sock.on_channel = lambda data, channel: _channel_received(client, data, channel)
        try:
            relayed = await client.connect()
        except BaseException:
            client.transport.close()
            raise
        client.receiver = protocol
        self._relays.append(relay)
        pref = rank if server.transport == "udp" else rank + MAX_TURN_SERVERS
        candidate = _candidate("relay", relayed, pref, client.mapped_address)
        self._negotiation.add_protocol(protocol, candidate)

    # Connecting.

    def add_remote(self, candidates: list[str]) -> None:
        """Take candidates of the peer's; count those that are malformed or refused."""
        ours = [sock.address[0] for sock in self._hosts]
        extra = len(candidates[MAX_CANDIDATES:])
        usable, malformed, refused = screen(candidates[:MAX_CANDIDATES], self._refuse, ours)
        self.counters["ice_candidates_malformed"] += malformed
        self.counters["ice_candidates_refused"] += refused + extra
        for remote in usable:
            self._negotiation.add_remote(
                Candidate(
                    foundation=remote.foundation,
                    component=1,
                    transport="udp",
                    priority=remote.priority,
                    host=remote.host,
                    port=remote.port,
                    type=remote.kind,
                )
            )

    async def connect(self, remote: Description) -> Path:
        """Check the pairs until one is nominated; raise LinkError after CONNECT_TIMEOUT."""
        self.add_remote(remote.candidates)
        self._connected = asyncio.get_running_loop().create_future()
        self._negotiation.start(remote.ufrag, remote.pwd)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await self._connected
        except TimeoutError:
            raise LinkError(self._why_not()) from None
        finally:
            self._connected = None
        assert self._path is not None
        if self._consent is None:
            self._consent = self._spawn(self._ask_consent())
        return self._path

    def _why_not(self) -> str:
        pairs = len(self._negotiation.remote_candidates)
        if not pairs:
            return "the peer named no usable address, and none of its checks arrived"
        if self._relays:
            relay = "not even through TURN"
        else:
            relay = "TURN gave no relay" if self._turn else "no TURN server is configured"
        return f"none of the peer's {pairs} addresses answered in {CONNECT_TIMEOUT:.0f} s; {relay}"

    def _pair_selected(self, pair: CandidatePair) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            self._keeping = None
        self._path = self._path_of(pair)
        if self._relays and not self._path.relayed:
            self._keeping = self._spawn(self._free_relays_later())
        if self._connected is None:
            self._on_path(self._path)
        elif not self._connected.done():
            self._connected.set_result(None)

    def _path_of(self, pair: CandidatePair) -> Path:
        peer, remote = pair.remote_addr, pair.remote_candidate.type
        relay = pair.protocol.transport
        if not isinstance(relay, _Relay):
            sock = next(s for s in self._hosts if s.address == pair.local_addr)
            local = seen_as(sock.address, self._negotiation.mapped.get(pair), self._reflexive)
            return Path(sock, peer, None, local, remote, peer)
        channel = relay.client.peer_to_channel[peer]  # bound, or no check had passed
        self._keeping = self._spawn(relay.keep(channel, peer))
        sender = None if relay.sock else relay.send_on(channel)
        return Path(relay.sock, relay.client.server, channel, "relay", remote, peer, sender)

    async def _free_relays_later(self) -> None:
        await asyncio.sleep(RELAY_LINGER)
        for relay in self._relays:
            await relay.free()
        self._relays.clear()

    async def _ask_consent(self) -> None:
        failures = 0
        while failures < CONSENT_FAILURES:
            await asyncio.sleep(CONSENT_INTERVAL * random.uniform(0.8, 1.2))  # RFC 7675 5.1
            pair = self._negotiation.nominated
            if pair is None or await self._negotiation.ask(pair, retransmissions=0):
                failures = 0
            else:
                failures += 1
        self.counters["ice_consent_expired"] += 1

    def stop_consent(self) -> None:
        """End our consent checks: authenticated probes do better. The peer's are answered."""
        if self._consent is None:
            self._consent = self._spawn(asyncio.sleep(0))
        self._consent.cancel()

    # Ending.

    async def close(self) -> None:
        """Give allocations back, end every task, close every socket; within CLOSE_TIMEOUT."""
        if self._closed:
            return
        self._closed = True
        if self._connected is not None and not self._connected.done():
            self._connected.set_exception(LinkError("the negotiation was closed"))
        try:
            for task in (tasks := list(self._tasks)):
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
            await asyncio.gather(*(relay.free() for relay in self._relays))
            await self._negotiation.close()
        finally:
            for sock in self._open:
                sock.on_stun = sock.on_channel = None
                self._sockets.close(sock)
            self._open.clear()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("ICE: a task failed", exc_info=error)


def _candidate(kind: str, address: Address, rank: int, base: Address | None = None) -> Candidate:
    """Return a local candidate; of one kind, a lower ``rank`` is preferred."""
    host, port = address
    return Candidate(
        foundation=candidate_foundation(kind, "udp", (base or address)[0])[:32],
        component=1,
        transport="udp",
        priority=candidate_priority(1, kind, 65535 - rank),
        host=host,
        port=port,
        type=kind,
        related_address=base[0] if base else None,
        related_port=base[1] if base else None,
    )


def _source_for(address: Address) -> str:
    """Return the local address from which the kernel would send to ``address``; raise OSError."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(address)  # sends nothing
        return str(probe.getsockname()[0])


def _channel_received(client: _TurnUdp | _TurnStream, data: bytes, channel: int) -> None:
    peer = client.channel_to_peer.get(channel)
    if peer is not None and client.receiver is not None:
        client.receiver.datagram_received(data, peer)
