"""What an Ethernet frame is, as far as forwarding must know: destination, source, VLAN, kind.

Offsets are those of IEEE 802.3, RFC 826, RFC 791, RFC 8200. The table knows one VLAN tag; what is
behind more of them is looked at only for what must never be forwarded.
A frame here is a memoryview or bytes that starts at the destination MAC.
"""

import struct
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, TypeAlias

Frame: TypeAlias = bytes | bytearray | memoryview

MAC_SIZE: Final = 6
ETHERNET_SIZE: Final = 14
TYPES: Final = frozenset({0x8100, 0x88A8})
IPV4: Final = 0x0800
ARP: Final = 0x0806
IPV6: Final = 0x86DD
UDP: Final = 17
ICMPV6: Final = 58
# Where clients and servers listen. They may send from any port (RFC 2131 4.1, RFC 8415 7.2).
DHCP_PORTS: Final = frozenset({67, 68})
DHCP6_PORTS: Final = frozenset({546, 547})
ROUTER_SOLICITATION: Final = 133
ROUTER_ADVERTISEMENT: Final = 134
NEIGHBOUR_SOLICITATION: Final = 135
NEIGHBOUR_ADVERTISEMENT: Final = 136
REDIRECT: Final = 137
CONTROL_PREFIX: Final = b"\x01\x80\xc2\x00\x00"  # 802.1D table 7-10: -00 to -0f stay on their link
BROADCAST: Final = b"\xff" * 6
# The controllers' loop beacons: a group that is nobody's (locally administered), and that bridges
# pass on, unlike 01:80:c2:00:00:0x.
BEACON: Final = bytes.fromhex("03736d000001")

MAX_TAGS: Final = 4
MAX_EXTENSIONS: Final = 8  # IPv6 headers before the payload; a stack has no bound of its own
_EXTENSIONS: Final = frozenset({0, 43, 60})  # of known length: hop-by-hop, routing, destination
_FRAGMENT: Final = 44

ETHERNET = struct.Struct(f"{ETHERNET_SIZE}s")  # the header: destination, source, type or tag
_U16 = struct.Struct(">H")
_PORTS = struct.Struct(">HH")


class Kind(Enum):
    """What to do with a frame depends on this first."""

    PLAIN = "plain"
    NEIGHBOUR = "neighbour"  # ARP or ND of a kind that the controller speaks for while attached
    REACHABILITY = "reachability"  # a unicast ARP request or solicitation: for the owner itself
    DHCP = "dhcp"
    ROUTER = "router"  # router solicitation, advertisement, redirect
    CONTROL = "link_control"  # 01:80:c2:00:00:0x
    BEACON = "loop_beacon"  # a controller looking for a way around the overlay
    GATEWAY = "gateway"  # from, to or about a gateway that more than one host has
    MALFORMED = "malformed_frame"


@dataclass(frozen=True, slots=True)
class NeverForward:
    """What stays on its host, whoever asks (DESIGN: the never-forward set)."""

    macs: frozenset[bytes] = frozenset()  # 6 bytes each
    addresses: frozenset[bytes] = frozenset()  # 4 or 16 bytes each
    kinds: frozenset[Kind] = field(
        default=frozenset(
            {Kind.DHCP, Kind.ROUTER, Kind.CONTROL, Kind.BEACON, Kind.GATEWAY, Kind.MALFORMED}
        )
    )


def is_group(frame: Frame) -> bool:
    """Whether the destination is broadcast or multicast."""
    return bool(frame[0] & 1)


def vlan_and_type(frame: Frame) -> tuple[int, int, int]:
    """Return (VID or 0, EtherType, offset of the payload)."""
    kind = _U16.unpack_from(frame, 12)[0]
    if kind in TYPES and len(frame) >= 18:
        tag, inner = _PORTS.unpack_from(frame, 14)
        return tag & 0x0FFF, inner, 18
    return 0, kind, ETHERNET_SIZE


def classify(frame: Frame, never: NeverForward) -> Kind:
    """Return the kind of ``frame``. Never raises, whatever the bytes are."""
    if len(frame) < ETHERNET_SIZE:
        return Kind.MALFORMED
    destination, source = bytes(frame[:6]), bytes(frame[6:12])
    if source[0] & 1:
        return Kind.MALFORMED
    if destination[:5] == CONTROL_PREFIX and destination[5] < 0x10:
        return Kind.CONTROL
    if destination == BEACON:
        return Kind.BEACON
    if destination in never.macs or source in never.macs:
        return Kind.GATEWAY
    _, kind, start = vlan_and_type(frame)
    if kind in TYPES:
        return _classify_stacked(frame, never)
    return _classify_payload(frame, kind, start, never)


