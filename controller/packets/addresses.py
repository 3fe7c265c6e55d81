"""Addresses as the controller writes them: nodes, MACs, IPs, VLANs, and what one may own.

Text forms, everywhere in the controller: a MAC is ``aa:bb:cc:dd:ee:ff`` in lower case; an IP is
``str(ipaddress.ip_address(x))``; a VLAN is its VID, 0 for untagged; a node id is 64 lower-case
hex digits.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final, TypeAlias

NodeId: TypeAlias = str
Mac: TypeAlias = str
Ip: TypeAlias = str
Vlan: TypeAlias = int
Key: TypeAlias = tuple[Vlan, Ip]

MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
"""The text form of a MAC; to be matched as a whole."""
NODE_ID: Final = re.compile(r"[0-9a-f]{64}")
"""The text form of a node id; to be matched as a whole."""

ZERO_MAC: Final[Mac] = "00:00:00:00:00:00"
BROADCAST_MAC: Final[Mac] = "ff:ff:ff:ff:ff:ff"
NO_IP4: Final[Ip] = "0.0.0.0"
NO_IP6: Final[Ip] = "::"
ALL_NODES_IP: Final[Ip] = "ff02::1"
ALL_NODES_MAC: Final[Mac] = "33:33:00:00:00:01"


def usable_ip(ip: Ip) -> bool:
    """Return whether a container can own ``ip``, a canonical address: RFC 1122 section 3.2.1.3,
    RFC 4291 section 2.5 (an IPv4-mapped address never appears on a wire)."""
    if ":" in ip:
        return ip not in ("::", "::1") and not ip.startswith(("ff", "::ffff:"))
    first = int(ip.partition(".")[0])
    return 0 < first < 224 and first != 127


def usable_mac(mac: Mac) -> bool:
    """Return whether ``mac`` is an individual address, and not the zero one."""
    return mac[1] in "02468ace" and mac != "00:00:00:00:00:00"


def is_unicast(mac: Mac) -> bool:
    """Return whether ``mac`` is an individual address."""
    return mac[1] in "02468ace"


def link_local(mac: Mac) -> Ip:
    """Return the link-local address that an interface forms from ``mac`` (RFC 4291 app. A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    host = bytes([octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]])
    return str(IPv6Address(b"\xfe\x80" + bytes(6) + host))


def solicited_node(ip: Ip) -> tuple[Ip, Mac]:
    """Return the multicast addresses on which the owner of ``ip`` listens (RFC 4291 2.7.1)."""
    low = IPv6Address(ip).packed[-3:]
    group = IPv6Address(bytes.fromhex("ff0200000000000000000001ff") + low)
    return str(group), "33:33:ff:" + low.hex(":")


@dataclass(frozen=True, slots=True)
class StaticBinding:
    """An address that belongs to one MAC at one node, whatever anybody else claims."""

    ip: Ip
    mac: Mac
    node: str
    """The node's name or its id."""
    vlan: Vlan = 0


def describe_key(key: Key) -> str:
    """Return ``key`` as people read it."""
    vlan, ip = key
    return f"{ip} (VLAN {vlan})" if vlan else ip
