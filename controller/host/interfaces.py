"""Links and addresses as the kernel describes them, and what ``netlink`` tells about them. Pure.

The decoders take pyroute2's messages: ``get`` finds an attribute by its name without prefix, or by
the path to a nested one.
"""

import ipaddress
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from controller.packets.addresses import Ip, Mac, Vlan

_IFF_UP: Final = 1
_IFF_LOOPBACK: Final = 8
_IFF_RUNNING: Final = 64
_PORT_STATES: Final = ("disabled", "listening", "learning", "forwarding", "blocking")
_SCOPES_BEYOND_LINK: Final = frozenset({0, 200})
"""Universe, site."""

# linux/if_addr.h. For IPv4 the bit of "temporary" means "secondary", which is as good as any.
_TEMPORARY: Final = 1
_OPTIMISTIC: Final = 4
_DAD_FAILED: Final = 8
_DEPRECATED: Final = 32
_TENTATIVE: Final = 64


@dataclass(frozen=True, slots=True)
class Link:
    """An interface. ``master`` and ``parent`` are interface indexes.

    ``kind`` is the kernel's ("bridge", "tun", "veth", ...; "" for hardware). ``parent`` is what a
    vlan or macvlan is stacked on, or the other end of a veth in this namespace. ``port_state`` is
    the STP state of a bridge port, None elsewhere. ``stp``, ``forward_delay`` and ``ageing`` (s)
    mean something for bridges only, ``untagged`` for those that filter VLANs: the VID that frames
    without a tag get inside, 0 otherwise.
    """

    index: int
    name: str
    mac: Mac
    mtu: int
    up: bool
    running: bool
    loopback: bool
    kind: str
    master: int | None
    parent: int | None
    port_state: str | None
    stp: bool
    forward_delay: float
    ageing: float
    untagged: Vlan


@dataclass(frozen=True, slots=True)
class LinkChanged:
    """The TAP, the bridge that it is in, and the bridge of the configured name, as they are now.

    None for what does not exist. A TAP without a bridge although ``configured`` exists wants to
    be attached.
    """

    tap: Link | None
    bridge: Link | None
    configured: Link | None


@dataclass(frozen=True, slots=True)
class AddressChanged:
    """The addresses of this host that may be candidates, and the networks behind the overlay:
    a peer's candidate from one of them would be reached through the overlay itself."""

    addresses: tuple[Ip, ...]
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BridgeAddressChanged:
    """The addresses of the bridge that the TAP is in, link-local ones included; or none."""

    addresses: frozenset[tuple[Ip, Mac]]


@dataclass(frozen=True, slots=True)
class RouteChanged:
    """The default routes: family (4, 6), gateway or "", interface name."""

    default: frozenset[tuple[int, Ip, str]]


@dataclass(frozen=True, slots=True)
class GoneEntry:
    """A bridge entry that disappeared.

    ``silent_for``: s since a frame came from this MAC. Near the bridge's ageing time (300 s) the
    entry aged out, and its owner may just be quiet; far below, its port went away or was moved.
    """

    mac: Mac
    vlan: Vlan
    port: int
    bridge: int
    silent_for: float


@dataclass(frozen=True, slots=True)
class EntriesGone:
    """Entries of other ports of the TAP's bridge that disappeared.

    Their VLANs are those that the TAP sees. A bridge that does not filter VLANs has one entry for
    a MAC in all of them, with VLAN 0.
    """

    entries: tuple[GoneEntry, ...]


@dataclass(frozen=True, slots=True)
class EntriesUnknown:
    """Word from the kernel was lost. ``present`` are all entries of the bridge's other ports."""

    present: frozenset[tuple[Mac, Vlan]]


Event: TypeAlias = (
    LinkChanged
    | AddressChanged
    | BridgeAddressChanged
    | RouteChanged
    | EntriesGone
    | EntriesUnknown
)


def as_the_tap_sees(entry: GoneEntry, bridge: Link) -> GoneEntry:
    """The entry with the VLAN that its frames have on a port that no one configured."""
    return replace(entry, vlan=0) if entry.vlan == bridge.untagged else entry


@dataclass(frozen=True, slots=True)
class Address:
    index: int
    ip: Ip
    length: int
    scope: int
    flags: int

    @property
    def interface(self) -> str:
        return f"{self.ip}/{self.length}"

    @property
    def network(self) -> tuple[int, str]:
        network = ipaddress.ip_interface(self.interface).network
        return self.index, str(network)

    @property
    def beyond_link(self) -> bool:
        return self.scope in _SCOPES_BEYOND_LINK

    @property
    def temporary(self) -> bool:
        return ":" in self.ip and bool(self.flags & _TEMPORARY)

    @property
    def unusable(self) -> bool:
        bad = _DAD_FAILED | _DEPRECATED | _TENTATIVE
        return bool(self.flags & bad) and not self.flags & _OPTIMISTIC


def address_of(message: Any) -> Address:
    # IFA_ADDRESS is the far end on point-to-point interfaces; IFA_LOCAL, where present, is ours.
    text = message.get("local") or message.get("address")
    flags = message.get(("flags",))
    return Address(
        index=int(message["index"]),
        ip=str(ipaddress.ip_address(text)),
        length=int(message["prefixlen"]),
        scope=int(message["scope"]),
        flags=int(message["flags"] if flags is None else flags),
    )


def link_of(message: Any) -> Link:
    flags = int(message["flags"])
    state = message.get(("linkinfo", "slave_data", "state"))
    is_port = message.get(("linkinfo", "slave_kind")) == "bridge"
    elsewhere = message.get("link_netnsid") is not None
    parent = message.get("link")
    kind = str(message.get(("linkinfo", "kind")) or "")

    def bridge_value(name: str) -> int:
        value = message.get(("linkinfo", "data", name)) if kind == "bridge" else 0
        return int(value or 0)

    filters = bool(bridge_value("br_vlan_filtering"))
    return Link(
        index=int(message["index"]),
        name=str(message.get("ifname")),
        mac=str(message.get("address") or ""),
        mtu=int(message.get("mtu") or 0),
        up=bool(flags & _IFF_UP),
        running=bool(flags & _IFF_RUNNING),
        loopback=bool(flags & _IFF_LOOPBACK),
        kind=kind,
        master=message.get("master") or None,
        parent=None if elsewhere else parent or None,
        port_state=_PORT_STATES[state] if is_port and state in range(5) else None,
        stp=bool(bridge_value("br_stp_state")),
        forward_delay=bridge_value("br_forward_delay") / 100,
        ageing=bridge_value("br_ageing_time") / 100,
        untagged=bridge_value("br_vlan_default_pvid") if filters else 0,
    )