def _classify_stacked(frame: Frame, never: NeverForward) -> Kind:
    """Classify a frame with several tags, or a tag cut off.

    Linux takes off tags of VID 0 wherever they stand (__netif_receive_skb_core), so that a few of
    them would hide anything from us and not from a container. ARP and ND behind real tags are
    frames as any other: the controllers do not speak for networks inside a network.
    """
    for at in range(12, 12 + 4 * (MAX_TAGS + 1), 4):
        if len(frame) < at + 4:
            return Kind.MALFORMED
        kind, tag = _PORTS.unpack_from(frame, at)
        if kind not in TYPES:
            inner = _classify_payload(frame, kind, at + 2, never)
            return Kind.PLAIN if inner in (Kind.NEIGHBOUR, Kind.REACHABILITY) else inner
        if not tag & 0x0FFF:
            break
    return Kind.MALFORMED


def _classify_payload(frame: Frame, kind: int, start: int, never: NeverForward) -> Kind:
    if kind == ARP:
        return _classify_arp(frame, start, never)
    if kind == IPV4:
        return _classify_ipv4(frame, start)
    if kind == IPV6:
        return _classify_ipv6(frame, start, never)
    return Kind.PLAIN


def _classify_arp(frame: Frame, start: int, never: NeverForward) -> Kind:
    if len(frame) < start + 28:
        return Kind.MALFORMED
    if (
        bytes(frame[start + 14 : start + 18]) in never.addresses
        or bytes(frame[start + 24 : start + 28]) in never.addresses
    ):
        return Kind.GATEWAY
    request = _U16.unpack_from(frame, start + 6)[0] == 1
    return Kind.REACHABILITY if request and not is_group(frame) else Kind.NEIGHBOUR


def _classify_ipv4(frame: Frame, start: int) -> Kind:
    if len(frame) < start + 20:
        return Kind.MALFORMED
    if frame[start + 9] != UDP:
        return Kind.PLAIN
    fragment = _U16.unpack_from(frame, start + 6)[0] & 0x1FFF
    ports = start + (frame[start] & 0x0F) * 4
    if fragment or len(frame) < ports + 4:
        return Kind.PLAIN
    target = _U16.unpack_from(frame, ports + 2)[0]
    return Kind.DHCP if target in DHCP_PORTS else Kind.PLAIN


def _classify_ipv6(frame: Frame, start: int, never: NeverForward) -> Kind:
    if len(frame) < start + 40:
        return Kind.MALFORMED
    following = frame[start + 6]
    payload = start + 40
    # No stack sends extension headers before ND, but a router advertisement behind some must not
    # slip through, nor DHCP in a first fragment. Of later fragments nothing can be told, and they
    # are of no use without the first, which has all headers (RFC 7112).
    fragment = False
    for _ in range(MAX_EXTENSIONS):
        if len(frame) < payload + 8:
            break
        if following == _FRAGMENT:
            if _U16.unpack_from(frame, payload + 2)[0] & 0xFFF8:
                return Kind.PLAIN
            fragment = True
            following, payload = frame[payload], payload + 8
        elif following in _EXTENSIONS:
            following, payload = frame[payload], payload + 8 + frame[payload + 1] * 8
        else:
            break
    if following in _EXTENSIONS or following == _FRAGMENT:
        return Kind.MALFORMED
    if following == UDP and len(frame) >= payload + 4:
        target = _U16.unpack_from(frame, payload + 2)[0]
        return Kind.DHCP if target in DHCP6_PORTS else Kind.PLAIN
    if following != ICMPV6 or len(frame) <= payload:
        return Kind.PLAIN
    message = frame[payload]
    if message in (ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT, REDIRECT):
        return Kind.ROUTER
    if fragment and ROUTER_SOLICITATION <= message <= REDIRECT:
        return Kind.ROUTER  # RFC 6980: ND never travels in fragments
    if message not in (NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT):
        return Kind.PLAIN
    if len(frame) < payload + 24:
        return Kind.MALFORMED
    if (
        bytes(frame[payload + 8 : payload + 24]) in never.addresses
        or bytes(frame[start + 8 : start + 24]) in never.addresses
    ):
        return Kind.GATEWAY
    solicitation = message == NEIGHBOUR_SOLICITATION
    return Kind.REACHABILITY if solicitation and not is_group(frame) else Kind.NEIGHBOUR
