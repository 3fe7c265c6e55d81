"""Who gets an address: first sightings, moves, duplicates, withdrawals.

A container is seen here with an address. What the table holds decides:

    nobody has it                         it is ours, one above the last sequence number
    ours, with this MAC                   it is alive
    held by a node that is not connected  it is ours
    held, and alive until now             contest: the holder is asked, twice, 300 ms apart
        the holder is silent              a move: it is ours
        the holder answers                a duplicate: the holder keeps it, everybody is told

A node that loses a binding to a peer asks its own container; if that is still there, the contest
goes the other way.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

from controller.node.actions import Report
from controller.node.rates import Bucket, Buckets
from controller.packets.addresses import Ip, Key, Mac, NodeId, Vlan, describe_key
from controller.packets.resolution import announcement
from controller.switch.claims import Claims
from controller.switch.conflicts import CONFLICT_S, Conflict, Duplicates
from controller.switch.gateways import Gateways
from controller.switch.pins import Pins
from controller.switch.policy import Policy
from controller.switch.prober import PATIENT, QUICK, Patience, Prober
from controller.switch.questions import Questions
from controller.switch.reading import Sighting
from controller.switch.segment import Segment
from controller.switch.sync import Sync
from controller.switch.table import CHANGES, Binding, Change, Origin, Outcome

LEARN_RATE: Final = 50.0
LEARN_BURST: Final = 512.0
"""New local bindings a second: forty containers that start at once, not a scan of senders."""
MAX_CONTESTS: Final = 1024
MAX_REFUSALS: Final = 1024
"""Nodes and reasons that are counted for ``status``."""
MAX_FOLLOWED: Final = 8
"""Other addresses of a MAC that are looked after when one of them moves."""
GIVEN_UP_S: Final = 5.0
"""An address that another node has withdrawn for longer has not moved when it is used again. A
contest ends with the holder's withdrawal, well within this time."""
MAC_CLAIM_RATE: Final = 0.5
"""Looks a second into frames that carry one MAC from two places."""


@dataclass(slots=True)
class _Contest:
    mac: Mac
    router: bool | None
    holder: Binding


def _is_move(old: Binding, new: Binding, now: float) -> bool:
    """Return whether ``new`` is a move of ``old``, another MAC or node, and not just the use of
    an address that was given up before: as DHCP leases and restarted containers have it."""
    if old.alive or (old.mac == new.mac and old.node != new.node):
        return True
    return old.node != new.node and now < old.changed + GIVEN_UP_S


