"""Several hosts on one clock: bridges, containers, TAPs and links, all in memory.

A container answers as Linux does; a bridge learns and floods; a TAP sees what the bridge sends
into it; tincan carries unicast requests as frames along the pins and leaves the rest of ARP and
ND to the switch; a link loses, repeats and delays messages as told.
"""

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random

from controller.node.actions import Action, Inject, NeverForward, Pin, Report, Send, Unpin
from controller.node.messages import PeerMessage
from controller.packets.addresses import (
    NO_IP4,
    NO_IP6,
    ZERO_MAC,
    Ip,
    Mac,
    NodeId,
    is_unicast,
    link_local,
)
from controller.packets.packets import (
    ARP_REPLY,
    ARP_REQUEST,
    Arp,
    Buildable,
    NeighbourAdvertisement,
    NeighbourSolicitation,
)
from controller.packets.resolution import Neighbour, announcement, question
from controller.switch.policy import Policy
from controller.switch.switch import Switch
from controller.switch.table import Binding
from tests.controller.switch.wire import MAX_MESSAGE_BYTES, decode, encode

TAP = "tap"
LATENCY = 0.02


def mac(number: int) -> Mac:
    return f"00:16:3e:00:{number >> 8 & 0xFF:02x}:{number & 0xFF:02x}"


@dataclass(eq=False)
class Container:
    """Answers for ``ips`` while it runs. ``cache`` is what it believes about others; it learns
    like Linux: creates from answers to its own questions and from those who ask it, updates from
    whatever it hears."""

    mac: Mac
    ips: list[Ip]
    answers: bool = True
    host: "Host | None" = None
    cache: dict[Ip, Mac] = field(default_factory=dict)
    heard: list[Buildable] = field(default_factory=list)
    conflicts: list[Ip] = field(default_factory=list)
    probing: set[Ip] = field(default_factory=set)
    vlan: int = 0

    # what it sends

    def send(self, packet: Neighbour) -> None:
        assert self.host is not None
        self.host.frame(packet, self)

    def ask(self, ip: Ip) -> None:
        """Ask everybody for ``ip``, as the kernel does before a first packet."""
        mine = next(i for i in self.ips if (":" in i) == (":" in ip))
        self.send(question((self.vlan, ip), self.mac, mine))

    def check(self, ip: Ip) -> None:
        """Ask the cached MAC of ``ip`` whether it is still there (NUD_PROBE)."""
        mine = next(i for i in self.ips if (":" in i) == (":" in ip))
        if ":" in ip:
            packet: Neighbour = NeighbourSolicitation(
                ip, mine, ip, self.mac, self.vlan, self.mac, self.cache[ip]
            )
        else:
            packet = Arp(
                ARP_REQUEST, self.mac, mine, ZERO_MAC, ip, self.vlan, self.mac, self.cache[ip]
            )
        self.send(packet)

    def probe(self, ip: Ip) -> None:
        """Ask whether ``ip`` is free."""
        self.probing.add(ip)
        self.send(question((self.vlan, ip), self.mac, None))

    def announce(self, ip: Ip) -> None:
        self.probing.discard(ip)
        if ip not in self.ips:
            self.ips.append(ip)
        self.send(announcement(Binding((self.vlan, ip), self.mac, "", 0, 0.0)))

    # what it receives

    def receive(self, packet: Buildable) -> None:
        if packet.vlan != self.vlan:
            return
        if is_unicast(packet.eth_dst) and packet.eth_dst != self.mac:
            return
        self.heard.append(packet)
        if isinstance(packet, Arp):
            self._arp(packet)
        elif isinstance(packet, NeighbourSolicitation):
            self._solicitation(packet)
        elif isinstance(packet, NeighbourAdvertisement) and packet.lladdr:
            if packet.target in self.probing and packet.lladdr != self.mac:
                self.conflicts.append(packet.target)
            elif packet.solicited or packet.target in self.cache:
                self.cache[packet.target] = packet.lladdr

    def _arp(self, packet: Arp) -> None:
        rival = packet.spa in self.probing or (
            packet.spa == NO_IP4 and packet.op == ARP_REQUEST and packet.tpa in self.probing
        )
        if rival and packet.sha != self.mac:
            self.conflicts.append(packet.tpa if packet.spa == NO_IP4 else packet.spa)
            return
        if packet.spa != NO_IP4 and (
            packet.spa in self.cache
            or (packet.op == ARP_REPLY and packet.tha == self.mac)
            or packet.tpa in self.ips
        ):
            self.cache[packet.spa] = packet.sha
        asked = packet.op == ARP_REQUEST and packet.tpa in self.ips and packet.spa != packet.tpa
        if asked and self.answers:
            me, you = (self.mac, packet.tpa), (packet.sha, packet.spa)
            self.send(Arp(ARP_REPLY, *me, *you, self.vlan, self.mac, packet.sha))

    def _solicitation(self, packet: NeighbourSolicitation) -> None:
        if packet.target in self.probing:
            if packet.src_ip == NO_IP6 and packet.eth_src != self.mac:
                self.conflicts.append(packet.target)
            return
        if packet.target not in self.ips or not self.answers:
            return
        asked = packet.src_ip != NO_IP6
        if asked and packet.lladdr:
            self.cache[packet.src_ip] = packet.lladdr
        self.send(
            NeighbourAdvertisement(
                target=packet.target,
                src_ip=packet.target,
                dst_ip=packet.src_ip if asked else "ff02::1",
                lladdr=self.mac,
                router=False,
                solicited=asked,
                override=True,
                vlan=self.vlan,
                eth_src=self.mac,
                eth_dst=packet.eth_src if asked else "33:33:00:00:00:01",
            )
        )


