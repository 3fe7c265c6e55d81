"""The packets that the controller reads and builds, as values: ARP, ND, and what concerns gateways.

``decode.parse`` makes them from frames, ``encode.build`` makes frames from them; both keep exactly
the fields below. Text forms of addresses are those of ``addresses``.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from controller.packets.addresses import Ip, Mac, Vlan

if TYPE_CHECKING:
    pass


ARP_REQUEST: Final = 1
ARP_REPLY: Final = 2

ND_ROUTER_SOLICITATION: Final = 133
ND_ROUTER_ADVERTISEMENT: Final = 134
ND_REDIRECT: Final = 137


@dataclass(frozen=True, slots=True)
class Arp:
    """An ARP packet for IPv4 over Ethernet (RFC 826): hlen 6, plen 4, op 1 or 2."""

    op: int
    sha: Mac
    spa: Ip
    tha: Mac
    tpa: Ip
    vlan: Vlan
    eth_src: Mac
    eth_dst: Mac


@dataclass(frozen=True, slots=True)
class NeighbourSolicitation:
    """An ICMPv6 neighbour solicitation (RFC 4861 section 4.3); hop limit 255, checksum right.

    ``lladdr`` is the source link-layer address option. ``options`` holds all options of the
    message, unparsed, when one of them is neither that nor a nonce (RFC 7527), and is empty
    otherwise: only the owner can answer such a message (RFC 9161 section 3.2). When building,
    non-empty ``options`` are written unchanged and in place of ``lladdr``.
    """

    target: Ip
    src_ip: Ip
    dst_ip: Ip
    lladdr: Mac | None
    vlan: Vlan
    eth_src: Mac
    eth_dst: Mac
    options: bytes = b""

    @property
    def unknown_options(self) -> bool:
        return bool(self.options)


@dataclass(frozen=True, slots=True)
class NeighbourAdvertisement:
    """An ICMPv6 neighbour advertisement (RFC 4861 section 4.4); hop limit 255, checksum right.

    ``lladdr`` is the target link-layer address option.
    """

    target: Ip
    src_ip: Ip
    dst_ip: Ip
    lladdr: Mac | None
    router: bool
    solicited: bool
    override: bool
    vlan: Vlan
    eth_src: Mac
    eth_dst: Mac


@dataclass(frozen=True, slots=True)
class RouterMessage:
    """The rest of neighbour discovery: ``kind`` is 133, 134 or 137 (RFC 4861).

    ``lladdr`` is the source (133, 134) or target (137) link-layer address option.
    """

    kind: int
    src_ip: Ip
    dst_ip: Ip
    lladdr: Mac | None
    vlan: Vlan
    eth_src: Mac
    eth_dst: Mac


@dataclass(frozen=True, slots=True)
class Echo:
    """An ICMP echo request or reply (RFC 792), IPv4 only, with its payload unchanged."""

    reply: bool
    src_ip: Ip
    dst_ip: Ip
    identifier: int
    sequence: int
    payload: bytes
    vlan: Vlan
    eth_src: Mac
    eth_dst: Mac


@dataclass(frozen=True, slots=True)
class HostPacket:
    """Any other IPv4 or IPv6 packet that a shared gateway sent to a container elsewhere.

    ``packet`` is the packet from its IP header on, cut to at most 512 bytes: what an ICMP error
    about it quotes (RFC 1812 section 4.3.2.3). ICMP errors are not captured (RFC 1122: no error
    about an error).
    """

    src_ip: Ip
    dst_ip: Ip
    packet: bytes
    vlan: Vlan
    eth_src: Mac
    eth_dst: Mac


@dataclass(frozen=True, slots=True)
class Prohibited:
    """To build only: ICMP 3/13 or ICMPv6 1/1, "communication administratively prohibited".

    ``src_ip`` and ``dst_ip`` are those of the error itself; ``quoted`` is the refused packet.
    """

    src_ip: Ip
    dst_ip: Ip
    quoted: bytes
    vlan: Vlan
    eth_src: Mac
    eth_dst: Mac


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """A DHCPREQUEST (RFC 2131 section 4.3.2): ``mac`` asks a server for ``ip``, or for more time
    with it. Nothing else of DHCP concerns us."""

    ip: Ip
    mac: Mac
    vlan: Vlan


Captured: TypeAlias = (
    Arp
    | NeighbourSolicitation
    | NeighbourAdvertisement
    | RouterMessage
    | Echo
    | HostPacket
    | LeaseRequest
)
Buildable: TypeAlias = Arp | NeighbourSolicitation | NeighbourAdvertisement | Echo | Prohibited
