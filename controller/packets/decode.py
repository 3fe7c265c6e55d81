"""Frames to packets: the only room that knows scapy, which takes a third of a second to load.

``parse`` lets scapy dissect what passed the checks that protect it: lengths, and the options of
ND messages, which scapy would recurse into.
"""

import ipaddress
import struct
import sys
from functools import lru_cache
from types import ModuleType
from typing import ClassVar, Final

import scapy.main

from controller.errors import MalformedFrame
from controller.packets.addresses import Ip, Mac, Vlan
from controller.packets.encode import (
    ARP_FORMAT,
    ECHO_REPLY,
    ECHO_REQUEST,
    ETH_ARP,
    ETH_IP4,
    ETH_IP6,
    ETH_VLAN,
    ICMP6,
    OPTION_NONCE,
    OPTION_SOURCE,
    OPTION_TARGET,
    QUOTE,
    checksum,
    checksum6,
)
from controller.packets.packets import (
    ARP_REPLY,
    ARP_REQUEST,
    ND_REDIRECT,
    ND_ROUTER_ADVERTISEMENT,
    ND_ROUTER_SOLICITATION,
    Arp,
    Captured,
    Echo,
    HostPacket,
    LeaseRequest,
    NeighbourAdvertisement,
    NeighbourSolicitation,
    RouterMessage,
)

# On import scapy loads the names of all Ethernet vendors (18 MB resident) and writes them into
# ~/.cache/scapy. We never show a vendor, and leave nothing behind in a home directory.
scapy.main.SCAPY_CACHE_FOLDER = None
if "scapy.data" not in sys.modules:
    sys.modules["scapy.libs.manuf"] = ModuleType("scapy.libs.manuf")
    sys.modules["scapy.libs.manuf"].DATA = ""  # type: ignore[attr-defined]

from scapy.error import Scapy_Exception  # noqa: E402
from scapy.fields import IPField, MACField, ShortField  # noqa: E402
from scapy.layers.inet import ICMP, IP  # noqa: E402
from scapy.layers.inet6 import (  # noqa: E402
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    IPv6,
)
from scapy.packet import Packet  # noqa: E402

__all__ = ["parse"]

# What scapy's dissectors were seen to raise on garbage, and what they plausibly can.
_DISSECTION_FAULTS: Final = (
    Scapy_Exception,
    struct.error,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RecursionError,
)

_IP6_HEADER: Final = 40
_EXTENSION_HEADERS: Final = {0: "hop_by_hop", 43: "routing", 44: "fragment", 60: "destination"}
_ND_FIRST: Final = 133
_ND_LAST: Final = 137
_ND_FIXED: Final = {
    133: 8,
    134: 16,
    135: 24,
    136: 24,
    137: 40,
}  # RFC 4861 section 4: before options

_ICMP_ERRORS: Final = frozenset({3, 4, 5, 11, 12})
"""RFC 1122 section 3.2.2."""

# --- frames to packets


def parse(frame: bytes, vlan: int | None) -> Captured | None:
    """The packet in an Ethernet frame, or None when it is not for us.

    ``vlan``: the VID from the socket's auxiliary data, None without one; a tag inside the frame
    counts too. A frame with two tags is not for us. Raises MalformedFrame, nothing else.
    """
    if len(frame) < 14:
        raise MalformedFrame("ethernet_truncated")
    eth_dst, eth_src = _mac(frame[0:6]), _mac(frame[6:12])
    if frame[6] & 1 or not any(frame[6:12]):
        raise MalformedFrame("ethernet_source")
    kind = int.from_bytes(frame[12:14], "big")
    start = 14
    if kind == ETH_VLAN:
        if len(frame) < 18:
            raise MalformedFrame("ethernet_truncated")
        if vlan:
            return None
        vlan = int.from_bytes(frame[14:16], "big") & 0xFFF
        kind = int.from_bytes(frame[16:18], "big")
        start = 18
    vid = vlan or 0
    if vid == 0xFFF:
        raise MalformedFrame("vlan_reserved")
    body = frame[start:]
    try:
        if kind == ETH_ARP:
            return _parse_arp(body[:28], vid, eth_src, eth_dst)
        if kind == ETH_IP6:
            return _parse_ip6(body, vid, eth_src, eth_dst)
        if kind == ETH_IP4:
            if frame[0] & 1:
                return _parse_dhcp(body, vid, eth_src)
            return _parse_ip4(body, vid, eth_src, eth_dst)
    except _DISSECTION_FAULTS as fault:
        raise MalformedFrame("undissectable") from fault
    return None