class Host:
    """One node: a bridge with containers, and the switch on its TAP."""

    def __init__(self, world: "World", node: NodeId, policy: Policy | None) -> None:
        self.world = world
        self.node = node
        self.policy = policy
        self.containers: list[Container] = []
        self.fdb: dict[tuple[int, Mac], Container | str] = {}
        self.frames: list[tuple[float, Buildable, str]] = []
        self.counters: Counter[str] = Counter()
        self.restart()

    def restart(self) -> None:
        """A new controller that remembers nothing; tincan's pins stay with tincan."""
        first = self.world.random.randrange(2**40)
        self.switch = Switch(self.node, self.counters, policy=self.policy, first_id=first)
        self.pins: dict[tuple[int, Mac], NodeId | None] = {}
        self.never = NeverForward(frozenset(), frozenset())
        self.reports: list[Report] = []

    # the bridge

    def run(self, *ips: Ip, mac: Mac, vlan: int = 0) -> Container:
        """Start a container; it says nothing of its own accord."""
        return self.attach(Container(mac, list(ips), vlan=vlan))

    def attach(self, container: Container) -> Container:
        container.host = self
        self.containers.append(container)
        return container

    def stop(self, container: Container, *, noticed: bool = True) -> None:
        """Stop a container; ``noticed``: netlink tells the controller that its port is gone."""
        self.containers.remove(container)
        container.host = None
        for place, port in list(self.fdb.items()):
            if port is container:
                del self.fdb[place]
        if noticed:
            self.do(self.switch.local_port_gone(container.mac, container.vlan, self.world.now))

    def frame(self, packet: Buildable, port: Container | str) -> None:
        """A frame enters the bridge through ``port``."""
        self.frames.append((self.world.now, packet, "tap" if port == TAP else "container"))
        self.fdb[packet.vlan, packet.eth_src] = port
        target = self.fdb.get((packet.vlan, packet.eth_dst))
        if is_unicast(packet.eth_dst) and target is not None:
            ports = [target]
        else:
            ports = [*self.containers, TAP]
        for other in ports:
            if other is port:
                continue
            if isinstance(other, Container):
                self.world.later(0, partial(self._to_container, other, packet))
            else:
                self.world.later(0, lambda: self.to_tap(packet))

    def _to_container(self, container: Container, packet: Buildable) -> None:
        if container.host is self:
            container.receive(packet)

    def to_tap(self, packet: Buildable) -> None:
        """What tincan and the capture make of a frame on the TAP."""
        if not isinstance(packet, Arp | NeighbourSolicitation | NeighbourAdvertisement):
            return
        request = isinstance(packet, NeighbourSolicitation) or (
            isinstance(packet, Arp) and packet.op == ARP_REQUEST
        )
        if request and is_unicast(packet.eth_dst):
            self.world.carry(self, packet)
        self.do(self.switch.captured(packet, self.world.now))

    # the switch's actions

    def do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Inject(packet):
                    known = self.switch._segment.table.of_mac(packet.vlan, packet.eth_src)
                    assert all(b.node != self.node for b in known), f"a local source: {packet}"
                    self.frame(packet, TAP)
                case Send(peer, message):
                    self.world.send(self, peer, message)
                case Pin(mac, vlan, at):
                    assert at != self.node
                    self.pins[vlan, mac] = at
                case Unpin(mac, vlan):
                    del self.pins[vlan, mac]
                case NeverForward():
                    self.never = action
                case Report():
                    self.reports.append(action)
        self.world.arm(self)

    def injected(self, kind: type = object, since: float = 0.0) -> list[Buildable]:
        """What came out of the TAP onto the bridge."""
        return [
            p for t, p, port in self.frames if port == "tap" and t >= since and isinstance(p, kind)
        ]

    def table(self) -> dict[tuple[int, Ip], tuple[Mac, NodeId]]:
        """What this node believes: (VLAN, IP) -> (MAC, node)."""
        found = {}
        for b in self.switch.snapshot(self.world.now)["bindings"]:
            found[b["vlan"], b["ip"]] = (b["mac"], self.node if b["at"] == "local" else b["at"])
        return found


