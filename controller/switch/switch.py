"""The pure core of the controller: events and time in, actions out.

frames that the bridge gave the TAP      captured
messages, links coming and going         received, peer_up, peer_down
the kernel's and tincan's news           local_port_gone, bridge_addresses, mac_claimed
the operator                             clear, snapshot
time                                     tick, from ``deadline`` on
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from controller.node.actions import Action
from controller.node.messages import PeerMessage
from controller.node.rates import Bucket, Buckets
from controller.packets.addresses import NO_IP6, Ip, Key, Mac, NodeId, Vlan
from controller.packets.packets import (
    Arp,
    Captured,
    Echo,
    HostPacket,
    LeaseRequest,
    NeighbourAdvertisement,
    NeighbourSolicitation,
    RouterMessage,
)
from controller.packets.resolution import Holder, answer, question
from controller.switch import messages as rpc
from controller.switch.claims import Claimed, Claims
from controller.switch.conflicts import Duplicates
from controller.switch.gateway_host import Echoes
from controller.switch.gateways import LINGER_S, Gateways
from controller.switch.leases import Leases
from controller.switch.messages import entry_of
from controller.switch.peer_claims import Hearsay
from controller.switch.policy import Policy
from controller.switch.prober import Prober
from controller.switch.questions import Questions
from controller.switch.reading import Question, Reading, Sighting, Verdict, decide, read
from controller.switch.segment import Segment
from controller.switch.sightings import Ownership
from controller.switch.snapshot import take
from controller.switch.sync import Sync
from controller.switch.table import Binding, Origin, Outcome

RPC_RATE: Final = 500.0
RPC_BURST: Final = 1000.0
"""Messages a second from one peer: a full table of 4096 entries takes 43."""
STRAY_RATE: Final = 20.0
STRAY_BURST: Final = 50.0
"""Replies a second to askers that nobody has announced; they go to all peers."""
FRESH_S: Final = 5.0
"""A binding of ours that was heard this recently needs no check before a peer is told."""
DOUBT_S: Final = 5.0
"""A binding of ours that has been quiet for longer is checked when somebody asks for it."""


class Switch:
    """``node``: this node's id; ``name``: what the config calls it; ``counters``: raised by name;
    ``first_id``: where request numbers start, a random one so that a restart is not taken for a
    repetition."""

    def __init__(
        self,
        node: NodeId,
        counters: Counter[str],
        *,
        name: str = "",
        policy: Policy | None = None,
        first_id: int = 0,
    ) -> None:
        self.node = node
        self.counters = counters
        self.policy = policy or Policy()
        self.policy.pin(name, node)
        self._segment = segment = Segment(node, counters)
        self._table = segment.table
        self._gateways = Gateways(segment, self.policy)
        self._prober = Prober(segment, first_id)
        self._questions = Questions(segment, self._prober.new_id)
        self._claims = Claims(node)
        self._duplicates = Duplicates()
        self._sync = Sync(segment, self._gateways.message)
        self._ownership = Ownership(
            segment,
            policy=self.policy,
            gateways=self._gateways,
            prober=self._prober,
            questions=self._questions,
            claims=self._claims,
            duplicates=self._duplicates,
            sync=self._sync,
        )
        self._hearsay = Hearsay(segment, self._ownership, self._prober, self._sync)
        self._echoes = Echoes(segment, self._gateways, self._prober)
        self._leases = Leases(segment, self._prober, self._claims)
        self._rpcs: Buckets[NodeId] = Buckets(RPC_RATE, RPC_BURST, 4096)
        self._strays = Bucket(STRAY_RATE, STRAY_BURST)
        self._away: dict[NodeId, float] = {}
        self._started = False

    @property
    def messages(self) -> tuple[type[PeerMessage], ...]:
        """The types of message that switch mode takes from peers."""
        return rpc.SWITCH_MESSAGES

    @property
    def probe_mac(self) -> Mac:
        """The sender of this node's own frames on its bridge, see ``Segment``."""
        return self._segment.probe_mac

    # --- frames

    def captured(self, packet: Captured, now: float) -> list[Action]:
        """A frame that the bridge handed to the TAP."""
        if isinstance(packet, Echo):
            self._echoes.asked(packet, now)
        elif isinstance(packet, HostPacket):
            self._echoes.refused(packet, now)
        elif isinstance(packet, LeaseRequest):
            self._leases.requested(packet, now)
        elif isinstance(packet, NeighbourSolicitation) and packet.target == self._segment.probe_ip:
            self._answer_for_prober(packet)
        else:
            self._captured(packet, read(packet), now)
        return self._finish(now)

    def _captured(
        self,
        packet: Arp | NeighbourSolicitation | NeighbourAdvertisement | RouterMessage,
        reading: Reading,
        now: float,
    ) -> None:
        if reading.refused:
            self.counters[f"frames_dropped.{reading.refused}"] += 1
            if reading.refused == "contradicts_source":
                self._segment.report(
                    f"spoofed {packet.eth_src}",
                    f"{packet.eth_src} sends ARP or ND in the name of another MAC: ignored",
                    now,
                )
            return
        if packet.eth_src == self._segment.probe_mac:
            return
        if reading.sighting is not None:
            change = self._ownership.sighted(reading.sighting, now)
            if change is not None:
                self._pass_on(reading.sighting, change.outcome, change.new, now)
        if reading.question is not None:
            self._asked(reading.question, reading.unicast, now)

    def _pass_on(
        self, seen: Sighting, outcome: Outcome, binding: Binding | None, now: float
    ) -> None:
        """A reply that was heard here belongs to whoever asked elsewhere."""
        nobody = (None, self._segment.probe_mac, *self._gateways.own_macs)
        if binding is None or seen.reply_to in nobody or seen.reply_to is None:
            return
        if outcome is not Outcome.SAME:
            self.counters["arp_replies_relayed"] += 1
            self._segment.send(None, rpc.ArpReply(entry_of(binding)))
            self._sync.told(seen.key, now)
            return
        askers = self._table.of_mac(seen.key[0], seen.reply_to)
        if any(asker.node == self.node for asker in askers):
            return
        if not askers and not self._strays.take(now):
            self.counters["arp_suppressed.rate"] += 1
            return
        self.counters["arp_replies_relayed"] += 1
        self._segment.send(askers[0].node if askers else None, rpc.ArpReply(entry_of(binding)))

    def _answer_for_prober(self, packet: NeighbourSolicitation) -> None:
        """A container checks on the sender of our checks (RFC 4861 section 7.3.3)."""
        probe = Holder((packet.vlan, self._segment.probe_ip), self._segment.probe_mac)
        asker_ip = None if packet.src_ip == NO_IP6 else packet.src_ip
        self._prober.inject(answer(probe, packet.eth_src, asker_ip))

    def _asked(self, asked: Question, unicast: bool, now: float) -> None:
        key = asked.key
        binding = self._table.live(key)
        verdict, reason = decide(
            asked,
            binding,
            node=self.node,
            unicast=unicast,
            gateway=key[1] in self._gateways.ips,
            reachable=binding is not None and self._segment.reachable(binding),
        )
        if (
            asked.asker_mac in self._gateways.macs
            and asked.asker_mac not in self._gateways.own_macs
        ):
            self.counters["arp_suppressed.foreign_gateway"] += 1
        elif verdict is Verdict.ANSWER and binding is not None:
            if self._segment.inject(answer(binding, asked.asker_mac, asked.asker_ip)):
                self.counters["arp_answered_locally"] += 1
            else:
                self._ownership.follow(binding, now)
        elif verdict is Verdict.RELAY:
            self._relay(asked, now)
        elif verdict is Verdict.FORWARD and binding is not None:
            self._questions.relay(asked, now, to=binding.node, hidden=False)
        else:
            self.counters[f"arp_suppressed.{reason}"] += 1
            if verdict is Verdict.CHECK:
                if not self._segment.is_ours(binding):
                    self._questions.wait(asked, now)
            elif asked.is_probe and reason == "own_address":
                self._claims.open_here(key, asked.asker_mac, now)
            elif reason == "local_owner" and binding is not None:
                self._doubt(binding, now)

    def _doubt(self, binding: Binding, now: float) -> None:
        """Somebody asks for an owner here that has been quiet: is it still there?"""
        if binding.origin is Origin.LEARNED and binding.confirmed + DOUBT_S < now:
            self._ownership.gone_quiet(binding, now)

    def _relay(self, asked: Question, now: float) -> None:
        key, mac = asked.key, asked.asker_mac
        age = 0.0
        if asked.is_probe:
            claim = self._claims.open_here(key, mac, now)
            if claim.node != self.node and claim.mac != mac:
                self._tell_claimed(key, claim.mac, claim.node, [mac], now)
                return
            if claim.mac != mac:
                self.counters["arp_suppressed.local_claim"] += 1
                return
            age = now - claim.opened
        hidden = mac in self._gateways.macs
        first = self._questions.relay(asked, now, to=None, hidden=hidden, age=age)
        if first and asked.asker_ip is not None:
            # An owner on this bridge answers the asker by unicast, which never passes the TAP. It
            # must answer us, too.
            self._ask_bridge(key, now)

    def _ask_bridge(self, key: Key, now: float) -> None:
        """Ask everybody here who has ``key``, unless somebody is probing it just now: another
        prober would look like a rival (RFC 5227 section 2.1.1)."""
        claim = self._claims.get(key, now)
        if claim is None or claim.node != self.node:
            self._prober.ask_all(key)

    def _tell_claimed(
        self, key: Key, claimer: Mac, node: NodeId, probers: list[Mac], now: float
    ) -> None:
        """Containers here must leave ``key``: a container elsewhere claimed it first."""
        rival = Holder(key, claimer)
        for prober in probers:
            if prober != claimer:
                self.counters["claims_defended"] += 1
                self._segment.inject(answer(rival, prober, None))

    # --- messages

    def received(self, peer: NodeId, message: PeerMessage, now: float) -> list[Action]:
        """A message of a peer that is authenticated by its link."""
        if peer in self.policy.refused:
            self.counters["rpc_dropped.refused_peer"] += 1
        elif peer not in self._segment.peers:
            self.counters["rpc_dropped.not_connected"] += 1
        elif not self._rpcs.take(peer, now):
            self.counters["rpc_dropped.rate"] += 1
        else:
            self._received(peer, message, now)
        return self._finish(now)

    def _received(self, peer: NodeId, message: PeerMessage, now: float) -> None:
        match message:
            case rpc.ArpRequest():
                self._requested(peer, message, now)
            case rpc.ArpReply(owner=owner):
                self._hearsay.claimed(peer, owner, now)
                self._answered(owner, peer, now)
            case rpc.Announce(entries=entries):
                for said in entries:
                    self._hearsay.claimed(peer, said, now)
            case rpc.Withdraw(entries=departures):
                for gone in departures:
                    self._hearsay.withdrawn(peer, gone, now)
            case rpc.Stale(entries=departures):
                for gone in departures:
                    self._hearsay.stale(peer, gone, now)
            case rpc.Digest():
                self._sync.digest(peer, message, now)
            case rpc.Compare():
                self._sync.compare(peer, message, now)
            case rpc.Differ():
                self._sync.differ(peer, message, now)
            case rpc.Fetch(entries=entries):
                for held in entries:
                    self._hearsay.fetched(peer, held, now)
            case rpc.Probe():
                self._hearsay.probe(peer, message, now)
            case rpc.Probed():
                self._prober.probed(peer, message, now)
            case rpc.Claim(ip=ip, mac=mac, vlan=vlan):
                losers = self._claims.yield_to(peer, (vlan, ip), mac, now)
                self._tell_claimed((vlan, ip), mac, peer, losers, now)
            case rpc.Gateways(addresses=addresses):
                if self._gateways.report(peer, [(a.ip, a.mac) for a in addresses]):
                    self._gateways_changed(now)
            case rpc.Clear(ip=ip):
                self._clear(ip, now)

    def _answered(self, owner: rpc.Entry, peer: NodeId, now: float) -> None:
        """A reply that brought no news still answers those who asked the owner by unicast."""
        binding = self._table.live(rpc.key_of(owner))
        if binding is not None and binding.node == peer:
            self._questions.answered(binding, now)

    def _requested(self, peer: NodeId, request: rpc.ArpRequest, now: float) -> None:
        key = (request.vlan, request.target)
        fresh = self._questions.accept(peer, request, now)
        if request.asker is not None:
            self._hearsay.claimed(peer, request.asker, now)
        if key[1] in self._gateways.ips:
            self.counters["arp_suppressed.gateway"] += 1
            return
        owner = self._table.live(key)
        if owner is not None and owner.node == self.node:
            if request.prober != owner.mac:
                self._reply(peer, owner, request, now)
            return
        if not fresh:
            return
        if owner is not None and self._segment.reachable(owner) and owner.node != peer:
            self.counters["arp_suppressed.elsewhere"] += 1
            return
        if request.prober is not None and not self._concede(peer, key, request, now):
            return
        if not self._questions.may_inject(key, now):
            return
        self.counters["arp_requests_injected"] += 1
        if request.prober is not None and self._speaks_for(peer, request.vlan, request.prober):
            self._segment.inject(question(key, request.prober, None))
        elif (
            request.asker is not None
            and (asker := self._table.live(rpc.key_of(request.asker))) is not None
            and (asker.mac, asker.node) == (request.asker.mac, peer)
            and self._speaks_for(peer, request.vlan, asker.mac)
        ):
            self._segment.inject(question(key, asker.mac, asker.ip))
        else:
            self._ask_bridge(key, now)

    def _speaks_for(self, peer: NodeId, vlan: Vlan, mac: Mac) -> bool:
        """Return whether a question may be asked here in the name of ``mac``: not if it is a
        shared gateway's, nor if it is anywhere but at ``peer`` (were it here, the bridge would
        learn it wrong)."""
        owners = {b.node for b in self._table.of_mac(vlan, mac)}
        return owners <= {peer} and mac not in self._gateways.macs

    def _concede(self, peer: NodeId, key: Key, request: rpc.ArpRequest, now: float) -> bool:
        """Settle a peer's probe against the claims known here; return whether it may be asked on
        this bridge."""
        prober = request.prober or ""
        mine = self._claims.get(key, now)
        result = self._claims.open_there(peer, key, prober, request.age_ms / 1000, now)
        if result is Claimed.OURS and mine is not None:
            self._segment.send(peer, rpc.Claim(key[1], mine.mac, key[0]))
        elif result is Claimed.LOST and mine is not None:
            self._tell_claimed(key, prober, peer, mine.macs, now)
        return result is Claimed.FREE

    def _reply(self, peer: NodeId, owner: Binding, request: rpc.ArpRequest, now: float) -> None:
        """Tell ``peer`` about a container of ours, once it is known to be alive."""
        if request.options:
            self._hand_over(owner, request)
            return

        def done(alive: bool, t: float) -> None:
            binding = self._table.live(owner.key)
            if alive and binding is not None and binding.node == self.node:
                self.counters["arp_replies_relayed"] += 1
                self._segment.send(peer, rpc.ArpReply(entry_of(binding)))
            elif not alive:
                self._ownership.withdraw(owner.key, owner.mac, t)

        quiet = owner.confirmed + FRESH_S < now and owner.origin is Origin.LEARNED
        if not quiet or self._claims.is_probing(owner.key, owner.mac, now):
            done(True, now)
        else:
            self._prober.inquire(owner, None, now, done)

    def _hand_over(self, owner: Binding, request: rpc.ArpRequest) -> None:
        """Give the owner a solicitation that it alone can answer (RFC 9161 section 3.2)."""
        if request.asker is None or ":" not in owner.ip:
            return
        asked = question(
            owner.key, request.asker.mac, request.asker.ip, bytes.fromhex(request.options)
        )
        if isinstance(asked, NeighbourSolicitation):
            self.counters["arp_requests_injected"] += 1
            self._segment.inject(replace(asked, eth_dst=owner.mac))

    # --- links

    def peer_up(self, peer: NodeId, now: float) -> list[Action]:
        """A link to ``peer`` is up: it carries messages from now on."""
        if peer != self.node and peer not in self.policy.refused:
            self._segment.peers[peer] = now
            self._away.pop(peer, None)
            self._sync.peer_up(peer, now)
            self._questions.peer_up(peer, now)
        return self._finish(now)

    def peer_down(self, peer: NodeId, now: float) -> list[Action]:
        """The link to ``peer`` is gone: nobody answers for its containers any more."""
        self._disconnect(peer, now)
        return self._finish(now)

    def _disconnect(self, peer: NodeId, now: float) -> None:
        if self._segment.peers.pop(peer, None) is not None:
            self._sync.peer_down(peer)
            self._prober.peer_down(peer, now)
            self._away[peer] = now
            self._segment.timers.call_at(now + LINGER_S, lambda t: self._peer_lost(peer, now, t))

    def _peer_lost(self, peer: NodeId, since: float, now: float) -> None:
        if self._away.get(peer) == since:
            del self._away[peer]
            self._segment.names.pop(peer, None)
            self._ownership.forget_node(peer)
            if self._gateways.forget(peer):
                self._gateways_changed(now)

    def named(self, peer: NodeId, name: str, now: float) -> list[Action]:
        """``peer`` calls itself ``name``; if the config means another by that, it is refused."""
        if not self.policy.pin(name, peer):
            self.counters["peers_refused.name_taken"] += 1
            self._segment.report(
                f"name {name} {peer}",
                f"node {peer[:8]} calls itself {name!r}, which is pinned to node "
                f"{self.policy.names[name][:8]}: refused",
                now,
            )
            self._disconnect(peer, now)
        else:
            self._segment.names[peer] = name
        for binding in self._table.of_node(peer):
            if self._ownership.refusal(peer, binding.key, binding.mac):
                self._ownership.forget(binding.key)
        if self._gateways.review():
            self._gateways_changed(now)
        return self._finish(now)

    # --- the host

    def bridge_addresses(self, addresses: Iterable[tuple[Ip, Mac]], now: float) -> list[Action]:
        """These are the addresses of this host's own bridge, and no others."""
        before = self._gateways.own
        changed = self._gateways.report(self.node, addresses)
        if self._gateways.own != before:
            for ip, mac in before - self._gateways.own:
                self._ownership.withdraw((0, ip), mac, now)
            self._segment.send(None, self._gateways.message())
            changed = True
        if changed:
            self._gateways_changed(now)
        return self._finish(now)

    def _gateways_changed(self, now: float) -> None:
        for binding in list(self._table):
            if binding.ip in self._gateways.ips or binding.mac in self._gateways.macs:
                self._ownership.forget(binding.key)
        self._ownership.host(self._gateways.own, now)

    def local_port_gone(self, mac: Mac, vlan: Vlan, now: float) -> list[Action]:
        """The bridge has no port with ``mac`` any more."""
        self._ownership.withdraw_mac(vlan, mac, now)
        return self._finish(now)

    def mac_claimed(self, mac: Mac, vlan: Vlan, peer: NodeId | None, now: float) -> list[Action]:
        """tincan saw a frame from ``peer``, or from the bridge here (None), with the source MAC
        of a container that is pinned elsewhere."""
        self._ownership.mac_claimed(mac, vlan, peer, now)
        return self._finish(now)

    # --- time

    @property
    def deadline(self) -> float:
        """When ``tick`` has something to do."""
        return min(self._segment.timers.deadline, self._table.deadline)

    def tick(self, now: float) -> list[Action]:
        """Do what is due."""
        self._segment.timers.run(now)
        for binding in self._table.due(now):
            self._ownership.gone_quiet(binding, now)
        return self._finish(now)

    def _finish(self, now: float) -> list[Action]:
        if not self._started:
            self._started = True
            self._sync.start(now)
        self._sync.flush(now)
        return self._segment.drain()

    # --- the operator

    def clear(self, ip: Ip, now: float) -> list[Action]:
        """Look at ``ip`` afresh, here and at every peer: conflicts, freezes, doubts."""
        self._clear(ip, now)
        self._segment.send(None, rpc.Clear(ip))
        return self._finish(now)

    def _clear(self, ip: Ip, now: float) -> None:
        self._ownership.clear(ip, now)

    def snapshot(self, now: float) -> dict[str, Any]:
        """Return what is known, as plain containers; ``at`` is ``local`` or a node id."""
        refusals = self._ownership.refusals
        return take(self._segment, self.policy, self._gateways, self._duplicates, refusals, now)
