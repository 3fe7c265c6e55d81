"""The check list: which pairs are checked when, and which one is nominated."""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

from tincan.device.udp import Address
from tincan.ice.candidates import Remote, worth_pairing
from tincan.ice.library import Candidate, CandidatePair, Connection, StunProtocol, parse, stun
from tincan.ice.sockets import Spawn
from tincan.ice.stun import FIRST_OF_OURS

PACE: Final = 0.005
"""Seconds between first checks, the least of RFC 8445 section 14.2."""
REPEATS: Final = (0.1, 0.2, 0.4, 0.8, *(1.0,) * 10)
"""Seconds between repetitions of a check, about CONNECT_TIMEOUT in all.

Denser than RFC 8445 section 14.3 asks for (500 ms and more): the first ones are meant to be lost,
they open the NAT.
"""
HEAD_START: Final = 0.5
"""Seconds that direct pairs have before a relayed one is nominated."""
NOMINATION_TIMEOUT: Final = 2.0
"""Seconds."""
MAX_REMOTE: Final = 64
"""Addresses that a peer may tell of or be seen at, in one negotiation."""
MAX_NOMINATIONS: Final = 16
"""Nominations remembered, to tell a repeated one from a new one."""

WAITING, IN_PROGRESS = CandidatePair.State.WAITING, CandidatePair.State.IN_PROGRESS
SUCCEEDED, FAILED = CandidatePair.State.SUCCEEDED, CandidatePair.State.FAILED
FROZEN = CandidatePair.State.FROZEN


def is_relayed(pair: CandidatePair) -> bool:
    """Return whether a TURN server, ours or the peer's, would forward what goes this way."""
    return "relay" in (pair.local_candidate.type, pair.remote_candidate.type)


class Transaction:
    """One request and its repetitions (RFC 8489 section 6.2.1), denser than aioice's."""

    def __init__(self, addr: Address, key: bytes | None, send: Callable[[], None]) -> None:
        self.addr = addr
        self.hurried = False
        self.send = send
        self._key = key
        self._answer: asyncio.Future[tuple[stun.Message, Address]] = asyncio.Future()

    def answered(self, message: stun.Message, addr: Address) -> None:
        """Take a response, if it is authentic."""
        if self._key is None or message.check_message_integrity(self._key):
            with contextlib.suppress(asyncio.InvalidStateError):
                self._answer.set_result((message, addr))

    async def run(self, repeats: Iterable[float]) -> tuple[stun.Message, Address]:
        """Send until answered; raise stun.TransactionError."""
        for delay in repeats:
            self.send()
            await asyncio.wait([self._answer], timeout=delay)
            if self._answer.done():
                message, addr = self._answer.result()
                if message.message_class != stun.Class.RESPONSE:
                    raise stun.TransactionFailed(message)
                return message, addr
        raise stun.TransactionTimeout


class Base(StunProtocol):
    """A base (RFC 8445 section 5.1.1): the host or relayed candidate that checks are sent from."""

    def __init__(self, checks: "CheckList", on_data: Callable[[bytes], None]) -> None:
        super().__init__(checks)
        self._checks = checks
        self._on_data = on_data
        self._pending: dict[bytes, Transaction] = {}

    def datagram_received(self, data: bytes | str, addr: tuple[Any, ...]) -> None:
        """Take a datagram that is not a record of a path: STUN, or anything through a relay."""
        datagram = cast(bytes, data)
        if datagram and datagram[0] >= FIRST_OF_OURS:
            self._on_data(datagram)
            return
        message = parse(datagram, self._checks.counters)
        if message is None:
            return
        if message.message_class == stun.Class.REQUEST:
            self._checks.request_received(message, (addr[0], addr[1]), self)
        elif transaction := self._pending.get(message.transaction_id):
            transaction.answered(message, (addr[0], addr[1]))

    async def request(
        self,
        request: stun.Message,
        addr: Address,
        integrity_key: bytes | None = None,
        retransmissions: int | None = None,
    ) -> tuple[stun.Message, Address]:
        """Return the answer to ``request`` and its sender; raise stun.TransactionError.

        0 ``retransmissions``: ask once; None: as often as REPEATS says.
        """
        if integrity_key is not None:
            request.add_message_integrity(integrity_key)
        transaction = Transaction(addr, integrity_key, lambda: self.send_stun(request, addr))
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


