"""Asking an owner whether it is still there: by unicast, in nobody's name, twice or more.

A holder on this bridge is asked with a frame; a holder elsewhere by its own node, on request.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from controller.node.actions import Inject, Pin
from controller.packets.addresses import Key, Mac, NodeId, Vlan
from controller.packets.resolution import Neighbour, check, question
from controller.switch import messages as rpc
from controller.switch.segment import Segment
from controller.switch.table import Binding

Done = Callable[[bool, float], object]
"""Called once with whether the holder answered, and now."""


@dataclass(frozen=True, slots=True)
class Patience:
    """When to ask, from the first time on, and when to give up (seconds)."""

    asks: tuple[float, ...]
    end: float


QUICK: Final = Patience((0.0, 0.3), 0.6)
"""Somebody else wants the address now."""
PATIENT: Final = Patience((0.0, 1.0, 2.0), 3.0)
"""It has merely been quiet: RFC 4861's MAX_UNICAST_SOLICIT and RETRANS_TIMER."""
REMOTE_ASKS: Final = (0.0, 0.25, 0.5)
"""When the request to another node is sent: a message may be lost."""
REMOTE_END: Final = 1.2
"""When a node that is connected but says nothing counts as silent."""

MIN_INTERVAL_S: Final = 0.2
"""A holder that several want to hear from is asked no more often than this."""
MAX_CHECKS: Final = 1024
"""Holders being asked at a time, here and elsewhere each."""
MAX_WAITERS: Final = 32
"""Parties waiting for one holder's answer."""


@dataclass(slots=True)
class _Check:
    waiters: list[tuple[float, Done]] = field(default_factory=list)
    asked: float = float("-inf")


@dataclass(slots=True)
class _Inquiry:
    node: NodeId
    done: Done


class Prober:
    def __init__(self, segment: Segment, first_id: int) -> None:
        self._segment = segment
        self._checks: dict[tuple[Key, Mac], _Check] = {}
        self._inquiries: dict[int, _Inquiry] = {}
        self._next_id = first_id
        self._vlans: set[Vlan] = set()

    def new_id(self) -> int:
        """Return a number for a request, not used before in this run."""
        self._next_id += 1
        return self._next_id

    # --- on this bridge

    def check(self, key: Key, mac: Mac, now: float, patience: Patience, done: Done) -> bool:
        """Ask ``mac`` whether it has ``key``; return False, and never call, when too many are
        being asked."""
        check = self._checks.get((key, mac))
        if check is None:
            if len(self._checks) >= MAX_CHECKS:
                self._segment.counters["checks_refused"] += 1
                return False
            check = self._checks[key, mac] = _Check()
        if len(check.waiters) >= MAX_WAITERS:
            self._segment.counters["checks_refused"] += 1
            return False
        check.waiters.append((now + patience.end, done))
        self._segment.timers.call_at(
            now + patience.end, lambda t: self._give_up(key, mac, check, t)
        )
        self._ask(key, mac, check, now)
        for offset in patience.asks[1:]:
            self._segment.timers.call_at(now + offset, lambda t: self._ask(key, mac, check, t))
        return True

    def heard(self, key: Key, mac: Mac, now: float) -> None:
        """``mac`` was heard with ``key`` on this bridge: whoever asked has an answer."""
        check = self._checks.pop((key, mac), None)
        if check is not None:
            for _, done in check.waiters:
                done(True, now)

    def is_checking(self, key: Key, mac: Mac) -> bool:
        return (key, mac) in self._checks

    def ask_all(self, key: Key) -> None:
        """Ask the whole bridge who has ``key``, so that the answer comes to us."""
        if ":" in key[1]:
            self.inject(question(key, self._segment.probe_mac, self._segment.probe_ip))
        else:
            self.inject(question(key, self._segment.probe_mac, None))

    def inject(self, packet: Neighbour) -> None:
        """Send ``packet``, whose source is the probe MAC."""
        if packet.vlan not in self._vlans:
            # Answers come back to the TAP: tincan must know that they go no further.
            self._vlans.add(packet.vlan)
            self._segment.emit(Pin(self._segment.probe_mac, packet.vlan, None))
        self._segment.counters["arp_checks_injected"] += 1
        self._segment.emit(Inject(packet))

    def _ask(self, key: Key, mac: Mac, check_: _Check, now: float) -> None:
        if self._checks.get((key, mac)) is check_ and now >= check_.asked + MIN_INTERVAL_S:
            check_.asked = now
            self.inject(check(key, mac, self._segment.probe_mac, self._segment.probe_ip))

    def _give_up(self, key: Key, mac: Mac, check_: _Check, now: float) -> None:
        if self._checks.get((key, mac)) is not check_:
            return
        over = [done for end, done in check_.waiters if end <= now]
        check_.waiters = [(end, done) for end, done in check_.waiters if end > now]
        if not check_.waiters:
            del self._checks[key, mac]
        for done in over:
            done(False, now)

    # --- wherever the holder is

    def inquire(
        self,
        binding: Binding,
        contender: Mac | None,
        now: float,
        done: Done,
        *,
        at: NodeId | None = None,
    ) -> bool:
        """Find out whether the holder of ``binding`` is alive; return False, and never call, when
        too many are being asked. A node that is not connected counts as silent.

        ``contender``: the MAC that wants the address; a silent holder then loses it. ``at``: the
        contender's node, if not this one.
        """
        if binding.node == self._segment.id:
            return self.check(binding.key, binding.mac, now, QUICK, done)
        if len(self._inquiries) >= MAX_CHECKS:
            self._segment.counters["checks_refused"] += 1
            return False
        number = self.new_id()
        self._inquiries[number] = _Inquiry(binding.node, done)
        vlan, ip = binding.key
        message = rpc.Probe(number, ip, binding.mac, vlan, contender, at)
        self._inquire(number, message)
        for offset in REMOTE_ASKS[1:]:
            self._segment.timers.call_at(now + offset, lambda t: self._inquire(number, message))
        end = now + (REMOTE_END if binding.node in self._segment.peers else 0)
        self._segment.timers.call_at(end, lambda t: self._conclude(number, False, t))
        return True

    def probed(self, peer: NodeId, message: rpc.Probed, now: float) -> None:
        """A node has asked its holder."""
        inquiry = self._inquiries.get(message.id)
        if inquiry is not None and inquiry.node == peer:
            self._conclude(message.id, message.alive, now)

    def peer_down(self, peer: NodeId, now: float) -> None:
        """Whoever waits for ``peer`` waits in vain."""
        for number in [n for n, i in self._inquiries.items() if i.node == peer]:
            self._conclude(number, False, now)

    def _inquire(self, number: int, message: rpc.Probe) -> None:
        inquiry = self._inquiries.get(number)
        if inquiry is not None:
            self._segment.send(inquiry.node, message)

    def _conclude(self, number: int, alive: bool, now: float) -> None:
        inquiry = self._inquiries.pop(number, None)
        if inquiry is not None:
            inquiry.done(alive, now)