def _mac(raw: bytes) -> Mac:
    return raw.hex(":")


def _ip(text: str) -> Ip:
    return str(ipaddress.ip_address(text))


class _Ip4OverEthernet(Packet):  # type: ignore[misc]
    """What follows ARP_FORMAT in an ARP packet (RFC 826).

    scapy's own ARP asks of each field anew which of four families its addresses are of: 100 us a
    packet, against 22, and each first resolution waits for two of them.
    """

    fields_desc: ClassVar = [
        ShortField("op", ARP_REQUEST),
        MACField("hwsrc", None),
        IPField("psrc", None),
        MACField("hwdst", None),
        IPField("pdst", None),
    ]


# Repeated requests are equal to the byte, and the repeat is what is answered locally: it costs
# 1 us here instead of 100. Nothing that raises is kept.
@lru_cache(maxsize=1024)
def _parse_arp(body: bytes, vlan: Vlan, eth_src: Mac, eth_dst: Mac) -> Arp:
    if len(body) < 28:
        raise MalformedFrame("arp_truncated")
    if body[:6] != ARP_FORMAT:
        raise MalformedFrame("arp_format")
    arp = _Ip4OverEthernet(body[len(ARP_FORMAT) :])
    if arp.op not in (ARP_REQUEST, ARP_REPLY):
        raise MalformedFrame("arp_operation")
    if body[8] & 1 or not any(body[8:14]):
        raise MalformedFrame("arp_sender_mac")
    if body[14] == 127 or body[14] >= 224:  # loopback, multicast, reserved
        raise MalformedFrame("arp_sender_ip")
    if body[24] == 127 or body[24] >= 224:
        raise MalformedFrame("arp_target_ip")
    if arp.op == ARP_REQUEST and not any(body[24:28]):  # in a reply it is what a prober had
        raise MalformedFrame("arp_target_ip")
    return Arp(
        op=int(arp.op),
        sha=str(arp.hwsrc),
        spa=str(arp.psrc),
        tha=str(arp.hwdst),
        tpa=str(arp.pdst),
        vlan=vlan,
        eth_src=eth_src,
        eth_dst=eth_dst,
    )


def _parse_ip6(body: bytes, vlan: Vlan, eth_src: Mac, eth_dst: Mac) -> Captured | None:
    if len(body) < _IP6_HEADER or body[0] >> 4 != 6:
        raise MalformedFrame("ip6_header")
    end = _IP6_HEADER + int.from_bytes(body[4:6], "big")
    next_header, kind = body[6], body[_IP6_HEADER] if len(body) > _IP6_HEADER else 0
    if next_header in _EXTENSION_HEADERS and len(body) >= 49:
        # RFC 6980: fragmented ND is ignored. No stack sends ND behind the others.
        if kind == ICMP6 and _ND_FIRST <= body[48] <= _ND_LAST:
            raise MalformedFrame(f"nd_{_EXTENSION_HEADERS[next_header]}")
    elif next_header == ICMP6 and _ND_FIRST <= kind <= _ND_LAST:
        if end > len(body):
            raise MalformedFrame("nd_truncated")
        return _parse_nd(body[:end], vlan, eth_src, eth_dst)
    elif next_header == ICMP6 and kind < 128:
        return None  # RFC 4443 section 2.4(e): no error about an error
    source = ipaddress.IPv6Address(body[8:24])
    target = ipaddress.IPv6Address(body[24:40])
    if source.is_unspecified or source.is_multicast or target.is_multicast:
        return None
    return HostPacket(str(source), str(target), body[:QUOTE], vlan, eth_src, eth_dst)


