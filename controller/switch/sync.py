"""Telling the peers what is ours, and making sure that they have heard it.

Changes go out at once, many in one message, no faster than PACE_S. A second after the last one,
and every COMPARE_S, everybody gets a checksum over all of it; whoever holds something else asks,
bucket by bucket, for what differs. So a link that comes up costs a checksum when little changed,
and a lost message is repaired without acknowledgements.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from controller.node.rates import Buckets
from controller.packets.addresses import Key, NodeId
from controller.switch import messages as rpc
from controller.switch.messages import entry_of, gone_of
from controller.switch.segment import Segment
from controller.switch.table import BUCKETS

PACE_S: Final = 0.05
"""The least time between two messages of changes to one peer: 2,000 entries, 240 kB a second."""
DIGEST_AFTER_S: Final = 1.0
"""When a checksum follows the last change."""
COMPARE_S: Final = 60.0
"""The period of checksums to everybody: some 10 bit/s a link."""
REPAIR_S: Final = 1.0
"""The least time between two comparisons with a peer; doubled while they change nothing."""
MAX_REPAIR_S: Final = 600.0
REPAIR_RATE: Final = 1.0
REPAIR_BURST: Final = 4.0
"""Comparisons a second that a peer may ask of us."""
MAX_PEERS: Final = 4096


@dataclass(slots=True)
class _Repair:
    """The last comparison: what was compared, and when the next may be."""

    state: tuple[str, str] = ("", "")
    pause: float = REPAIR_S
    after: float = float("-inf")


class Sync:
    """``greeting``: what a peer must know besides; it goes with the checksums that are not
    caused by a change."""

    def __init__(self, segment: Segment, greeting: Callable[[], rpc.SwitchMessage]) -> None:
        self._segment = segment
        self._greeting = greeting
        self._queues: dict[NodeId | None, dict[Key, None]] = {}
        self._after: dict[NodeId | None, float] = {}
        self._woken: dict[NodeId | None, float] = {}
        self._repairs: dict[NodeId, _Repair] = {}
        self._compares: Buckets[NodeId] = Buckets(REPAIR_RATE, REPAIR_BURST, MAX_PEERS)
        self._differs: Buckets[NodeId] = Buckets(REPAIR_RATE, REPAIR_BURST, MAX_PEERS)
        self._changed = float("-inf")
        self._digest_due: float | None = None

    # --- what is ours goes out

    def tell(self, peer: NodeId | None, key: Key) -> None:
        """Have what is known about ``key`` told to ``peer``, or to all, by the next ``flush``."""
        if peer in self._segment.peers or (peer is None and self._segment.peers):
            self._queues.setdefault(peer, {})[key] = None

    def told(self, key: Key, now: float) -> None:
        """All peers have just been sent ``key`` by other means."""
        queue = self._queues.get(None)
        if queue is not None:
            queue.pop(key, None)
        self._follow_up(now)

    def flush(self, now: float) -> None:
        """Send what is queued, as far as the pace allows."""
        for peer in list(self._queues):
            after = self._after.get(peer, float("-inf"))
            if now >= after:
                self._send_some(peer, self._queues[peer])
                self._after[peer] = after = now + PACE_S
            if not self._queues[peer]:
                del self._queues[peer]
            elif self._woken.get(peer) != after:
                self._woken[peer] = after
                self._segment.timers.call_at(after, self.flush)
            self._follow_up(now)

    def _send_some(self, peer: NodeId | None, queue: dict[Key, None]) -> None:
        announced: list[rpc.Entry] = []
        withdrawn: list[rpc.Gone] = []
        while queue and len(announced) + len(withdrawn) < rpc.MAX_ENTRIES:
            key = next(iter(queue))
            del queue[key]
            binding = self._segment.table.get(key)
            if binding is None or binding.node != self._segment.id:
                continue
            if binding.alive:
                announced.append(entry_of(binding))
            else:
                withdrawn.append(gone_of(binding))
        if announced:
            self._segment.send(peer, rpc.Announce(announced))
        if withdrawn:
            self._segment.send(peer, rpc.Withdraw(withdrawn))

    # --- what is ours is compared

    def start(self, now: float) -> None:
        """Begin the periodic comparison."""
        self._segment.timers.call_at(now + COMPARE_S, self._periodic)

    def peer_up(self, peer: NodeId, now: float) -> None:
        """Greet ``peer`` now, and once more in case that gets lost."""
        self._repairs.pop(peer, None)
        self._meet(peer, now)
        self._segment.timers.call_at(now + DIGEST_AFTER_S, lambda t: self._meet(peer, t))

    def _meet(self, peer: NodeId, now: float) -> None:
        self._greet(peer)
        if peer in self._segment.peers and not self._segment.table.count(peer):
            # We may have restarted, and the link not: then the peer sees no reason to say anything.
            self._ask(peer, self._repairs.setdefault(peer, _Repair()), now)

    def peer_down(self, peer: NodeId) -> None:
        self._queues.pop(peer, None)
        self._after.pop(peer, None)
        self._woken.pop(peer, None)
        self._repairs.pop(peer, None)

    def _greet(self, peer: NodeId | None) -> None:
        self._segment.send(peer, self._greeting())
        self._segment.send(peer, self._digest())

    def _digest(self) -> rpc.Digest:
        return rpc.Digest(self._segment.table.checksum(self._segment.id))

    def _periodic(self, now: float) -> None:
        self._greet(None)
        self._segment.timers.call_at(now + COMPARE_S, self._periodic)

    def _follow_up(self, now: float) -> None:
        self._changed = now
        if self._digest_due is None:
            self._digest_due = now + DIGEST_AFTER_S
            self._segment.timers.call_at(self._digest_due, self._digest_after_change)

    def _digest_after_change(self, now: float) -> None:
        if self._changed + DIGEST_AFTER_S > now:
            self._digest_due = self._changed + DIGEST_AFTER_S
            self._segment.timers.call_at(self._digest_due, self._digest_after_change)
            return
        self._digest_due = None
        self._segment.send(None, self._digest())

    # --- comparison, as receiver and as owner

    def digest(self, peer: NodeId, message: rpc.Digest, now: float) -> None:
        """A peer's checksum: ask for what differs, ever less often while asking does not help."""
        held = self._segment.table.checksum(peer)
        if message.own == held:
            self._repairs.pop(peer, None)
            return
        repair = self._repairs.setdefault(peer, _Repair())
        if now < repair.after:
            return
        state = (message.own, held)
        repair.pause = min(MAX_REPAIR_S, repair.pause * 2) if repair.state == state else REPAIR_S
        repair.state = state
        self._ask(peer, repair, now)

    def _ask(self, peer: NodeId, repair: _Repair, now: float) -> None:
        repair.after = now + repair.pause
        self._segment.counters["comparisons"] += 1
        self._segment.send(peer, rpc.Compare(self._segment.table.checksums(peer)))

    def compare(self, peer: NodeId, message: rpc.Compare, now: float) -> None:
        """A peer holds something else of ours: say anew what is in the buckets that differ."""
        if not self._compares.take(peer, now):
            self._segment.counters["rpc_dropped.rate"] += 1
            return
        table = self._segment.table
        empty = "0" * (8 * BUCKETS)
        own = table.checksums(self._segment.id) or empty
        held = message.held or empty
        buckets = [
            number
            for number in range(BUCKETS)
            if own[8 * number : 8 * number + 8] != held[8 * number : 8 * number + 8]
        ]
        for binding in table.in_buckets(self._segment.id, buckets):
            self.tell(peer, binding.key)
        if buckets and message.held:
            self._segment.send(peer, rpc.Differ(buckets))

    def differ(self, peer: NodeId, message: rpc.Differ, now: float) -> None:
        """A peer names the buckets that differ: show what is held of it there."""
        if not self._differs.take(peer, now):
            self._segment.counters["rpc_dropped.rate"] += 1
            return
        held = [entry_of(b) for b in self._segment.table.in_buckets(peer, message.buckets)]
        for start in range(0, len(held), rpc.MAX_ENTRIES):
            self._segment.send(peer, rpc.Fetch(held[start : start + rpc.MAX_ENTRIES]))
