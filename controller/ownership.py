"""Who gets an address: first sightings, moves, duplicates, withdrawals.

A container is seen here with an address. What the table holds decides:

    nobody has it                         it is ours, one above the last sequence number
    ours, with this MAC                   it is alive
    held by a node that is not connected  it is ours
    held, and alive until now             contest: the holder is asked, twice, 300 ms apart
        the holder is silent              a move: it is ours
        the holder answers                a duplicate: the holder keeps it, everybody is told

Claims of peers are taken as they come, in the table's order: the contest was theirs to hold. A
node that loses a binding to a peer asks its own container; if that is still there, the contest
goes the other way.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from controller import rpc
from controller.bindings import CHANGES, Binding, Change, Key, Origin, Outcome
from controller.claims import Claims
from controller.core import Core, name
from controller.duplicates import Duplicates
from controller.frames import announcement
from controller.gateway import Gateways
from controller.model import Inject, Ip, Mac, NodeId, Pin, Unpin, Vlan
from controller.policy import Policy
from controller.probing import PATIENT, QUICK, Patience, Prober
from controller.questions import Questions
from controller.responder import Sighting
from controller.rpc import usable_ip, usable_mac
from controller.sync import Sync
from controller.timers import Bucket, Buckets

LEARN_RATE, LEARN_BURST = 50.0, 512.0
"""New local bindings a second: forty containers that start at once, not a scan of senders."""
PEER_PROBE_RATE, PEER_PROBE_BURST = 50.0, 200.0
"""Holders that one peer may have us ask, a second."""
MAX_LEAP = 65_536
"""A peer that hints at sequence numbers further above ours than this is not believed."""
MAX_CONTESTS = 1024
MAX_REFUSALS = 1024
"""Nodes and reasons that are counted for ``status``."""
MAX_FOLLOWED = 8
"""Other addresses of a MAC that are looked after when one of them moves."""
MAC_CLAIM_RATE = 0.5
"""Looks a second into frames that carry one MAC from two places."""


@dataclass(slots=True)
class _Contest:
    mac: Mac
    router: bool | None
    holder: Binding


class Ownership:
    def __init__(
        self,
        core: Core,
        *,
        policy: Policy,
        gateways: Gateways,
        prober: Prober,
        questions: Questions,
        claims: Claims,
        duplicates: Duplicates,
        sync: Sync,
    ) -> None:
        self._core = core
        self._table = core.table
        self._policy = policy
        self._gateways = gateways
        self._prober = prober
        self._questions = questions
        self._claims = claims
        self._duplicates = duplicates
        self._sync = sync
        self._contests: dict[Key, _Contest] = {}
        self._learning = Bucket(LEARN_RATE, LEARN_BURST)
        self._peer_probes: Buckets[NodeId] = Buckets(PEER_PROBE_RATE, PEER_PROBE_BURST, 4096)
        self._mac_claims: Buckets[tuple[Vlan, Mac]] = Buckets(MAC_CLAIM_RATE, 1, 4096)
        self._asking: set[tuple[NodeId, int]] = set()
        self.refusals: dict[tuple[NodeId, str], tuple[int, float]] = {}
        self._pins: dict[tuple[Vlan, Mac], NodeId] = {}

    # --- seen here

    def sighted(self, seen: Sighting, now: float) -> Change | None:
        """A container here was heard with an address; return what became of it, or None when it
        was refused or must be looked into first."""
        key, mac = seen.key, seen.mac
        if mac == self._core.probe_mac:
            return None
        self._prober.heard(key, mac, now)
        refusal = self._refusal(self._core.node, key, mac)
        if refusal:
            if refusal != "gateway_itself":
                self._refuse(self._core.node, key, mac, refusal, now)
            return None
        holder = self._table.live(key)
        if self._core.is_ours(holder) and holder is not None and holder.mac == mac:
            origin = holder.origin
            return self._changed(
                self._table.learn(key, mac, now, router=seen.router, origin=origin), now
            )
        if holder is None or not self._core.reachable(holder):
            return self._take(key, mac, seen.router, now)
        self._contest(key, mac, seen.router, holder, now)
        return None

    def _refusal(self, node: NodeId, key: Key, mac: Mac) -> str:
        ip = key[1]
        if mac in self._gateways.macs or ip in self._gateways.ips:
            local = node == self._core.node and (ip, mac) in self._gateways.own
            link_local = node == self._core.node and mac in self._gateways.own_macs
            return "gateway_itself" if local or link_local else "gateway"
        return self._policy.refusal(node, key, mac)

    def _refuse(self, node: NodeId, key: Key, mac: Mac, reason: str, now: float) -> None:
        self._core.counters[f"claims_refused.{reason}"] += 1
        count, _ = self.refusals.pop((node, reason), (0, now))
        self.refusals[node, reason] = (count + 1, now)
        if len(self.refusals) > MAX_REFUSALS:
            del self.refusals[next(iter(self.refusals))]
        self._core.report(
            f"refused {node} {key}",
            f"refused {name(key)} at {mac} on node {node[:8]}: {reason}",
            now,
        )

    def _take(
        self, key: Key, mac: Mac, router: bool | None, now: float, above: int = -1
    ) -> Change | None:
        if self._duplicates.is_frozen(key, now):
            self._duplicates.tried(key, now)
            self._core.counters["moves_refused.frozen"] += 1
            return None
        if not self._learning.take(now):
            self._core.counters["learning_refused.rate"] += 1
            return None
        change = self._table.learn(key, mac, now, router=router, above=above)
        if change.outcome is Outcome.FULL:
            self._core.counters["learning_refused.full"] += 1
            self._core.report(
                f"full {self._core.node} {mac}", f"no room for {name(key)} at {mac} here", now
            )
            return None
        return self._changed(change, now)

    # --- contests

    def _contest(
        self, key: Key, mac: Mac, router: bool | None, holder: Binding, now: float
    ) -> None:
        node = self._core.node
        if key in self._contests:
            return
        if self._duplicates.is_settled(key, mac, node, now):
            self._core.counters["conflicts_suppressed"] += 1
            self._defend(holder, now)
            return
        if self._duplicates.is_frozen(key, now):
            self._duplicates.tried(key, now)
            self._core.counters["moves_refused.frozen"] += 1
            return
        if len(self._contests) >= MAX_CONTESTS:
            self._core.counters["contests_refused"] += 1
            return
        contest = self._contests[key] = _Contest(mac, router, holder)
        self._core.counters["contests"] += 1
        started = self._prober.inquire(
            holder, mac, now, lambda alive, t: self._decided(key, contest, alive, t)
        )
        if not started:
            del self._contests[key]

    def _decided(self, key: Key, contest: _Contest, alive: bool, now: float) -> None:
        del self._contests[key]
        holder = self._table.live(key)
        if holder is not None and (holder.mac, holder.node) != (
            contest.holder.mac,
            contest.holder.node,
        ):
            return  # the address has moved on meanwhile; the next sighting contests that
        if alive and holder is not None:
            self._duplicate(holder, contest.mac, self._core.node, now)
            self._defend(holder, now)
            return
        self._duplicates.resolve(key)
        self._take(key, contest.mac, contest.router, now, above=contest.holder.sequence)

    def _duplicate(self, holder: Binding, mac: Mac, node: NodeId, now: float) -> None:
        if not self._duplicates.found(holder.key, (holder.mac, holder.node), (mac, node), now):
            return
        self._core.counters["conflicts"] += 1
        self._core.report(
            f"conflict {holder.key} {mac} {node}",
            f"duplicate address {name(holder.key)}: {holder.mac} at node {holder.node[:8]} has it "
            f"and keeps it; {mac} at node {node[:8]} uses it, too",
            now,
        )

    def _defend(self, holder: Binding, now: float) -> None:
        """Repair the caches here that the contender has just changed. A local holder's reply
        would not pass us, and it defends itself."""
        if holder.node != self._core.node and self._duplicates.may_defend(holder.key, now):
            self._core.counters["defences"] += 1
            self._announce_here(holder)

    def _announce_here(self, binding: Binding) -> None:
        vlan, mac = binding.vlan, binding.mac
        if any(b.node == self._core.node for b in self._table.of_mac(vlan, mac)):
            return  # never a frame from a MAC that is local here: the bridge would learn it wrong
        self._core.counters["announcements_injected"] += 1
        self._core.emit(Inject(announcement(binding)))

    # --- what changed

    def _changed(self, change: Change, now: float) -> Change:
        """Carry out what a change of the table means for the bridge, the link layer, the peers."""
        if change.outcome not in CHANGES or change.new is None:
            return change
        old, new = change.old, change.new
        key = new.key
        self._pin(old, new)
        moved = new.alive and old is not None and (old.mac, old.node) != (new.mac, new.node)
        if moved:
            self._core.counters["moves"] += 1
            if self._duplicates.moved(key, now):
                self._core.counters["freezes"] += 1
                self._core.report(
                    f"frozen {key}",
                    f"{name(key)} moved five times within three minutes, now {new.mac} at node "
                    f"{new.node[:8]}: frozen there until it is quiet or cleared",
                    now,
                )
        if new.alive:
            self._claims.close(key)
            if moved and new.node != self._core.node and old is not None:
                if old.alive and old.node == self._core.node:
                    self._lost(old, new, now)
                elif old.mac != new.mac or old.node == self._core.node:
                    self._announce_here(new)
            self._questions.answered(new, now)
            if moved or change.outcome is Outcome.NEW:
                self._follow(new, now)
        if new.node == self._core.node:
            self._sync.tell(None, key)
        return change

    def _lost(self, old: Binding, new: Binding, now: float) -> None:
        """A peer has taken what was ours. Our container's answer, if it is still here, is a
        sighting like any other, and contests that; else the bridge must learn the new place."""

        def done(alive: bool, t: float) -> None:
            if not alive and self._table.live(new.key) is new:
                self._announce_here(new)

        if not self._claims.is_probing(old.key, old.mac, now):
            self._prober.check(old.key, old.mac, now, QUICK, done)

    def _verify(self, binding: Binding, now: float) -> None:
        """Ask our own container; its answer is a sighting like any other."""
        if not self._claims.is_probing(binding.key, binding.mac, now):
            self._prober.check(binding.key, binding.mac, now, QUICK, lambda alive, t: None)

    def _follow(self, new: Binding, now: float) -> None:
        """A MAC is one container: where one of its addresses is, the others should be."""
        elsewhere = [b for b in self._table.of_mac(new.vlan, new.mac) if b.node != new.node]
        for binding in elsewhere[:MAX_FOLLOWED]:
            if new.node == self._core.node:
                self._verify(binding, now)
            elif binding.node == self._core.node and binding.origin is Origin.LEARNED:
                self._check_out(binding, now)

    def _check_out(self, binding: Binding, now: float) -> None:
        """Withdraw a binding of ours unless its container answers now."""
        key, mac = binding.key, binding.mac
        if not self._claims.is_probing(key, mac, now):
            self._check_out_with(QUICK, key, mac, now)

    def _check_out_with(self, patience: Patience, key: Key, mac: Mac, now: float) -> None:
        def done(alive: bool, t: float) -> None:
            if not alive:
                self.withdraw(key, mac, t)

        self._prober.check(key, mac, now, patience, done)

    def _pin(self, old: Binding | None, new: Binding) -> None:
        if old is not None and old.mac and (old.mac != new.mac or not new.alive):
            self._repin(old.vlan, old.mac, None)
        if new.alive:
            self._repin(new.vlan, new.mac, new.node)

    def _repin(self, vlan: Vlan, mac: Mac, latest: NodeId | None) -> None:
        nodes = {b.node for b in self._table.of_mac(vlan, mac)}
        place = (vlan, mac)
        if not nodes or mac in self._gateways.macs:
            if self._pins.pop(place, None) is not None:
                self._core.emit(Unpin(mac, vlan))
            return
        if self._core.node in nodes:  # no peer takes a MAC that is alive here
            at = self._core.node
        elif latest in nodes and latest is not None:
            at = latest
        else:
            at = self._pins.get(place, "")
            at = at if at in nodes else min(nodes)
        if self._pins.get(place) != at:
            self._pins[place] = at
            self._core.emit(Pin(mac, vlan, None if at == self._core.node else at))

    def host(self, addresses: Iterable[tuple[Ip, Mac]], now: float) -> None:
        """The bridge's own addresses: ours, as long as no other bridge has them, too."""
        for ip, mac in addresses:
            if (
                usable_ip(ip)
                and usable_mac(mac)
                and not self._refusal(self._core.node, (0, ip), mac)
            ):
                change = self._table.learn((0, ip), mac, now, origin=Origin.BRIDGE)
                self._changed(change, now)

    # --- gone from here

    def withdraw(self, key: Key, mac: Mac, now: float) -> None:
        """Our container with ``mac`` does not have ``key`` any more."""
        binding = self._table.live(key)
        if binding is not None and self._core.is_ours(binding) and binding.mac == mac:
            self._core.counters["withdrawals"] += 1
            self._changed(self._table.withdraw(key, now), now)

    def withdraw_mac(self, vlan: Vlan, mac: Mac, now: float) -> None:
        """The container with ``mac`` is not here any more."""
        for binding in self._table.of_mac(vlan, mac):
            if binding.node == self._core.node and binding.origin is Origin.LEARNED:
                self.withdraw(binding.key, mac, now)

    def gone_quiet(self, binding: Binding, now: float) -> None:
        """One of ours has not been heard for long: ask it, patiently; then let it go."""
        key, mac = binding.key, binding.mac
        if self._prober.is_checking(key, mac) or self._claims.is_probing(key, mac, now):
            return
        self._check_out_with(PATIENT, key, mac, now)

    # --- said by peers

    def claimed(self, peer: NodeId, said: rpc.Entry, now: float) -> None:
        """``peer`` says that a container of its own has an address."""
        key = rpc.key(said)
        refusal = self._refusal(peer, key, said.mac)
        if refusal:
            self._refuse(peer, key, said.mac, refusal, now)
            return
        new = Binding(key, said.mac, peer, said.sequence, now, router=said.router)
        change = self._table.offer(new)
        if change.outcome is Outcome.STALE:
            self._object(peer, change, now)
        elif change.outcome is Outcome.FULL:
            self._core.counters["claims_refused.full"] += 1
            self._core.report(
                f"full {peer}", f"node {peer[:8]} claims more addresses than there is room for", now
            )
        else:
            self._changed(change, now)

    def _object(self, peer: NodeId, change: Change, now: float) -> None:
        """What ``peer`` says comes after what we hold: it must learn that."""
        held = change.old
        if held is None:
            return
        if held.node == self._core.node:
            self._sync.tell(peer, held.key)
        elif not held.alive or held.node == peer or not self._core.reachable(held):
            vlan, ip = held.key
            self._core.send(peer, rpc.Stale([rpc.Gone(ip, held.sequence, vlan)]))

    def withdrawn(self, peer: NodeId, said: rpc.Gone, now: float) -> None:
        """``peer`` says that an address of its own is gone."""
        key = rpc.key(said)
        held = self._table.get(key)
        if held is not None and held.alive and held.node != peer:
            # Nobody withdraws for others; but what is ours must be above what it remembers.
            self._rise(key, said.sequence, now)
            return
        mac = held.mac if held is not None else ""
        new = Binding(key, mac, peer, said.sequence, now, alive=False)
        change = self._changed(self._table.offer(new), now)
        if change.outcome is Outcome.WITHDRAWN and held is not None and held.alive:
            self._succeed(key, now)

    def _succeed(self, key: Key, now: float) -> None:
        """The holder of ``key`` is gone: a contender of ours that is still there gets it."""
        conflict = self._duplicates.resolve(key)
        if conflict is not None and conflict.contender_node == self._core.node:
            self._prober.check(key, conflict.contender_mac, now, QUICK, lambda alive, t: None)

    def stale(self, peer: NodeId, said: rpc.Gone, now: float) -> None:
        """``peer`` remembers a higher sequence number than we announced: go above it."""
        self._rise(rpc.key(said), said.sequence, now)

    def _rise(self, key: Key, sequence: int, now: float) -> None:
        binding = self._table.live(key)
        if binding is None or not self._core.is_ours(binding) or binding.sequence > sequence:
            return
        if sequence > min(binding.sequence + MAX_LEAP, rpc.MAX_SEQUENCE - 1):
            self._core.counters["sequence_refused"] += 1
            return
        confirmed = binding.confirmed
        change = self._table.learn(
            key, binding.mac, now, origin=binding.origin, router=binding.router, above=sequence
        )
        if change.new is not None:
            change.new.confirmed = confirmed
        self._changed(change, now)

    def fetched(self, peer: NodeId, held: rpc.Entry, now: float) -> None:
        """``peer`` holds this as ours: confirm it, correct it, or withdraw it.

        After a restart it may well be ours: then the container answers, and the binding goes on
        above the sequence number that the peers remember.
        """
        key = rpc.key(held)
        binding = self._table.get(key)
        if binding is not None and binding.node == self._core.node:
            if binding.alive and binding.sequence <= held.sequence and binding.mac != held.mac:
                self._rise(key, held.sequence, now)
            elif binding.sequence > held.sequence or binding.alive:
                self._sync.tell(peer, key)
                return
        vlan, ip = key
        nobody = rpc.Withdraw([rpc.Gone(ip, min(held.sequence + 1, rpc.MAX_SEQUENCE), vlan)])
        free = binding is None or not binding.alive
        believable = held.sequence < rpc.MAX_SEQUENCE - MAX_LEAP
        if not free or not believable or self._refusal(self._core.node, key, held.mac):
            if not self._core.is_ours(binding):
                self._core.send(peer, nobody)
            return
        if not self._peer_probes.take(peer, now):
            self._core.counters["rpc.rate_limited"] += 1
            return
        floor = Binding(key, held.mac, self._core.node, held.sequence, now, alive=False)
        self._table.offer(floor)

        def done(alive: bool, _: float) -> None:
            if not alive:
                self._core.send(peer, nobody)

        self._prober.check(key, held.mac, now, QUICK, done)

    def probe(self, peer: NodeId, message: rpc.Probe, now: float) -> None:
        """``peer`` asks whether our holder of an address is alive."""
        if (peer, message.id) in self._asking:
            return
        if not self._peer_probes.take(peer, now):
            self._core.counters["rpc.rate_limited"] += 1
            return
        key = (message.vlan, message.ip)
        binding = self._table.live(key)
        if binding is None or binding.node != self._core.node:
            self._core.send(peer, rpc.Probed(message.id, False))
            return
        self._asking.add((peer, message.id))
        held = binding

        def done(alive: bool, t: float) -> None:
            self._asking.discard((peer, message.id))
            if alive and message.contender is not None:
                self._duplicate(held, message.contender, peer, t)
            elif message.contender == held.mac:
                self.withdraw_mac(held.vlan, held.mac, t)
            elif message.contender is not None:
                self.withdraw(key, held.mac, t)
            elif not alive:
                self.gone_quiet(held, t)
            self._core.send(peer, rpc.Probed(message.id, alive))

        if held.origin is not Origin.LEARNED:
            done(True, now)
        elif not self._prober.check(key, held.mac, now, QUICK, done):
            self._asking.discard((peer, message.id))

    def mac_claimed(self, mac: Mac, vlan: Vlan, peer: NodeId | None, now: float) -> None:
        """A frame came from ``peer`` (None: from the bridge here) with the source MAC of a
        container elsewhere. The link layer drops such frames while the pin stands."""
        self._core.counters["macs_claimed"] += 1
        if not self._mac_claims.take((vlan, mac), now):
            return
        node = peer or self._core.node
        elsewhere = [b for b in self._table.of_mac(vlan, mac) if b.node != node]
        if peer is None:
            for binding in elsewhere[:MAX_FOLLOWED]:
                self._verify(binding, now)
            return
        if elsewhere:
            holder = elsewhere[0]
            self._prober.inquire(
                holder, mac, now, lambda alive, t: self._mac_decided(holder, peer, alive, t)
            )

    def _mac_decided(self, holder: Binding, peer: NodeId, alive: bool, now: float) -> None:
        if alive:
            self._duplicate(holder, holder.mac, peer, now)
        elif holder.node == self._core.node and holder.origin is Origin.LEARNED:
            self.withdraw_mac(holder.vlan, holder.mac, now)

    # --- forgetting

    def forget_node(self, node: NodeId) -> None:
        """``node`` has been gone for long."""
        for binding in self._table.of_node(node):
            self.forget(binding.key)

    def forget(self, key: Key) -> None:
        """Drop what is known about ``key``."""
        binding = self._table.forget(key)
        if binding is not None and binding.alive:
            self._repin(binding.vlan, binding.mac, None)
            self._duplicates.resolve(key)

    def clear(self, ip: Ip, now: float) -> None:
        """The operator wants ``ip`` looked at afresh: no conflict, no freeze, no doubt."""
        for key in self._duplicates.keys_of(ip):
            conflict = self._duplicates.get(key)
            self._duplicates.clear(key)
            if conflict is not None and conflict.contender_node == self._core.node:
                self._prober.check(key, conflict.contender_mac, now, QUICK, lambda alive, t: None)