@lru_cache(maxsize=512)
def _parse_nd(body: bytes, vlan: Vlan, eth_src: Mac, eth_dst: Mac) -> Captured:
    """RFC 4861 sections 6.1 and 7.1: what a receiver must check, in its order."""
    kind = body[_IP6_HEADER]
    options_at = _IP6_HEADER + _ND_FIXED[kind]
    if len(body) < options_at:
        raise MalformedFrame("nd_truncated")
    # Without the options: scapy recurses into each of up to 180 that fit into a frame.
    ip = IPv6(body[:options_at])
    nd = ip.payload
    if ip.hlim != 255:
        raise MalformedFrame("nd_hop_limit")
    if nd.code != 0:
        raise MalformedFrame("nd_code")
    if checksum6(body[:_IP6_HEADER], body[_IP6_HEADER:]):
        raise MalformedFrame("nd_checksum")
    wanted = OPTION_TARGET if kind in (136, ND_REDIRECT) else OPTION_SOURCE
    lladdr, plain = _options(body[options_at:], wanted)
    src, dst = ipaddress.IPv6Address(ip.src), ipaddress.IPv6Address(ip.dst)
    if src.is_multicast or src.is_loopback:
        raise MalformedFrame("nd_source")
    if src.is_unspecified and lladdr is not None and kind in (133, 135):
        raise MalformedFrame("nd_source")
    addresses = (str(src), str(dst))
    if kind in (ND_ROUTER_SOLICITATION, ND_ROUTER_ADVERTISEMENT, ND_REDIRECT):
        if kind != ND_ROUTER_SOLICITATION and not src.is_link_local:
            raise MalformedFrame("nd_source")
        return RouterMessage(kind, *addresses, lladdr, vlan, eth_src, eth_dst)
    target = ipaddress.IPv6Address(nd.tgt)
    if target.is_multicast or target.is_unspecified or target.is_loopback:
        raise MalformedFrame("nd_target")
    if isinstance(nd, ICMPv6ND_NS):
        if src.is_unspecified and not dst.packed.startswith(_SOLICITED_NODE):
            raise MalformedFrame("nd_source")
        options = b"" if plain else body[options_at:]
        return NeighbourSolicitation(
            str(target), *addresses, lladdr, vlan, eth_src, eth_dst, options
        )
    assert isinstance(nd, ICMPv6ND_NA)
    if nd.S and dst.is_multicast:
        raise MalformedFrame("nd_solicited_flag")
    return NeighbourAdvertisement(
        str(target), *addresses, lladdr, bool(nd.R), bool(nd.S), bool(nd.O), vlan, eth_src, eth_dst
    )


_SOLICITED_NODE: Final = bytes.fromhex("ff0200000000000000000001ff")
"""Ff02::1:ff00:0/104."""


def _options(options: bytes, wanted: int) -> tuple[Mac | None, bool]:
    """The wanted link-layer address, and whether there is nothing but that and a nonce."""
    lladdr: Mac | None = None
    plain = True
    at = 0
    while at < len(options):
        length = options[at + 1] * 8 if at + 1 < len(options) else 0
        if length == 0 or at + length > len(options):
            raise MalformedFrame("nd_option_length")
        if options[at] == wanted:
            if length != 8 or options[at + 2] & 1 or not any(options[at + 2 : at + 8]):
                raise MalformedFrame("nd_option_lladdr")
            lladdr = lladdr or _mac(options[at + 2 : at + 8])
        elif options[at] != OPTION_NONCE:
            plain = False
        at += length
    return lladdr, plain