class Ownership:
    def __init__(
        self,
        segment: Segment,
        *,
        policy: Policy,
        gateways: Gateways,
        prober: Prober,
        questions: Questions,
        claims: Claims,
        duplicates: Duplicates,
        sync: Sync,
    ) -> None:
        self._segment = segment
        self._table = segment.table
        self._policy = policy
        self._gateways = gateways
        self._prober = prober
        self._questions = questions
        self._claims = claims
        self._duplicates = duplicates
        self._sync = sync
        self._contests: dict[Key, _Contest] = {}
        self._learning = Bucket(LEARN_RATE, LEARN_BURST)
        self._mac_claims: Buckets[tuple[Vlan, Mac]] = Buckets(MAC_CLAIM_RATE, 1, 4096)
        self.refusals: dict[tuple[NodeId, str], tuple[int, float]] = {}
        self._pins = Pins(segment, gateways)

    # --- seen here

    def sighted(self, seen: Sighting, now: float) -> Change | None:
        """A container here was heard with an address; return what became of it, or None when it
        was refused or must be looked into first."""
        key, mac = seen.key, seen.mac
        if mac == self._segment.probe_mac:
            return None
        self._prober.heard(key, mac, now)
        refusal = self.refusal(self._segment.id, key, mac)
        if refusal:
            if refusal != "gateway_itself":
                self.refuse(self._segment.id, key, mac, refusal, now)
            return None
        holder = self._table.live(key)
        if self._segment.is_ours(holder) and holder is not None and holder.mac == mac:
            origin = holder.origin
            return self.changed(
                self._table.learn(key, mac, now, router=seen.router, origin=origin), now
            )
        if holder is None or not self._segment.reachable(holder):
            return self._take(key, mac, seen.router, now)
        if not seen.override and holder.mac != mac:
            self._segment.counters["sightings_ignored.no_override"] += 1
            return None
        self._contest(key, mac, seen.router, holder, now)
        return None

    def refusal(self, node: NodeId, key: Key, mac: Mac) -> str:
        """Return why ``node`` may not have ``key`` at ``mac`` (a counter's name), or nothing.

        Bridge addresses are nobody's to claim: not the shared ones, nor this host's own.
        """
        ip, gateways, here = key[1], self._gateways, node == self._segment.id
        if mac in gateways.macs or ip in gateways.ips:
            return "gateway_itself" if here and mac in gateways.own_macs else "gateway"
        if (ip in gateways.own_ips or mac in gateways.own_macs) and not (
            here and mac in gateways.own_macs
        ):
            return "gateway"
        return self._policy.refusal(node, key, mac)

    def refuse(self, node: NodeId, key: Key, mac: Mac, reason: str, now: float) -> None:
        self._segment.counters[f"claims_refused.{reason}"] += 1
        count, _ = self.refusals.pop((node, reason), (0, now))
        self.refusals[node, reason] = (count + 1, now)
        if len(self.refusals) > MAX_REFUSALS:
            del self.refusals[next(iter(self.refusals))]
        self._segment.report(
            f"refused {node} {key}",
            f"refused {describe_key(key)} at {mac} on {self._segment.display_name(node)}: {reason}",
            now,
        )

    def _take(self, key: Key, mac: Mac, router: bool | None, now: float) -> Change | None:
        last = self._table.get(key)
        back = last is not None and (last.mac, last.node) == (mac, self._segment.id)
        if not back and self._duplicates.is_frozen(key, now):
            self._duplicates.tried(key, now)
            self._segment.counters["moves_refused.frozen"] += 1
            return None
        if not self._learning.take(now):
            self._segment.counters["learning_refused.rate"] += 1
            return None
        change = self._table.learn(key, mac, now, router=router)
        if change.outcome is Outcome.FULL:
            self._segment.counters["learning_refused.full"] += 1
            self._segment.report(
                f"full {self._segment.id} {mac}",
                f"no room for {describe_key(key)} at {mac} here",
                now,
            )
            return None
        if router is None and ":" in key[1] and change.new is not None:
            # Only its own advertisement says whether it is a router, and our answers repeat that:
            # a wrong "no" takes a default route away (RFC 4861 section 7.2.5).
            self._verify(change.new, now)
        return self.changed(change, now)

    # --- contests

    def _contest(
        self, key: Key, mac: Mac, router: bool | None, holder: Binding, now: float
    ) -> None:
        node = self._segment.id
        if key in self._contests:
            return
        if self._duplicates.is_settled(key, mac, node, now):
            self._segment.counters["conflicts_suppressed"] += 1
            self._defend(holder, now)
            return
        if self._duplicates.is_frozen(key, now):
            self._duplicates.tried(key, now)
            self._segment.counters["moves_refused.frozen"] += 1
            return
        if len(self._contests) >= MAX_CONTESTS:
            self._segment.counters["contests_refused"] += 1
            return
        contest = self._contests[key] = _Contest(mac, router, holder)
        self._segment.counters["contests"] += 1
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
            self.duplicate(holder, contest.mac, self._segment.id, now)
            self._defend(holder, now)
            return
        self._duplicates.resolve(key)
        self._take(key, contest.mac, contest.router, now)

    def duplicate(self, holder: Binding, mac: Mac, node: NodeId, now: float) -> None:
        """``holder`` has answered although ``mac`` at ``node`` uses its address, too."""
        conflict = self._duplicates.found(holder.key, (holder.mac, holder.node), (mac, node), now)
        if conflict is None:
            return
        self._segment.counters["conflicts"] += 1
        self._watch(conflict, now)
        called = self._segment.display_name
        self._segment.report(
            f"conflict {holder.key} {mac} {node}",
            f"duplicate address {describe_key(holder.key)}: {holder.mac} at {called(holder.node)} "
            f"has it and keeps it; {mac} at {called(node)} uses it, too",
            now,
        )

    def _watch(self, conflict: Conflict, now: float) -> None:
        """Look whether the contender has given up."""
        if self._duplicates.get(conflict.key) is not conflict:
            return
        if now < conflict.seen + CONFLICT_S:
            self._segment.timers.call_at(conflict.seen + CONFLICT_S, partial(self._watch, conflict))
            return
        self._duplicates.resolve(conflict.key)
        text = f"{conflict.contender_mac} has given up {describe_key(conflict.key)}"
        self._segment.emit(Report("INFO", text))

    def _defend(self, holder: Binding, now: float) -> None:
        """Repair the caches here that the contender has just changed. A local holder's reply
        would not pass us, and it defends itself."""
        if holder.node != self._segment.id and self._duplicates.may_defend(holder.key, now):
            self._segment.counters["defences"] += 1
            self._announce_here(holder)

    def _announce_here(self, binding: Binding) -> None:
        if self._segment.inject(announcement(binding)):
            self._segment.counters["announcements_injected"] += 1

    # --- what changed

    def changed(self, change: Change, now: float) -> Change:
        """Carry out what a change of the table means for the bridge, the link layer, the peers."""
        if change.outcome not in CHANGES or change.new is None:
            return change
        old, new = change.old, change.new
        key = new.key
        self._pins.changed(old, new)
        moved = new.alive and old is not None and (old.mac, old.node) != (new.mac, new.node)
        if moved and old is not None and _is_move(old, new, now):
            self._segment.counters["moves"] += 1
            if self._duplicates.moved(key, now):
                self._segment.counters["freezes"] += 1
                self._segment.report(
                    f"frozen {key}",
                    f"{describe_key(key)} moved five times within three minutes, now {new.mac} at "
                    f"{self._segment.display_name(new.node)}: frozen there until it is quiet "
                    "or cleared",
                    now,
                )
        if new.alive:
            self._claims.close(key)
            if moved and new.node != self._segment.id and old is not None:
                if old.alive and old.node == self._segment.id:
                    self._lost(old, new, now)
                elif old.mac != new.mac or old.node == self._segment.id:
                    self._announce_here(new)
            self._questions.answered(new, now)
            if moved or change.outcome is Outcome.NEW:
                self.follow(new, now)
        elif old is not None and old.alive:
            self._succeed(key, now)
        if new.node == self._segment.id:
            self._sync.tell(None, key)
        return change

    def _succeed(self, key: Key, now: float) -> None:
        """The holder of ``key`` is gone: a contender here that is still there gets it."""
        conflict = self._duplicates.resolve(key)
        if conflict is not None and conflict.contender_node == self._segment.id:
            self._prober.check(key, conflict.contender_mac, now, QUICK, lambda alive, t: None)

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

    def follow(self, new: Binding, now: float) -> None:
        """A MAC is one container: where one of its addresses is, the others should be."""
        elsewhere = [b for b in self._table.of_mac(new.vlan, new.mac) if b.node != new.node]
        for binding in elsewhere[:MAX_FOLLOWED]:
            if new.node == self._segment.id:
                self._verify(binding, now)
            elif binding.node == self._segment.id and binding.origin is Origin.LEARNED:
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

    def host(self, addresses: Iterable[tuple[Ip, Mac]], now: float) -> None:
        """The bridge's own addresses: ours, as long as no other bridge has them, too."""
        for ip, mac in addresses:
            if not self.refusal(self._segment.id, (0, ip), mac):
                change = self._table.learn((0, ip), mac, now, origin=Origin.BRIDGE)
                self.changed(change, now)

    # --- gone from here

    def withdraw(self, key: Key, mac: Mac, now: float) -> None:
        """Our container with ``mac`` does not have ``key`` any more."""
        binding = self._table.live(key)
        if binding is not None and self._segment.is_ours(binding) and binding.mac == mac:
            self._segment.counters["withdrawals"] += 1
            self.changed(self._table.withdraw(key, now), now)

    def withdraw_mac(self, vlan: Vlan, mac: Mac, now: float) -> None:
        """The container with ``mac`` is not here any more."""
        for binding in self._table.of_mac(vlan, mac):
            if binding.node == self._segment.id and binding.origin is Origin.LEARNED:
                self.withdraw(binding.key, mac, now)

    def gone_quiet(self, binding: Binding, now: float) -> None:
        """One of ours has not been heard for long: ask it, patiently; then let it go."""
        key, mac = binding.key, binding.mac
        if self._prober.is_checking(key, mac) or self._claims.is_probing(key, mac, now):
            return
        self._check_out_with(PATIENT, key, mac, now)

    # --- seen in two places

    def mac_claimed(self, mac: Mac, vlan: Vlan, peer: NodeId | None, now: float) -> None:
        """A frame came from ``peer`` (None: from the bridge here) with the source MAC of a
        container elsewhere. The link layer drops such frames while the pin stands."""
        self._segment.counters["macs_claimed"] += 1
        if not self._mac_claims.take((vlan, mac), now):
            return
        node = peer or self._segment.id
        elsewhere = [b for b in self._table.of_mac(vlan, mac) if b.node != node]
        if peer is None:
            for binding in elsewhere[:MAX_FOLLOWED]:
                self._verify(binding, now)
            return
        if elsewhere:
            holder = elsewhere[0]
            self._prober.inquire(
                holder,
                mac,
                now,
                lambda alive, t: self._mac_decided(holder, peer, alive, t),
                at=peer,
            )

    def _mac_decided(self, holder: Binding, peer: NodeId, alive: bool, now: float) -> None:
        if alive:
            self.duplicate(holder, holder.mac, peer, now)
        elif holder.node == self._segment.id and holder.origin is Origin.LEARNED:
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
            self._pins.forgotten(binding)
            self._duplicates.resolve(key)

    def clear(self, ip: Ip, now: float) -> None:
        """The operator wants ``ip`` looked at afresh: no conflict, no freeze, no doubt."""
        for key in self._duplicates.keys_of(ip):
            conflict = self._duplicates.get(key)
            self._duplicates.clear(key)
            if conflict is not None and conflict.contender_node == self._segment.id:
                self._prober.check(key, conflict.contender_mac, now, QUICK, lambda alive, t: None)
