"""Questions that nobody here can answer yet: relayed, retried, held back, and answered at last.

One question is relayed once, however many ask; again no sooner than RELAY_AFTER allows (which is
the negative cache: what nobody has is asked for ever less often); and no more than the rates
below, so that a scan of addresses costs the peers little and a known container still gets through.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from controller.node.rates import Bucket, Buckets
from controller.packets.addresses import Ip, Key, Mac, NodeId
from controller.packets.resolution import answer
from controller.switch import messages as rpc
from controller.switch.claims import CLAIM_S
from controller.switch.messages import entry_of
from controller.switch.reading import Question
from controller.switch.segment import Segment
from controller.switch.table import Binding

RELAY_AFTER: Final = (1.0, 1.0, 2.0, 4.0, 8.0, 10.0)
"""The least time between relays of one question, the last one on and on. 0.9 of it counts: a
kernel asks again after one second (RETRANS_TIMER), give or take its own timer."""
RESEND_S: Final = 0.3
"""A relayed question that is still open is sent once more, in case it was lost."""
ASKER_S: Final = 3.0
"""How long an asker waits: three tries, a second apart (mcast_solicit). A prober: its claim."""
FORGET_S: Final = 30.0
"""A question that nobody repeats is forgotten after this long."""
MAX_QUESTIONS: Final = 4096
MAX_ASKERS: Final = 16
"""Askers of one question that are waiting at a time."""
KNOWN_S: Final = 2.0
"""A container that has had its address for this long is known; a storm of invented senders is
not, and shares what strangers get."""
ASKER_RATE: Final = 20.0
ASKER_BURST: Final = 60.0
"""Relays a second for one known container."""
KNOWN_RATE: Final = 150.0
KNOWN_BURST: Final = 300.0
"""Relays a second for all known containers together."""
STRANGER_RATE: Final = 50.0
STRANGER_BURST: Final = 100.0
"""Relays a second for all strangers together."""
PEER_RATE: Final = 250.0
PEER_BURST: Final = 500.0
"""Questions a second from one peer: what all of its containers may ask, and room."""
INJECT_AFTER_S: Final = 0.9
"""The least time between two questions about one address on this bridge."""
MAX_RECENT: Final = 4096
"""Questions from peers, and addresses asked for, that are remembered."""


@dataclass(slots=True)
class _Asker:
    ip: Ip | None
    asked: float


@dataclass(slots=True)
class _Open:
    askers: dict[Mac, _Asker] = field(default_factory=dict)
    message: rpc.ArpRequest | None = None
    relays: int = 0
    relayed: float = float("-inf")
    asked: float = float("-inf")


class Questions:
    """``relayed``: called with every message that goes to all peers and names a local asker."""

    def __init__(self, segment: Segment, new_id: Callable[[], int]) -> None:
        self._segment = segment
        self._new_id = new_id
        self._open: OrderedDict[Key, _Open] = OrderedDict()
        self._askers: Buckets[Mac] = Buckets(ASKER_RATE, ASKER_BURST, MAX_RECENT)
        self._known = Bucket(KNOWN_RATE, KNOWN_BURST)
        self._strangers = Bucket(STRANGER_RATE, STRANGER_BURST)
        self._peers: Buckets[NodeId] = Buckets(PEER_RATE, PEER_BURST, MAX_RECENT)
        self._recent: OrderedDict[tuple[NodeId, int], float] = OrderedDict()
        self._injected: OrderedDict[Key, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    # --- asked here

    def wait(self, question: Question, now: float) -> None:
        """``question`` went to the owner as a frame; its answer is for this asker."""
        self._note(question, now)

    def relay(
        self, question: Question, now: float, *, to: NodeId | None, hidden: bool, age: float = 0.0
    ) -> bool:
        """Relay ``question`` to the peer ``to``, or to all; return whether it was the first time.

        ``hidden``: the asker's address is a shared gateway's and says nothing elsewhere.
        ``age``: of a prober's claim.
        """
        waiting = self._note(question, now)
        if not self._segment.peers:
            self._segment.counters["arp_suppressed.no_peer"] += 1
            return False
        pause = RELAY_AFTER[min(waiting.relays, len(RELAY_AFTER)) - 1] if waiting.relays else 0.0
        told = waiting.message.prober if waiting.message else None
        if question.is_probe and told != question.asker_mac:
            pause = 0.0  # the peers have not heard of this claim yet
        if now < waiting.relayed + 0.9 * pause:
            self._segment.counters["arp_suppressed.repeated"] += 1
            return False
        if not self._may_relay(question, hidden, now):
            self._segment.counters["arp_suppressed.rate"] += 1
            return False
        message = self._message(question, hidden, age)
        first = waiting.relays == 0
        waiting.relays += 1
        waiting.relayed = now
        waiting.message = message
        self._segment.counters["arp_requests_relayed"] += 1
        self._segment.send(to, message)
        self._segment.timers.call_at(
            now + RESEND_S, lambda t: self._resend(question.key, message, to)
        )
        return first

    def _note(self, question: Question, now: float) -> _Open:
        waiting = self._open.pop(question.key, None)
        if waiting is None or waiting.asked + FORGET_S < now:
            waiting = _Open()
        self._open[question.key] = waiting
        if len(self._open) > MAX_QUESTIONS:
            self._open.popitem(last=False)
        waiting.asked = now
        waiting.askers.pop(question.asker_mac, None)
        waiting.askers[question.asker_mac] = _Asker(question.asker_ip, now)
        if len(waiting.askers) > MAX_ASKERS:
            del waiting.askers[next(iter(waiting.askers))]
        return waiting

    def _may_relay(self, question: Question, hidden: bool, now: float) -> bool:
        mac = question.asker_mac
        if hidden:
            return self._known.take(now)
        owned = self._segment.table.of_mac(question.key[0], mac)
        if any(binding.changed + KNOWN_S < now for binding in owned):
            return self._askers.take(mac, now) and self._known.take(now)
        return self._strangers.take(now)

    def _message(self, question: Question, hidden: bool, age: float) -> rpc.ArpRequest:
        vlan, target = question.key
        asker = prober = None
        if question.asker_ip is None:
            prober = question.asker_mac
        elif not hidden:
            binding = self._segment.table.live((vlan, question.asker_ip))
            if (
                binding is not None
                and binding.node == self._segment.id
                and binding.mac == question.asker_mac
            ):
                asker = entry_of(binding)
        return rpc.ArpRequest(
            id=self._new_id(),
            target=target,
            vlan=vlan,
            asker=asker,
            prober=prober,
            age_ms=min(60_000, int(age * 1000)),
            options=question.options.hex()
            if len(question.options) <= rpc.MAX_OPTIONS_BYTES
            else "",
        )

    def _resend(self, key: Key, message: rpc.ArpRequest, to: NodeId | None) -> None:
        waiting = self._open.get(key)
        if waiting is not None and waiting.message is message:
            self._segment.send(to, message)

    def peer_up(self, peer: NodeId, now: float) -> None:
        """A new peer may know; what was asked in vain before it came proves nothing."""
        for waiting in self._open.values():
            waiting.relays = 0
            if waiting.message is not None and waiting.asked + ASKER_S > now:
                self._segment.send(peer, waiting.message)

    def answered(self, binding: Binding, now: float) -> None:
        """``binding`` is known now: tell those who wait for it, unless they heard it themselves."""
        waiting = self._open.get(binding.key)
        if waiting is None:
            return
        del self._open[binding.key]
        if binding.node == self._segment.id:
            return
        for mac, asker in waiting.askers.items():
            patience = ASKER_S if asker.ip is not None else CLAIM_S
            if mac == binding.mac or asker.asked + patience <= now:
                continue
            if self._segment.inject(answer(binding, mac, asker.ip)):
                self._segment.counters["arp_replies_injected"] += 1

    # --- asked elsewhere

    def accept(self, peer: NodeId, message: rpc.ArpRequest, now: float) -> bool:
        """Return whether to look into a peer's question: not a repeated one, not too many."""
        seen = (peer, message.id)
        if seen in self._recent:
            self._segment.counters["arp_suppressed.duplicate_rpc"] += 1
            return False
        if not self._peers.take(peer, now):
            self._segment.counters["arp_suppressed.peer_rate"] += 1
            return False
        self._recent[seen] = now
        if len(self._recent) > MAX_RECENT:
            self._recent.popitem(last=False)
        return True

    def may_inject(self, key: Key, now: float) -> bool:
        """Return whether the local bridge may be asked for ``key`` (again)."""
        if now < self._injected.get(key, float("-inf")) + INJECT_AFTER_S:
            self._segment.counters["arp_suppressed.just_asked"] += 1
            return False
        self._injected.pop(key, None)
        self._injected[key] = now
        if len(self._injected) > MAX_RECENT:
            self._injected.popitem(last=False)
        return True
