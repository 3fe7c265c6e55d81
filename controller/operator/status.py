"""The answers of a controller about itself: the shapes that programs rely on. Pure.

``Status`` is printed by ``controller status --json``; its fields are a public interface, and new
ones come with a default. ``operator.report`` makes them, ``operator.tables`` shows them to people.
"""

from tincan.control.codec import Struct, field


class NodeStatus(Struct, frozen=True):
    """This node: its name for people, and its id (64 hexadecimal digits)."""

    name: str
    id: str


class TapStatus(Struct, frozen=True):
    """The TAP, the bridge that it is in, and that port's state (``forwarding``, ...).

    ``offloads`` are those in use, of ``vnet_hdr``, ``tso`` and ``uso``. ``captured`` says that
    this controller hears ARP and ND on it.
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

    ``address`` is ``host:port``; ``why`` is one of the sentences of ``paths.explain_path``.
    """

    local: str
    remote: str
    address: str
    why: str = ""


class PeerStatus(Struct, frozen=True):
    """Another node of the network. ``state`` is ``connecting``, ``connected`` or ``lost``.

    ``pmtu`` is the path's MTU in bytes. ``why`` explains a state that is not ``connected``.
    ``offloads`` are those in use on this path, of ``gso`` and ``gro``. ``attended`` says that a
    controller handles ARP and ND there; if not, tincan carries them as frames.
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
    """A bridge address that several nodes have: local to each, and nothing about it crosses."""

    ip: str
    mac: str
    nodes: list[str] = field(default_factory=list)


class BlockedStatus(Struct, frozen=True):
    """Frames or claims that were kept from crossing.

    ``age_s`` is the time since the last one.
    """

    kind: str
    peer: str
    why: str
    count: int
    age_s: float = 0.0


class Bindings(Struct, frozen=True, kw_only=True):
    """The answer to the control method ``bindings``: addresses, and what was blocked."""

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
    counters: dict[str, int | dict[str, int]]
    """As ``node.counters.report`` makes them: groups by reason."""
    network: str = ""
    version: str = ""
    uptime_s: float = 0.0
    conflicts: list[ConflictStatus] = field(default_factory=list)
    gateways: list[GatewayStatus] = field(default_factory=list)
    blocked: list[BlockedStatus] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    """One line each, with its cure."""