def _parse_ip4(body: bytes, vlan: Vlan, eth_src: Mac, eth_dst: Mac) -> Captured | None:
    header = (body[0] & 15) * 4 if body else 0
    if len(body) < 20 or body[0] >> 4 != 4 or header < 20 or len(body) < header:
        raise MalformedFrame("ip4_header")
    end = int.from_bytes(body[2:4], "big")
    ip = IP(body[:header])
    src, dst = ipaddress.IPv4Address(ip.src), ipaddress.IPv4Address(ip.dst)
    if end < header or src.is_multicast or src.is_unspecified or dst.is_multicast or ip.frag:
        return None  # RFC 1122 section 3.2.2: no error about any of these
    if ip.proto == 1 and len(body) >= header + 8:
        icmp = ICMP(body[header : header + 8])
        if icmp.type in _ICMP_ERRORS:
            return None
        whole = end <= len(body) and not ip.flags.MF
        if icmp.type in (ECHO_REQUEST, ECHO_REPLY) and whole:
            if checksum(body[:header]) or checksum(body[header:end]) or icmp.code:
                raise MalformedFrame("icmp_checksum")
            return Echo(
                reply=icmp.type == ECHO_REPLY,
                src_ip=str(src),
                dst_ip=str(dst),
                identifier=int(icmp.id),
                sequence=int(icmp.seq),
                payload=body[header + 8 : end],
                vlan=vlan,
                eth_src=eth_src,
                eth_dst=eth_dst,
            )
    packet = body[: min(end, QUOTE)]
    return HostPacket(str(src), str(dst), packet, vlan, eth_src, eth_dst)


_UDP: Final = 17
_DHCP_SERVER: Final = 67
_BOOTP: Final = 236
"""Bytes of RFC 951's fields; then RFC 2131's cookie and options."""
_DHCP_COOKIE: Final = bytes((99, 130, 83, 99))
_PAD: Final = 0
_END: Final = 255
_REQUESTED_IP: Final = 50
_MESSAGE_TYPE: Final = 53
_DHCPREQUEST: Final = 3


def _parse_dhcp(body: bytes, vlan: Vlan, eth_src: Mac) -> LeaseRequest | None:
    """RFC 2131 sections 2 and 4.3.2: the address in option 50, or in ciaddr when rebinding."""
    header = (body[0] & 15) * 4 if body else 0
    if len(body) < 20 or body[0] >> 4 != 4 or header < 20 or len(body) < header + 8:
        raise MalformedFrame("ip4_header")
    message = body[header + 8 :]
    if body[9] != _UDP or int.from_bytes(body[header + 2 : header + 4], "big") != _DHCP_SERVER:
        return None
    if len(message) < _BOOTP + 4 or message[_BOOTP : _BOOTP + 4] != _DHCP_COOKIE:
        raise MalformedFrame("dhcp_truncated")
    if message[0] != 1 or message[1:3] != b"\x01\x06" or _mac(message[28:34]) != eth_src:
        return None  # a reply, another kind of hardware, or a relay agent
    options = _dhcp_options(message[_BOOTP + 4 :])
    if options.get(_MESSAGE_TYPE) != bytes((_DHCPREQUEST,)):
        return None
    address = ipaddress.IPv4Address(options.get(_REQUESTED_IP, message[12:16]))
    if address.is_unspecified or address.is_multicast or address.is_loopback or address.is_reserved:
        return None
    return LeaseRequest(str(address), eth_src, vlan)


def _dhcp_options(options: bytes) -> dict[int, bytes]:
    """RFC 2132 section 2."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(options) and options[at] != _END:
        if options[at] == _PAD:
            at += 1
            continue
        length = options[at + 1] if at + 1 < len(options) else 256
        value = options[at + 2 : at + 2 + length]
        if len(value) < length:
            raise MalformedFrame("dhcp_option_length")
        found.setdefault(options[at], value)
        at += 2 + length
    return found
