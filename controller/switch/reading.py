"""What a captured packet says and asks, and whether to answer, to relay, or to keep quiet.

question about              asked by        verdict
a shared gateway            anybody         quiet: every host has its own
anything, by unicast        anybody         check: tincan carries the frame to the owner
an address nobody has       anybody         relay
... whose node is down      anybody         relay: it may have moved; no answer for the dead
an address here             anybody         quiet: its owner has heard the question itself
an address elsewhere        its owner       quiet: an answer would make it give up the address
... with unknown options    anybody else    forward to the owner, who alone can answer
... otherwise               anybody else    answer with the owner's MAC
"""

from dataclasses import dataclass
from enum import Enum

from controller.packets.addresses import (
    NO_IP4,
    NO_IP6,
    Ip,
    Key,
    Mac,
    NodeId,
    is_unicast,
    usable_ip,
    usable_mac,
)
from controller.packets.packets import (
    ARP_REQUEST,
    ND_REDIRECT,
    ND_ROUTER_ADVERTISEMENT,
    Arp,
    NeighbourAdvertisement,
    NeighbourSolicitation,
    RouterMessage,
)
from controller.switch.table import Binding


@dataclass(frozen=True, slots=True)
class Question:
    """Who has ``key``? Without ``asker_ip`` it is a probe: is ``key`` free? (RFC 5227, DAD)."""

    key: Key
    asker_mac: Mac
    asker_ip: Ip | None
    options: bytes = b""

    @property
    def is_probe(self) -> bool:
        return self.asker_ip is None


@dataclass(frozen=True, slots=True)
class Sighting:
    """``key`` was heard from ``mac`` on the local bridge.

    ``router`` None: the packet does not say. ``override`` False: not meant to change what is known
    (RFC 4861 section 7.2.5; several hosts may answer so for one anycast address). ``reply_to``:
    the MAC whose question it answers.
    """

    key: Key
    mac: Mac
    router: bool | None = None
    override: bool = True
    reply_to: Mac | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What a packet says. ``refused``: why it says nothing (a counter's name)."""

    sighting: Sighting | None = None
    question: Question | None = None
    unicast: bool = False
    refused: str = ""


def read(packet: Arp | NeighbourSolicitation | NeighbourAdvertisement | RouterMessage) -> Reading:
    """Return what ``packet`` says. A sender that contradicts its Ethernet source says nothing."""
    if not usable_mac(packet.eth_src):
        return Reading(refused="bad_source")
    if isinstance(packet, Arp):
        return _read_arp(packet)
    if packet.lladdr is not None and packet.lladdr != packet.eth_src:
        return Reading(refused="contradicts_source")
    if isinstance(packet, NeighbourSolicitation):
        return _read_solicitation(packet)
    if isinstance(packet, NeighbourAdvertisement):
        return _read_advertisement(packet)
    return _read_router(packet)


def _read_arp(packet: Arp) -> Reading:
    if packet.sha != packet.eth_src:
        return Reading(refused="contradicts_source")
    unicast = is_unicast(packet.eth_dst)
    if packet.spa != NO_IP4 and not usable_ip(packet.spa):
        return Reading(refused="bad_address")
    sender = (packet.vlan, packet.spa)
    if packet.spa == packet.tpa:
        if packet.spa == NO_IP4:
            return Reading(refused="bad_address")
        return Reading(Sighting(sender, packet.sha), unicast=unicast)
    if packet.op != ARP_REQUEST:
        if packet.spa == NO_IP4:
            return Reading(refused="bad_address")
        to = packet.tha if unicast else None
        return Reading(Sighting(sender, packet.sha, reply_to=to), unicast=unicast)
    heard = None if packet.spa == NO_IP4 else Sighting(sender, packet.sha)
    asked = None
    if usable_ip(packet.tpa):
        asker_ip = packet.spa if heard else None
        asked = Question((packet.vlan, packet.tpa), packet.sha, asker_ip)
    return Reading(heard, asked, unicast, refused="" if heard or asked else "bad_address")


def _read_solicitation(packet: NeighbourSolicitation) -> Reading:
    unicast = is_unicast(packet.eth_dst)
    if not usable_ip(packet.target):
        return Reading(refused="bad_address")
    target = (packet.vlan, packet.target)
    if packet.src_ip == NO_IP6:
        if packet.lladdr is not None:  # RFC 4861 section 7.1.1
            return Reading(refused="bad_address")
        probe = Question(target, packet.eth_src, None, packet.options)
        return Reading(None, probe, unicast)
    if not usable_ip(packet.src_ip):
        return Reading(refused="bad_address")
    heard = Sighting((packet.vlan, packet.src_ip), packet.eth_src)
    asked = Question(target, packet.eth_src, packet.src_ip, packet.options)
    return Reading(heard, asked, unicast)


def _read_advertisement(packet: NeighbourAdvertisement) -> Reading:
    if not usable_ip(packet.target):
        return Reading(refused="bad_address")
    unicast = is_unicast(packet.eth_dst)
    sighting = Sighting(
        (packet.vlan, packet.target),
        packet.eth_src,
        router=packet.router,
        override=packet.override,
        reply_to=packet.eth_dst if unicast else None,
    )
    return Reading(sighting, unicast=unicast)


def _read_router(packet: RouterMessage) -> Reading:
    if packet.kind == ND_REDIRECT or packet.src_ip == NO_IP6:
        return Reading()
    if not usable_ip(packet.src_ip):
        return Reading(refused="bad_address")
    router = True if packet.kind == ND_ROUTER_ADVERTISEMENT else None
    return Reading(Sighting((packet.vlan, packet.src_ip), packet.eth_src, router=router))


class Verdict(Enum):
    QUIET = "quiet"
    CHECK = "check"
    RELAY = "relay"
    FORWARD = "forward"
    ANSWER = "answer"


def decide(
    question: Question,
    binding: Binding | None,
    *,
    node: NodeId,
    unicast: bool,
    gateway: bool,
    reachable: bool,
) -> tuple[Verdict, str]:
    """Return what to do about ``question``, and why: the table above.

    ``binding`` is the live one of what is asked for; ``gateway`` whether that is shared by
    several hosts; ``reachable`` whether the binding's node is connected; ``node`` is this one.
    """
    if gateway:
        return Verdict.QUIET, "gateway"
    if unicast:
        return Verdict.CHECK, "unicast"
    if binding is None:
        return Verdict.RELAY, "unknown"
    if binding.mac == question.asker_mac:
        return Verdict.QUIET, "own_address"
    if binding.node == node:
        return Verdict.QUIET, "local_owner"
    if not reachable:
        return Verdict.RELAY, "owner_down"
    if question.options:
        return Verdict.FORWARD, "unknown_options"
    return Verdict.ANSWER, "known"