class World:
    def __init__(self, names: str = "ab", seed: int = 0, **policies: Policy) -> None:
        self.now = 1000.0
        self.random = Random(seed)
        self.loss = 0.0
        self.repeat = 0.0
        self.jitter = 0.0
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._count = 0
        self._armed: dict[NodeId, float] = {}
        self.links: set[frozenset[NodeId]] = set()
        self.sent: list[tuple[float, NodeId, NodeId, PeerMessage]] = []
        self.carried: list[tuple[float, NodeId, NodeId, Neighbour]] = []
        self.hosts = {name: Host(self, self.id(name), policies.get(name)) for name in names}

    @staticmethod
    def id(name: str) -> NodeId:
        return f"{ord(name):02x}" * 32

    def __getattr__(self, name: str) -> Host:
        hosts: dict[str, Host] = self.__dict__["hosts"]
        if name not in hosts:
            raise AttributeError(name)
        return hosts[name]

    # time

    def later(self, delay: float, function: Callable[[], object]) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now + delay, self._count, function))

    def arm(self, host: Host) -> None:
        deadline = max(host.switch.deadline, self.now)
        if deadline == float("inf") or self._armed.get(host.node, float("inf")) <= deadline:
            return
        self._armed[host.node] = deadline

        def tick() -> None:
            if self._armed.get(host.node) == deadline:
                del self._armed[host.node]
                host.do(host.switch.tick(self.now))

        self._count += 1
        heapq.heappush(self._events, (deadline, self._count, tick))

    def run(self, seconds: float) -> "World":
        """Let time pass."""
        end = self.now + seconds
        steps = 0
        while self._events and self._events[0][0] <= end:
            self.now, _, function = heapq.heappop(self._events)
            function()
            steps += 1
            assert steps < 1_000_000, "the world does not come to rest"
        self.now = end
        return self

    # links

    def link(self, *names: str) -> "World":
        """Bring up the links among ``names``, or among all."""
        chosen = [self.hosts[n] for n in names] or list(self.hosts.values())
        for one in chosen:
            for other in chosen:
                pair = frozenset((one.node, other.node))
                if one is not other and pair not in self.links:
                    self.links.add(pair)
                    one.do(one.switch.peer_up(other.node, self.now))
                    other.do(other.switch.peer_up(one.node, self.now))
        return self

    def unlink(self, one: str, other: str) -> None:
        a, b = self.hosts[one], self.hosts[other]
        self.links.discard(frozenset((a.node, b.node)))
        a.do(a.switch.peer_down(b.node, self.now))
        b.do(b.switch.peer_down(a.node, self.now))

    def restart(self, name: str) -> None:
        """Kill a controller and start it again; its tincan and its links stay up."""
        host = self.hosts[name]
        host.restart()
        for other in self.hosts.values():
            if frozenset((host.node, other.node)) in self.links:
                host.do(host.switch.peer_up(other.node, self.now))

    def peers(self, host: Host) -> list[Host]:
        return [h for h in self.hosts.values() if frozenset((host.node, h.node)) in self.links]

    def send(self, host: Host, peer: NodeId | None, message: PeerMessage) -> None:
        data = encode(message)
        assert len(data) <= MAX_MESSAGE_BYTES
        for other in self.peers(host):
            if peer is not None and other.node != peer:
                continue
            self.sent.append((self.now, host.node, other.node, message))
            for _ in range(2 if self.random.random() < self.repeat else 1):
                if self.random.random() >= self.loss:
                    delay = LATENCY + self.random.random() * self.jitter
                    self.later(delay, partial(self._deliver, host, other, data))

    def _deliver(self, host: Host, other: Host, data: bytes) -> None:
        if frozenset((host.node, other.node)) in self.links:
            other.do(other.switch.received(host.node, decode(data), self.now))

    def carry(self, host: Host, packet: Neighbour) -> None:
        """tincan forwards a unicast request along its pins."""
        at = host.pins.get((packet.vlan, packet.eth_dst))
        for other in self.peers(host):
            if other.node == at:
                self.carried.append((self.now, host.node, other.node, packet))
                self.later(LATENCY, partial(other.frame, packet, TAP))

    def messages(self, kind: type, since: float = 0.0) -> list[PeerMessage]:
        return [m for t, _, _, m in self.sent if t >= since and isinstance(m, kind)]


__all__ = ["Container", "Host", "World", "link_local", "mac"]
