"""What the pure rooms of the controller speak about: packets in, actions out.

Text forms, everywhere in the controller: a MAC is ``aa:bb:cc:dd:ee:ff`` in lower case; an IP is
``str(ipaddress.ip_address(x))``; a VLAN is its VID, 0 for untagged; a node id is 64 lower-case
hex digits. ``capture.parse`` makes packets from frames, ``capture.build`` makes frames from
packets; both keep exactly the fields below.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from controller.switch.messages import Message

NodeId: TypeAlias = str
Mac: TypeAlias = str
Ip: TypeAlias = str
Vlan: TypeAlias = int

ZERO_MAC: Mac = "00:00:00:00:00:00"
BROADCAST_MAC: Mac = "ff:ff:ff:ff:ff:ff"
NO_IP4: Ip = "0.0.0.0"
NO_IP6: Ip = "::"
ALL_NODES_IP: Ip = "ff02::1"
ALL_NODES_MAC: Mac = "33:33:00:00:00:01"

ARP_REQUEST = 1
ARP_REPLY = 2

ND_ROUTER_SOLICITATION = 133
ND_ROUTER_ADVERTISEMENT = 134
ND_REDIRECT = 137


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


@dataclass(frozen=True, slots=True)
class Inject:
    """Put the packet on the local bridge, through tincan."""

    packet: Buildable


@dataclass(frozen=True, slots=True)
class Send:
    """Send the message to ``peer``, or to every connected peer when ``peer`` is None."""

    peer: NodeId | None
    message: "Message"


@dataclass(frozen=True, slots=True)
class Pin:
    """Tell tincan where a MAC is: behind peer ``at``, or here when ``at`` is None."""

    mac: Mac
    vlan: Vlan
    at: NodeId | None


@dataclass(frozen=True, slots=True)
class Unpin:
    """Tell tincan that nobody vouches for this MAC any more; what it learns itself stays."""

    mac: Mac
    vlan: Vlan


@dataclass(frozen=True, slots=True)
class NeverForward:
    """Tell tincan (and the capture) the shared gateways; replaces the set told before."""

    macs: frozenset[Mac]
    ips: frozenset[Ip]


@dataclass(frozen=True, slots=True)
class Report:
    """One log line, already deduplicated. ``level`` is a name of the logging module."""

    level: str
    text: str


Action: TypeAlias = Inject | Send | Pin | Unpin | NeverForward | Report
