"""What peers say about addresses, taken for what it is worth.

A peer speaks for its own containers only. Its claims are taken as they come, in the table's
order: the contest was the peer's to hold. What it must not have is refused, what comes too late
is objected to, and what it believes of us is confirmed, corrected or withdrawn.
"""

from typing import Final

from controller.node.rates import Buckets
from controller.packets.addresses import Key, NodeId
from controller.switch import messages as rpc
from controller.switch.messages import entry_of
from controller.switch.prober import QUICK, Prober
from controller.switch.segment import Segment
from controller.switch.sightings import Ownership
from controller.switch.sync import Sync
from controller.switch.table import MAX_SEQUENCE, Binding, Change, Origin, Outcome

PROBE_RATE: Final = 50.0
PROBE_BURST: Final = 200.0
"""Holders that one peer may have us ask, a second."""
RISE_RATE: Final = 100.0
RISE_BURST: Final = 4096.0
"""Sequence numbers that one peer may have us raise, a second; each is told to all."""
MAX_LEAP: Final = 65_536
"""A peer that remembers a sequence number further above ours than this is not believed: none of
our containers moved that often."""
MAX_PEERS: Final = 4096


class Hearsay:
    def __init__(self, segment: Segment, ownership: Ownership, prober: Prober, sync: Sync) -> None:
        self._segment = segment
        self._table = segment.table
        self._ownership = ownership
        self._prober = prober
        self._sync = sync
        self._probes: Buckets[NodeId] = Buckets(PROBE_RATE, PROBE_BURST, MAX_PEERS)
        self._rises: Buckets[NodeId] = Buckets(RISE_RATE, RISE_BURST, MAX_PEERS)
        self._asking: set[tuple[NodeId, int]] = set()

    def claimed(self, peer: NodeId, said: rpc.Entry, now: float) -> None:
        """``peer`` says that a container of its own has an address."""
        key = rpc.key_of(said)
        refusal = self._ownership.refusal(peer, key, said.mac)
        if refusal:
            self._ownership.refuse(peer, key, said.mac, refusal, now)
            return
        new = Binding(key, said.mac, peer, said.sequence, now, router=said.router)
        change = self._table.offer(new)
        if change.outcome is Outcome.STALE:
            self._object(peer, change)
        elif change.outcome is Outcome.FULL:
            self._segment.counters["claims_refused.full"] += 1
            self._segment.report(
                f"full {peer}",
                f"{self._segment.display_name(peer)} claims more addresses than there is room for",
                now,
            )
        else:
            self._ownership.changed(change, now)

    def _object(self, peer: NodeId, change: Change) -> None:
        """What ``peer`` says comes after what we hold: it must learn that, if not from the node
        that has the address."""
        held = change.old
        if held is None:
            return
        if held.node == self._segment.id:
            self._sync.tell(peer, held.key)
        elif not held.alive or held.node == peer or not self._segment.reachable(held):
            vlan, ip = held.key
            self._segment.send(peer, rpc.Stale([rpc.Gone(ip, held.sequence, vlan)]))

    def withdrawn(self, peer: NodeId, said: rpc.Gone, now: float) -> None:
        """``peer`` says that an address of its own is gone."""
        key = rpc.key_of(said)
        held = self._table.get(key)
        if held is not None and held.alive and held.node != peer:
            # Nobody withdraws for others; but what is ours must be above what it remembers.
            self._rise(peer, key, said.sequence, now)
            return
        mac = held.mac if held is not None else ""
        new = Binding(key, mac, peer, said.sequence, now, alive=False)
        self._ownership.changed(self._table.offer(new), now)

    def stale(self, peer: NodeId, said: rpc.Gone, now: float) -> None:
        """``peer`` remembers a higher sequence number than we announced."""
        self._rise(peer, rpc.key_of(said), said.sequence, now)

    def _rise(self, peer: NodeId, key: Key, sequence: int, now: float) -> None:
        """Go above ``sequence`` with what is ours."""
        binding = self._table.live(key)
        if binding is None or binding.node != self._segment.id or binding.sequence > sequence:
            return
        if sequence > min(binding.sequence + MAX_LEAP, MAX_SEQUENCE - 1):
            self._segment.counters["sequence_refused"] += 1
        elif not self._rises.take(peer, now):
            self._segment.counters["rpc_dropped.rate"] += 1
        else:
            self._ownership.changed(self._table.rise(key, sequence + 1, now), now)

    def fetched(self, peer: NodeId, held: rpc.Entry, now: float) -> None:
        """``peer`` holds this as ours: confirm it, correct it, or withdraw it.

        After a restart it may well be ours: then the container answers, and the binding goes on
        above the sequence number that the peers remember.
        """
        key = rpc.key_of(held)
        binding = self._table.get(key)
        if binding is not None and binding.node == self._segment.id:
            if binding.alive and entry_of(binding) == held:
                return
            if binding.alive and binding.sequence <= held.sequence and binding.mac != held.mac:
                self._rise(peer, key, held.sequence, now)
                return
            if binding.alive or binding.sequence > held.sequence:
                self._sync.tell(peer, key)
                return
        vlan, ip = key
        nobody = rpc.Withdraw([rpc.Gone(ip, min(held.sequence + 1, MAX_SEQUENCE), vlan)])
        taken = binding is not None and binding.alive
        if (
            taken
            or held.sequence > MAX_SEQUENCE - MAX_LEAP
            or self._ownership.refusal(self._segment.id, key, held.mac)
        ):
            self._segment.send(peer, nobody)
            return
        if not self._probes.take(peer, now):
            self._segment.counters["rpc_dropped.rate"] += 1
            return
        # Should the container answer, it is learned above this.
        self._table.offer(Binding(key, held.mac, self._segment.id, held.sequence, now, alive=False))

        def done(alive: bool, _: float) -> None:
            if not alive:
                self._segment.send(peer, nobody)

        self._prober.check(key, held.mac, now, QUICK, done)

    def probe(self, peer: NodeId, message: rpc.Probe, now: float) -> None:
        """``peer`` wants to know whether our holder of an address is alive. If another container
        wants the address, a silent holder loses it; if that has the holder's own MAC, the
        container has moved, and all its addresses with it."""
        if (peer, message.id) in self._asking:
            return
        if not self._probes.take(peer, now):
            self._segment.counters["rpc_dropped.rate"] += 1
            return
        key = (message.vlan, message.ip)
        held = self._table.live(key)
        if held is None or held.node != self._segment.id:
            self._segment.send(peer, rpc.Probed(message.id, False))
            return
        holder = held

        def done(alive: bool, t: float) -> None:
            self._asking.discard((peer, message.id))
            if alive and message.contender is not None:
                self._ownership.duplicate(holder, message.contender, message.at or peer, t)
            elif not alive and message.contender == holder.mac:
                self._ownership.withdraw_mac(holder.vlan, holder.mac, t)
            elif not alive and message.contender is not None:
                self._ownership.withdraw(key, holder.mac, t)
            elif not alive:
                self._ownership.gone_quiet(holder, t)
            self._segment.send(peer, rpc.Probed(message.id, alive))

        if holder.origin is not Origin.LEARNED:
            done(True, now)
        elif self._prober.check(key, holder.mac, now, QUICK, done):
            self._asking.add((peer, message.id))