class CheckList(Connection):
    """aioice's connection with our rules of checking and nominating.

    Nomination is regular (RFC 8445 section 8.1.1), so that both sides end on the same pair: the
    controlling side checks all, then nominates one valid pair: a direct one as soon as there is
    one; a relayed one when direct pairs have had HEAD_START, and a direct one still if it turns
    out valid later. ``selected`` is called with each pair that both sides agree on.
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
        self.mapped: dict[CandidatePair, Address] = {}  # where the peer saw our check come from
        self._refuse = refuse
        self._selected = selected
        self._spawn = spawn
        self._relays_after = 0.0  # loop time
        self._more_pairs = asyncio.Event()
        self._pacing: asyncio.Task[None] | None = None
        self._nomination: asyncio.Task[None] | None = None
        self._nominations: deque[bytes] = deque(maxlen=MAX_NOMINATIONS)  # the peer's transactions

    @property
    def nominated(self) -> CandidatePair | None:
        """Return the pair that both sides agree on, or None."""
        return self._nominated.get(1)

    def offer(self, candidate: Candidate, base: Base | None = None) -> None:
        """Offer one more candidate; if it is a ``base``, check from it. It may come late."""
        self._local_candidates.append(candidate)
        if base is not None:
            base.local_candidate = candidate
            self._protocols.append(base)
            for remote in self._remote_candidates:
                self._pair_remote_candidate(remote)
            self.sort_check_list()

    def add_remote(self, remote: Remote) -> None:
        """Check one more candidate of the peer's."""
        if len(self._remote_candidates) >= MAX_REMOTE:
            self.counters["ice_candidates_refused"] += 1
            return
        foundation, priority, host, port, kind = remote
        self._add_remote_candidate(
            Candidate(foundation, 1, "udp", priority, host, port, kind), host
        )

    def start(self, ufrag: str, pwd: str) -> None:
        """Begin to check with the peer's credentials. What it has checked so far is taken up."""
        self.remote_username, self.remote_password = ufrag, pwd
        loop = asyncio.get_running_loop()
        self._relays_after = loop.time() + HEAD_START
        loop.call_later(HEAD_START, self._choose)
        self._early_checks_done = True
        for check in self._early_checks:
            self.check_incoming(*check)
        self._early_checks.clear()
        self._pacing = self._spawn(self._pace())

    def stop(self) -> None:
        """Start no check any more, whatever arrives."""
        self._closing = True

    async def _pace(self) -> None:
        # Nothing is left frozen (RFC 8445 section 6.1.2.6): with one component, that only costs.
        while True:
            self._more_pairs.clear()
            for pair in self._check_list:
                if pair.task is None and pair.state in (WAITING, FROZEN):
                    self.check_start_task(pair)
                    await asyncio.sleep(PACE)
                    break
            else:
                await self._more_pairs.wait()

    # --- what aioice calls

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
        known = any((remote.host, remote.port) == addr for remote in self._remote_candidates)
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
        if "USE-CANDIDATE" in message.attributes:
            # The latest nomination counts: a repeated one may be overtaken by its successor.
            if message.transaction_id in self._nominations:
                del message.attributes["USE-CANDIDATE"]
            else:
                self._nominations.append(message.transaction_id)
                for pair in self._check_list:
                    pair.remote_nominated = False
        super().check_incoming(message, addr, protocol)
        cast(Base, protocol).hurry(addr)

    def check_start_task(self, pair: CandidatePair) -> None:
        if pair.task is None:
            pair.task = self._spawn(self.check_start(pair))

    async def check_start(self, pair: CandidatePair) -> None:
        self.check_state(pair, IN_PROGRESS)
        valid = await self.ask(pair)
        pair.nominated = valid and pair.remote_nominated
        self.check_state(pair, SUCCEEDED if valid else FAILED)
        self.check_complete(pair)

    def check_complete(self, pair: CandidatePair) -> None:
        pair.task = None
        if pair.state is SUCCEEDED and pair.nominated and pair is not self.nominated:
            self._nominated[1] = pair
            self._drop_checks(relayed_only=is_relayed(pair))
            self._selected(pair)
        self._choose()

    # --- the rules

    async def ask(
        self, pair: CandidatePair, *, nominate: bool = False, retransmissions: int | None = None
    ) -> bool:
        """Check ``pair`` (RFC 8445 section 7.2.5); return whether the peer answers."""
        assert self.remote_password is not None  # nothing is checked before ``start``
        try:
            response, source = await pair.protocol.request(
                self.build_request(pair, nominate=nominate),
                pair.remote_addr,
                self.remote_password.encode(),
                retransmissions,
            )
        except stun.TransactionError:
            return False
        if mapped := response.attributes.get("XOR-MAPPED-ADDRESS"):
            self.mapped[pair] = mapped
        return source == pair.remote_addr

    def _choose(self) -> None:
        """Nominate a valid pair, if that is ours to do and the time has come."""
        current = self.nominated
        if not self.ice_controlling or self._closing or self._nomination is not None:
            return
        if current is not None and not is_relayed(current):
            return
        valid = [pair for pair in self._check_list if pair.state is SUCCEEDED]  # best first
        direct = next((pair for pair in valid if not is_relayed(pair)), None)
        if direct is not None:
            self._nomination = self._spawn(self._nominate(direct))
        elif valid and current is None and self._direct_had_its_chance():
            self._nomination = self._spawn(self._nominate(valid[0]))

    def _direct_had_its_chance(self) -> bool:
        return asyncio.get_running_loop().time() >= self._relays_after or all(
            pair.state is FAILED for pair in self._check_list if not is_relayed(pair)
        )

    async def _nominate(self, pair: CandidatePair) -> None:
        agreed = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(NOMINATION_TIMEOUT):
                agreed = await self.ask(pair, nominate=True)
        self._nomination = None
        pair.nominated = agreed
        self.check_state(pair, SUCCEEDED if agreed else FAILED)
        self.check_complete(pair)

    def _drop_checks(self, relayed_only: bool) -> None:
        """End the checks that can no longer win. What the peer checks is still answered."""
        if not relayed_only and self._pacing is not None:
            self._pacing.cancel()
        for pair in self._check_list:
            if pair.state is not SUCCEEDED and (is_relayed(pair) or not relayed_only):
                if pair.task is not None:
                    pair.task.cancel()
                    pair.task = None
                self.check_state(pair, FAILED)
