"""The rendezvous without its sockets: the members of each network, and what they hear. Pure.

The adapter (server.py) numbers its connections, feeds ``opened``, ``received`` and
``closed``, and carries out what they return, in order. A connection's life:

    CHALLENGED --join proven--> MEMBER --closed, replaced or malformed--> (forgotten)
        `------refused or closed-----------------------------------------> (forgotten)

The first member of a network pins the network's membership key: for as long as the network
has members, and ``Limits.pin_grace`` after, the name belongs to those who hold that secret.
Networks pinned from the start (``pins``) stay so, and then no others are served.
"""

import enum
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from controller.errors import SignalError, one_line
from controller.signal.rendezvous.quota import Limits
from controller.signal.websocket.messages import (
    PAGE_MEMBERS,
    VERSION,
    Challenge,
    Join,
    Joined,
    Left,
    Member,
    Members,
    Message,
    Reason,
    Refused,
    Send,
    decode_from_node,
    encode,
)
from controller.signal.websocket.proof import proven
from tincan.crypto.primitives import PrivateKey, same


@dataclass(frozen=True, slots=True)
class Transmit:
    """Put ``data`` on the queue of connection ``client``; drop the connection if it is full."""

    client: int
    data: bytes


@dataclass(frozen=True, slots=True)
class HangUp:
    """Close connection ``client`` once its queue is empty. It is already forgotten here."""

    client: int


@dataclass(frozen=True, slots=True)
class Log:
    """A line for the operator. Strangers can cause these: the adapter limits their rate."""

    text: str


Output: TypeAlias = Transmit | HangUp | Log


class Phase(enum.Enum):
    """The states of a connection in the picture above."""

    CHALLENGED = enum.auto()
    MEMBER = enum.auto()


@dataclass(slots=True)
class _Client:
    number: int
    address: str
    challenge: Challenge
    phase: Phase = Phase.CHALLENGED
    network: str = ""
    member: Member | None = None


@dataclass(slots=True)
class _Network:
    key: bytes
    permanent: bool = False
    members: dict[str, _Client] = field(default_factory=dict)
    empty_since: float = 0.0
    """When the last member left; it means something only while there are no members."""


