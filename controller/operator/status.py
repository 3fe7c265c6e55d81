"""What a controller tells about itself: the shapes that programs rely on.

``Status`` is what ``controller status --json`` prints; its fields are a public interface, and new
ones come with a default. controller.operator.tables shows them to people.
"""

import ipaddress
from typing import Final

from tincan.control.codec import Struct, field

_LAN: Final = [
    ipaddress.ip_network(prefix)
    for prefix in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "fc00::/7",
        "fe80::/10",
    )
]


class NodeStatus(Struct, frozen=True):
    """This node: its name for people, and its id (64 hexadecimal digits)."""

    name: str
    id: str


class TapStatus(Struct, frozen=True):
    """The TAP, the bridge that it is in, and that port's state (``forwarding``, ...).

    ``offloads``: what the kernel does for us there, of ``vnet_hdr``, ``tso`` and ``uso``.
    ``captured``: this controller hears ARP and ND on it, and speaks for them.
    """

    name: str
    bridge: str | None
    state: str
    warnings: list[str] = field(default_factory=list)
    offloads: list[str] = field(default_factory=list)
    captured: bool = True


class SignalStatus(Struct, frozen=True):
    """The rendezvous in use. ``error`` says why it is not connected."""

    url: str
    connected: bool
    error: str = ""


class PathStatus(Struct, frozen=True):
    """A link's path: ICE candidate types of both sides (RFC 8445), and where datagrams go.

    ``address`` is ``host:port``; ``why`` is one of the sentences of ``explain_path``.
    """

    local: str
    remote: str
    address: str
    why: str = ""


class PeerStatus(Struct, frozen=True):
    """Another node of the network. ``state`` is ``connecting``, ``connected`` or ``lost``.

    ``pmtu`` is the path's MTU in bytes. ``why`` explains a state that is not ``connected``.
    ``offloads``: what the kernel does for us on this path, of ``gso`` and ``gro``.
    ``attended``: a controller speaks ARP and ND there; if not, tincan carries them as frames.
    """

    name: str
    id: str
    state: str
    path: PathStatus | None = None
    rtt_ms: float | None = None
    pmtu: int | None = None
    tx_bytes: int = 0
    rx_bytes: int = 0
    tx_frames: int = 0
    rx_frames: int = 0
    tx_records: int = 0
    tx_datagrams: int = 0
    why: str = ""
    offloads: list[str] = field(default_factory=list)
    attended: bool = True


class BindingStatus(Struct, frozen=True):
    """An address and its owner. ``at`` is ``local`` or a peer's name.

    ``age_s`` is the time since the owner was last heard of, ``since_s`` since it has been the
    owner.
    """

    ip: str
    mac: str
    vlan: int
    at: str
    state: str
    age_s: float
    since_s: float | None = None


class FdbStatus(Struct, frozen=True):
    """A MAC address and where frames for it go: ``local`` or a peer's name."""

    mac: str
    vlan: int
    at: str
    age_s: float


class ConflictStatus(Struct, frozen=True):
    """One address, two owners: the one that keeps it, and the other."""

    ip: str
    vlan: int
    mac: str
    at: str
    other_mac: str
    other_at: str
    state: str
    age_s: float


class GatewayStatus(Struct, frozen=True):
    """A bridge address that several nodes have: local to each, about which nothing crosses."""

    ip: str
    mac: str
    nodes: list[str] = field(default_factory=list)


class BlockedStatus(Struct, frozen=True):
    """What was kept from crossing: what kind, from which peer, why, how often."""

    kind: str
    peer: str
    why: str
    count: int
    age_s: float = 0.0


class Bindings(Struct, frozen=True, kw_only=True):
    """The answer to the control method ``bindings``: who has what, and what was blocked."""

    bindings: list[BindingStatus]
    conflicts: list[ConflictStatus] = field(default_factory=list)
    gateways: list[GatewayStatus] = field(default_factory=list)
    blocked: list[BlockedStatus] = field(default_factory=list)


class Status(Struct, frozen=True, kw_only=True):
    """The answer to the control method ``status``."""

    node: NodeStatus
    tap: TapStatus
    signal: SignalStatus
    peers: list[PeerStatus]
    bindings: list[BindingStatus]
    fdb: list[FdbStatus]
    counters: dict[str, int | dict[str, int]]  # as controller.node.counters.report makes it
    network: str = ""
    version: str = ""
    uptime_s: float = 0.0
    conflicts: list[ConflictStatus] = field(default_factory=list)
    gateways: list[GatewayStatus] = field(default_factory=list)
    blocked: list[BlockedStatus] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)  # each with its cure


def explain_path(
    local: str,
    remote: str,
    address: str,
    *,
    behind_nat: bool | None = None,
    peer_behind_nat: bool | None = None,
) -> str:
    """Return in one line what kind of path a link has, and why not a better one.

    Takes the ICE candidate types of both ends and the ``host:port`` where datagrams go. Who
    knows from the candidates that were exchanged whether the ends are behind NATs says so;
    otherwise the types decide, and an ICE agent calls its own end ``host`` in most pairs.
    """
    host = address.rpartition(":")[0].strip("[]")
    if "relay" in (local, remote):
        return f"relayed by {host}: no direct path found"
    if local == remote == "host" and _on_lan(host):
        return "same LAN"
    here = local in ("srflx", "prflx") if behind_nat is None else behind_nat
    there = remote in ("srflx", "prflx") if peer_behind_nat is None else peer_behind_nat
    if here and there:
        return "direct, both behind NAT"
    if here or there:
        return f"direct, {'this node' if here else 'peer'} behind NAT"
    return "direct, no NAT between"


def _on_lan(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in _LAN)
