"""A node's side of the rendezvous without its socket: joining, presence, sealed messages. Pure.

The adapter (client.py) calls ``start`` for each new connection, feeds ``received``, and calls
``lost`` when it ends. It carries out each Transmit and Renew that comes back, and hands each
Event on to the application, in order.

    IDLE --start--> CONNECTED --challenge--> JOINING --first page of members--> JOINED
      `<-------------------------------- lost ---------------------------------'

The rendezvous is not trusted: members whose cards do not open are not shown, and everything
that it can make this side remember is bounded.
"""

import enum
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from controller.errors import SignalError, one_line
from controller.signal.events import (
    Absent,
    Event,
    Present,
    Received,
    Refused,
    SignalConnected,
    SignalLost,
)
from controller.signal.keys import NetworkKeys
from controller.signal.sealing import (
    MAX_NAME,
    MAX_PAYLOAD_BYTES,
    SESSION_BYTES,
    Pair,
    Sealed,
    make_card,
    open_card,
)
from controller.signal.websocket import messages
from controller.signal.websocket.messages import encode
from controller.signal.websocket.proof import join
from tincan.crypto.primitives import NONCE_SIZE, PrivateKey, random_bytes

MAX_PEERS: Final = 1024
"""Members remembered; a rendezvous of ours admits 256."""
MAX_SENDER_SESSIONS: Final = 4096
"""Replay marks; when full, a new session of ours voids them all."""
RENEW_AFTER_S: Final = 60.0
"""Shortest life of a session: a member that fills the marks cannot make us renew it faster."""