class Registry:
    """All networks of one rendezvous. ``counters`` keys start with ``signal_``."""

    def __init__(
        self,
        private: PrivateKey,
        *,
        pins: Mapping[str, bytes] | None = None,
        limits: Limits | None = None,
        counters: Counter[str] | None = None,
    ) -> None:
        """Begin without members. ``pins``: by name the membership key; ``private``: of this run."""
        self.counters: Counter[str] = Counter() if counters is None else counters
        self._private = private
        self._limits = limits or Limits()
        self._only_pinned = bool(pins)
        self._networks = {name: _Network(key, permanent=True) for name, key in (pins or {}).items()}
        self._clients: dict[int, _Client] = {}

    @property
    def members(self) -> dict[str, int]:
        """Number of members of each network that has any."""
        return {name: len(net.members) for name, net in self._networks.items() if net.members}

    def opened(self, client: int, address: str, nonce: bytes) -> list[Output]:
        """Challenge a new connection. ``nonce``: 32 random bytes; ``address`` is for the log."""
        challenge = Challenge(VERSION, nonce, self._private.public)
        self._clients[client] = _Client(client, address, challenge)
        return [Transmit(client, encode(challenge))]

    def received(self, client: int, data: bytes, now: float) -> list[Output]:
        """Handle a message of connection ``client``; nothing in it makes this raise."""
        known = self._clients.get(client)
        if known is None:  # refused or replaced, and still talking
            return []
        try:
            message = decode_from_node(data)
        except SignalError as error:
            self.counters[error.reason] += 1
            return self._refuse(known, Reason.MALFORMED, now)
        match known.phase, message:
            case Phase.CHALLENGED, Join():
                return self._join(known, message, now)
            case Phase.MEMBER, Send():
                return self._relay(known, message)
            case _:
                self.counters["signal_out_of_turn"] += 1
                return self._refuse(known, Reason.MALFORMED, now)

    def closed(self, client: int, now: float) -> list[Output]:
        """Forget connection ``client``, which has ended for whatever reason."""
        known = self._clients.get(client)
        return [] if known is None else self._forget(known, now)

    # --- joining

    def _join(self, client: _Client, join: Join, now: float) -> list[Output]:
        reason = self._objection(client, join, now)
        if reason is not None:
            return self._refuse(client, reason, now, join)
        # Proven: from here on things are allocated, and others hear of it.
        network = self._networks.get(join.network)
        if network is None or not same(network.key, join.key):
            self._make_room(now)
            network = self._networks[join.network] = _Network(join.key)
        output: list[Output] = []
        older = network.members.get(join.node)
        if older is not None:
            self.counters["signal_replaced"] += 1
            del self._clients[older.number]
            output += [self._refusal(older.number, Reason.REPLACED), HangUp(older.number)]
        member = Member(join.node, join.session, join.card)
        client.phase, client.network, client.member = Phase.MEMBER, join.network, member
        network.members[join.node] = client
        self.counters["signal_joined"] += 1
        output += self._introduce(client, network)
        news = encode(Joined(member.id, member.session, member.card))
        output += self._tell_others(client, network, news)
        output.append(
            Log(
                f"{member.id[:8]} at {client.address} joined {one_line(join.network)} "
                f"({len(network.members)} members)"
            )
        )
        return output

    def _objection(self, client: _Client, join: Join, now: float) -> Reason | None:
        """Return why ``join`` is not accepted; cheap reasons come first, signatures last."""
        if join.version != VERSION:
            return Reason.VERSION
        network = self._networks.get(join.network)
        if network is None:
            if self._only_pinned:
                return Reason.UNKNOWN_NETWORK
            if not self._room():
                return Reason.RENDEZVOUS_FULL
        elif not same(network.key, join.key):
            if network.permanent or network.members or not self._expired(network, now):
                return Reason.WRONG_SECRET
        elif len(network.members) >= self._limits.members and join.node not in network.members:
            return Reason.NETWORK_FULL
        if not proven(join, client.challenge, self._private):
            return Reason.BAD_PROOF
        return None

    def _introduce(self, client: _Client, network: _Network) -> list[Output]:
        others = [
            other.member
            for other in network.members.values()
            if other is not client and other.member is not None
        ]
        pages = [others[i : i + PAGE_MEMBERS] for i in range(0, len(others), PAGE_MEMBERS)] or [[]]
        return [
            Transmit(client.number, encode(Members(page, page is not pages[-1]))) for page in pages
        ]

    # --- relaying and leaving

    def _relay(self, client: _Client, message: Send) -> list[Output]:
        assert client.member is not None
        receiver = self._networks[client.network].members.get(message.to)
        if receiver is None or receiver is client:
            self.counters["signal_undeliverable"] += 1
            return []
        self.counters["signal_relayed"] += 1
        return [Transmit(receiver.number, encode(Message(client.member.id, message.body)))]

    def _forget(self, client: _Client, now: float) -> list[Output]:
        del self._clients[client.number]
        if client.member is None:
            return []
        network = self._networks[client.network]
        del network.members[client.member.id]
        network.empty_since = now
        output = self._tell_others(client, network, encode(Left(client.member.id)))
        output.append(
            Log(
                f"{client.member.id[:8]} at {client.address} left {one_line(client.network)} "
                f"({len(network.members)} members)"
            )
        )
        return output

    def _tell_others(self, client: _Client, network: _Network, data: bytes) -> list[Output]:
        return [
            Transmit(other.number, data)
            for other in network.members.values()
            if other is not client
        ]

    def _refuse(
        self, client: _Client, reason: Reason, now: float, join: Join | None = None
    ) -> list[Output]:
        self.counters["signal_refused"] += 1
        self.counters[f"signal_refused.{reason.value.replace(' ', '_')}"] += 1
        output: list[Output] = [self._refusal(client.number, reason), HangUp(client.number)]
        about = f" (network {one_line(join.network)})" if join is not None else ""
        output.append(Log(f"refused {client.address}: {reason.value}{about}"))
        return output + self._forget(client, now)

    @staticmethod
    def _refusal(client: int, reason: Reason) -> Transmit:
        return Transmit(client, encode(Refused(reason.value)))

    # --- pins

    def _expired(self, network: _Network, now: float) -> bool:
        return now - network.empty_since >= self._limits.pin_grace

    def _room(self) -> bool:
        return len(self._networks) < self._limits.networks or self._oldest_empty() is not None

    def _make_room(self, now: float) -> None:
        """Make room for a name: forget those that expired, or else the one empty for longest."""
        for name in [
            name
            for name, network in self._networks.items()
            if not (network.permanent or network.members) and self._expired(network, now)
        ]:
            del self._networks[name]
        while len(self._networks) >= self._limits.networks:
            oldest = self._oldest_empty()
            assert oldest is not None  # _room was asked first
            del self._networks[oldest]

    def _oldest_empty(self) -> str | None:
        empty = [
            (network.empty_since, name)
            for name, network in self._networks.items()
            if not (network.permanent or network.members)
        ]
        return min(empty)[1] if empty else None
