"""Interfaces and addresses as the kernel describes them, and the events of ``netlink``. Pure.

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
"""RT_SCOPE_UNIVERSE and RT_SCOPE_SITE (linux/rtnetlink.h)."""

_TEMPORARY: Final = 1
"""IFA_F_TEMPORARY (linux/if_addr.h), as the flags below; for IPv4 the bit means "secondary"."""
_OPTIMISTIC: Final = 4
_DAD_FAILED: Final = 8
_DEPRECATED: Final = 32
_TENTATIVE: Final = 64


@dataclass(frozen=True, slots=True)
class Link:
    """An interface."""

    index: int
    name: str
    mac: Mac
    """"" if it has none."""
    mtu: int
    up: bool
    """True if it was brought up."""
    running: bool
    """True if it has a carrier."""
    loopback: bool
    kind: str
    """The kernel's kind: "bridge", "tun", "veth", ...; "" for hardware."""
    master: int | None
    """The index of the bridge that it is a port of."""
    parent: int | None
    """The index of what a vlan or macvlan is stacked on, or of a veth's other end here."""
    port_state: str | None
    """The spanning tree state of a bridge port, one of _PORT_STATES; None elsewhere."""
    stp: bool
    """True on a bridge that runs spanning tree."""
    forward_delay: float
    """Seconds that spanning tree waits in each state, on a bridge."""
    ageing: float
    """Seconds after which a silent entry is forgotten, on a bridge."""
    untagged: Vlan
    """The VID inside a bridge that filters VLANs of frames without a tag; 0 elsewhere."""


@dataclass(frozen=True, slots=True)
class LinkChanged:
    """The TAP, the bridge that it is in, and the bridge of the configured name, as they are now.

    None is what does not exist. A TAP without a bridge although ``configured`` exists has to be
    attached.
    """

    tap: Link | None
    bridge: Link | None
    configured: Link | None


@dataclass(frozen=True, slots=True)
class AddressChanged:
    """This host's addresses, as far as they matter to the paths of links."""

    addresses: tuple[Ip, ...]
    """Those that a peer may be told."""
    refused: tuple[str, ...] = ()
    """The networks behind the overlay, whose addresses would be reached through it."""


@dataclass(frozen=True, slots=True)
class BridgeAddressChanged:
    """The addresses of the bridge that the TAP is in, link-local ones included."""

    addresses: frozenset[tuple[Ip, Mac]]


@dataclass(frozen=True, slots=True)
class RouteChanged:
    """The default routes changed."""

    default: frozenset[tuple[int, Ip, str]]
    """Of each route the family (4 or 6), the gateway or "", and the interface's name."""


@dataclass(frozen=True, slots=True)
class GoneEntry:
    """A bridge entry that disappeared."""

    mac: Mac
    vlan: Vlan
    port: int
    """The interface index of the port."""
    bridge: int
    """The interface index of the bridge."""
    silent_for: float
    """Seconds since a frame came from this MAC.

    Near the bridge's ageing time (300 s) the entry aged out, and its owner may just be quiet; far
    below, its port went away, or its owner moved.
    """


@dataclass(frozen=True, slots=True)
class EntriesGone:
    """Entries of other ports of the TAP's bridge that disappeared.

    Their VLANs are those of the frames at the TAP. A bridge that does not filter VLANs has one
    entry for a MAC in all of them, with VLAN 0.
    """

    entries: tuple[GoneEntry, ...]


@dataclass(frozen=True, slots=True)
class EntriesUnknown:
    """Notifications of the kernel were lost, perhaps some about bridge entries."""

    present: frozenset[tuple[Mac, Vlan]]
    """All entries of the bridge's other ports, as they are now."""


Event: TypeAlias = (
    LinkChanged
    | AddressChanged
    | BridgeAddressChanged
    | RouteChanged
    | EntriesGone
    | EntriesUnknown
)


def as_the_tap_sees(entry: GoneEntry, bridge: Link) -> GoneEntry:
    """Return ``entry`` with the VLAN that its frames have on a port that nobody configured."""
    return replace(entry, vlan=0) if entry.vlan == bridge.untagged else entry


@dataclass(frozen=True, slots=True)
class Address:
    """An address of an interface, with the kernel's scope and flags."""

    index: int
    """The interface's index."""
    ip: Ip
    length: int
    """Bits of the prefix."""
    scope: int
    flags: int

    @property
    def interface(self) -> str:
        """The address as people write it, with the prefix length."""
        return f"{self.ip}/{self.length}"

    @property
    def network(self) -> tuple[int, str]:
        """The interface's index and the address's network."""
        network = ipaddress.ip_interface(self.interface).network
        return self.index, str(network)

    @property
    def beyond_link(self) -> bool:
        """True if the address means something beyond its own link."""
        return self.scope in _SCOPES_BEYOND_LINK

    @property
    def temporary(self) -> bool:
        """True for an IPv6 address that changes from day to day (RFC 8981)."""
        return ":" in self.ip and bool(self.flags & _TEMPORARY)

    @property
    def unusable(self) -> bool:
        """True if nothing should be sent from it: it failed, is deprecated, or tentative."""
        bad = _DAD_FAILED | _DEPRECATED | _TENTATIVE
        return bool(self.flags & bad) and not self.flags & _OPTIMISTIC


def address_of(message: Any) -> Address:
    """Return what an RTM_NEWADDR message says."""
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
    """Return what an RTM_NEWLINK message says."""
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