@dataclass(frozen=True, slots=True)
class Transmit:
    """Send ``data`` to the rendezvous."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Renew:
    """Drop the connection and make another: the replay marks of this one are full."""


Output: TypeAlias = Transmit | Renew | Event


class Phase(enum.Enum):
    """The states in the picture above."""

    IDLE = enum.auto()
    CONNECTED = enum.auto()
    JOINING = enum.auto()
    JOINED = enum.auto()


@dataclass(slots=True)
class _Peer:
    session: bytes
    name: str
    pair: Pair | None = None
    """The keys with it, made when they are first needed."""


class Presence:
    """One node's membership at one rendezvous. ``counters`` keys start with ``signal_``."""

    def __init__(
        self,
        keys: NetworkKeys,
        private: PrivateKey,
        name: str,
        *,
        counters: Counter[str] | None = None,
        random: Callable[[int], bytes] = random_bytes,
    ) -> None:
        self.counters: Counter[str] = Counter() if counters is None else counters
        self.id = private.public.hex()
        self.phase = Phase.IDLE
        self._keys = keys
        self._private = private
        self._name = name
        self._random = random
        self._session = b""
        self._started = 0.0
        self._sequence = 0
        self._peers: dict[str, _Peer] = {}
        self._listed: set[str] | None = None
        """The ids of the list of members that is coming in, page by page."""
        self._marks: dict[tuple[str, bytes], int] = {}
        """The highest sequence received, by sender and its session."""

    @property
    def peers(self) -> dict[str, str]:
        """Names of the members believed to be there, by id."""
        return {node: peer.name for node, peer in self._peers.items()}

    def start(self, now: float) -> None:
        """Begin a new session for a connection that was made; the rendezvous speaks first."""
        self.phase = Phase.CONNECTED
        self._session = self._random(SESSION_BYTES)
        self._started = now
        self._sequence = 0
        self._listed = None
        self._marks.clear()

    def lost(self) -> list[Event]:
        """Note that the connection ended, joined or not; return the events of that."""
        joined = self.phase is Phase.JOINED
        self.phase = Phase.IDLE
        return [SignalLost()] if joined else []

    def seal(self, to: str, payload: bytes) -> bytes | None:
        """Return the message that carries ``payload`` to node ``to``.

        None: not joined, no such member, or more than MAX_PAYLOAD_BYTES.
        """
        peer = self._peers.get(to)
        if self.phase is not Phase.JOINED or peer is None or len(payload) > MAX_PAYLOAD_BYTES:
            return None
        try:
            pair = self._pair(to, peer)
        except SignalError as error:
            self.counters[error.reason] += 1
            return None
        self._sequence += 1
        sealed = Sealed(self._session, self._sequence, payload)
        body = pair.seal(sealed, peer.session, self._random(NONCE_SIZE))
        return encode(messages.Send(to, body))

    def received(self, data: bytes, now: float) -> list[Output]:
        """Handle a message of the rendezvous; one that is wrong only raises a counter."""
        try:
            return self._received(messages.decode_from_rendezvous(data), now)
        except SignalError as error:
            self.counters[error.reason] += 1
            return []

    def _received(self, message: messages.FromRendezvous, now: float) -> list[Output]:
        match self.phase, message:
            case ((Phase.CONNECTED | Phase.JOINING | Phase.JOINED), messages.Refused()):
                return [Refused(message.reason)]
            case Phase.CONNECTED, messages.Challenge():
                return self._answer(message)
            case ((Phase.JOINING | Phase.JOINED), messages.Members()):
                return self._list(message)
            case Phase.JOINED, messages.Joined():
                return self._appeared(messages.Member(message.id, message.session, message.card))
            case Phase.JOINED, messages.Left():
                return self._left(message)
            case Phase.JOINED, messages.Message():
                return self._open(message, now)
            case _:
                raise SignalError("signal_out_of_turn")

    def _answer(self, challenge: messages.Challenge) -> list[Output]:
        node, session = self._private.public, self._session
        card = make_card(self._keys, node, session, self._name, self._random(NONCE_SIZE))
        try:
            answer = join(challenge, self._keys, self._private, session, card)
        except SignalError as error:
            self.counters[error.reason] += 1
            # Nothing we can say will make this rendezvous take us.
            return [Refused(messages.Reason.VERSION.value)]
        self.phase = Phase.JOINING
        return [Transmit(encode(answer))]

    # --- presence

    def _list(self, page: messages.Members) -> list[Output]:
        output: list[Output] = []
        if self.phase is Phase.JOINING:
            self.phase = Phase.JOINED
            self._listed = set()
            output.append(SignalConnected())
        if self._listed is None:
            raise SignalError("signal_out_of_turn")
        for member in page.members:
            output += self._appeared(member)
        if not page.more:
            gone = self._peers.keys() - self._listed
            self._listed = None
            for node in sorted(gone):
                del self._peers[node]
                output.append(Absent(node))
        return output

    def _appeared(self, member: messages.Member) -> list[Output]:
        if member.id == self.id:
            return []
        known = self._peers.get(member.id)
        try:
            name = open_card(self._keys, bytes.fromhex(member.id), member.session, member.card)
        except SignalError as error:
            self.counters[error.reason] += 1
            return []
        if known is None and len(self._peers) >= MAX_PEERS:
            self.counters["signal_too_many_peers"] += 1
            return []
        name = one_line(name)[:MAX_NAME]  # people will see it on a terminal
        pair = None if known is None else known.pair
        self._peers[member.id] = _Peer(member.session, name, pair)
        if self._listed is not None:
            self._listed.add(member.id)
        return [Present(member.id, name, member.session)]

    def _left(self, message: messages.Left) -> list[Output]:
        if self._listed is not None:
            self._listed.discard(message.id)
        return [] if self._peers.pop(message.id, None) is None else [Absent(message.id)]

    # --- sealed messages

    def _pair(self, node: str, peer: _Peer) -> Pair:
        if peer.pair is None:
            peer.pair = Pair(self._keys, self._private, bytes.fromhex(node))
        return peer.pair

    def _open(self, message: messages.Message, now: float) -> list[Output]:
        peer = self._peers.get(message.sender)
        if peer is None:
            raise SignalError("signal_unknown_sender")
        sealed = self._pair(message.sender, peer).open(message.body, self._session)
        mark = (message.sender, sealed.session)
        highest = self._marks.get(mark)
        if highest is None and len(self._marks) >= MAX_SENDER_SESSIONS:
            # Forgetting a mark would let its messages be replayed. A new session of ours makes
            # all of them worthless instead.
            self.counters["signal_marks_full"] += 1
            return [Renew()] if now - self._started >= RENEW_AFTER_S else []
        if highest is not None and sealed.sequence <= highest:
            raise SignalError("signal_replayed")
        self._marks[mark] = sealed.sequence
        return [Received(message.sender, sealed.payload)]
