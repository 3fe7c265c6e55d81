"""The unix socket between controller and tincan: JSON-RPC 2.0 in SOCK_SEQPACKET messages.

One message, one object, at most MAX_MESSAGE bytes. Large state is paged: a reply carries
``next``, the cursor of the page that follows, or null. Method and event names follow IPOP and
Evio where one fits. MACs travel as ``aa:bb:cc:dd:ee:ff``, frames and controller messages as
base64, node ids as 64 hex digits.

Requests (parameters -> result):
    hello            Hello           -> Welcome: who is there, and what it already runs
    open_tap         OpenTap         -> TapInfo, with a duplicate of the TAP's descriptor
    set_blocked      Blocked         -> null: let nothing but beacons through the TAP, or all again
    heartbeat        Heartbeat       -> null: a controller is here; with capture, it speaks ARP/ND
    set_identity     Identity        -> null: keys, servers, offloads
    set_addresses    Addresses       -> null: what may be offered as a candidate
    set_never_forward NeverForwardSet -> null
    pin / unpin      Pins            -> null
    create_link      NewLink         -> Offer: ours, to be carried to the peer
    answer_link      Offered         -> Offer: our answer to the peer's
    connect_link     Offered         -> null: the peer's answer to ours
    remove_link      PeerName        -> null
    query_link_stats Page            -> LinkPage
    query_fdb        Page            -> FdbPage
    query_counters   -               -> {name: count}
    inject           Frame           -> null: put a frame on the bridge
    icc              Icc             -> null: send to a peer's controller, or to all
    set_logging      Logging         -> null
    shutdown         -               -> null: give everything back and exit
Events: link_connected, link_disconnected, link_wanted, icc, mac_claimed.
"""

from typing import Annotated, Any, Final, Literal, TypeAlias

from tincan.control.codec import Meta, Raw, Struct, field
from tincan.ice.description import Description as Description  # part of this interface
from tincan.ice.description import Transport

API_VERSION: Final = 1
MAX_MESSAGE: Final = 64 << 10  # bytes; SEQPACKET would take 212,960 by default
PAGE: Final = 100  # entries
ATTACHED_FOR: Final = 1.0  # s after a heartbeat that the controller counts as there
HEARTBEAT_INTERVAL: Final = 0.3
SOCKET_NAME: Final = "tincan.sock"

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
REFUSED: Final = -32000  # the system or the state says no; the message says why

NodeId: TypeAlias = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Mac: TypeAlias = Annotated[str, Meta(pattern="^([0-9a-f]{2}:){5}[0-9a-f]{2}$")]


class Request(Struct):
    """Either way: with ``id`` it wants a Response, without it is an event."""

    method: str
    params: Raw = Raw(b"null")
    id: int | None = None
    jsonrpc: Literal["2.0"] = "2.0"


class Failure(Struct):
    code: int
    message: str


class Response(Struct):
    id: int | None
    result: Raw = Raw(b"null")
    error: Failure | None = None
    jsonrpc: Literal["2.0"] = "2.0"


class Hello(Struct, forbid_unknown_fields=True):
    api: int
    version: str


class TapInfo(Struct):
    name: str
    mac: Mac
    vnet_hdr: bool
    tso: bool
    uso: bool


class Welcome(Struct):
    api: int
    version: str
    pid: int
    node: NodeId | None
    tap: TapInfo | None
    blocked: bool = False


class OpenTap(Struct, forbid_unknown_fields=True):
    name: str
    mac: Mac
    vnet_hdr: bool = True
    tso: bool = True
    uso: bool = True


class Heartbeat(Struct, forbid_unknown_fields=True):
    capture: bool


class Blocked(Struct, forbid_unknown_fields=True):
    """``blocked``: the TAP stays silent in both directions, until it is told otherwise."""

    blocked: bool


class TurnEntry(Struct, forbid_unknown_fields=True):
    host: str
    port: int
    user: str
    password: str
    transport: Transport = "udp"


class HostPort(Struct, forbid_unknown_fields=True):
    host: str
    port: int


class Identity(Struct, forbid_unknown_fields=True):
    """Keys as hex. A second call may change servers and offloads, not keys."""

    private_key: str
    psk: str
    network_id: str
    stun: list[HostPort] = field(default_factory=list)
    turn: list[TurnEntry] = field(default_factory=list)
    gso: bool = True
    gro: bool = True
    mtu_probing: bool = True


class Addresses(Struct, forbid_unknown_fields=True):
    """Local addresses to offer; ``refused``: networks whose addresses no path may lead to."""

    local: list[str]
    refused: list[str] = field(default_factory=list)


class NeverForwardSet(Struct, forbid_unknown_fields=True):
    """``macs`` and ``ips`` None: as before. A controller that has just come knows none yet."""

    macs: list[Mac] | None
    ips: list[str] | None
    dhcp: bool = True
    router: bool = True
    link_control: bool = True


class PinEntry(Struct, forbid_unknown_fields=True):
    """``at`` None: behind our own TAP."""

    mac: Mac
    vlan: int = 0
    at: NodeId | None = None


class Pins(Struct, forbid_unknown_fields=True):
    """``replace``: forget all other pins first."""

    entries: list[PinEntry]
    replace: bool = False


class PeerName(Struct, forbid_unknown_fields=True):
    peer: NodeId


class NewLink(Struct, forbid_unknown_fields=True):
    peer: NodeId
    number: int


class Offered(Struct, forbid_unknown_fields=True):
    peer: NodeId
    number: int
    description: Description


class Offer(Struct):
    description: Description


class Page(Struct, forbid_unknown_fields=True):
    cursor: int = 0


class PathInfo(Struct):
    local: str
    remote: str
    address: str
    relay: str | None = None
    behind_nat: bool | None = None
    peer_behind_nat: bool | None = None


class RefusedFrames(Struct):
    """Frames of a kind (``frame.Kind``) that the peer sent and that stay on their host."""

    kind: str
    count: int
    age_s: float


class LinkInfo(Struct):
    peer: NodeId
    state: str
    relayed: bool
    path: PathInfo | None
    rtt_ms: float | None
    pmtu: int | None
    tx_bytes: int
    rx_bytes: int
    tx_frames: int
    rx_frames: int
    tx_records: int
    tx_datagrams: int
    attended: bool
    negotiating: bool
    offloads: list[str] = field(default_factory=list)
    refused: list[RefusedFrames] = field(default_factory=list)


class LinkPage(Struct):
    links: list[LinkInfo]
    next: int | None = None


class FdbInfo(Struct):
    mac: Mac
    vlan: int
    at: NodeId | None
    age_s: float
    pinned: bool


class FdbPage(Struct):
    entries: list[FdbInfo]
    next: int | None = None


class Frame(Struct, forbid_unknown_fields=True):
    """An Ethernet frame without virtio header."""

    frame: bytes


class Icc(Struct, forbid_unknown_fields=True):
    """``peer`` None: to every connected peer."""

    peer: NodeId | None
    channel: int
    payload: bytes


class Logging(Struct, forbid_unknown_fields=True):
    level: str


# Events


class LinkConnected(Struct):
    """The link is up, or up again, or has another path."""

    peer: NodeId
    relayed: bool


class LinkDisconnected(Struct):
    peer: NodeId
    reason: str


class LinkWanted(Struct):
    peer: NodeId
    reason: str


class IccReceived(Struct):
    peer: NodeId
    channel: int
    payload: bytes


class MacClaimed(Struct):
    """A frame came from a MAC that is pinned elsewhere; ``at`` None: from our own bridge."""

    mac: Mac
    vlan: int
    at: NodeId | None


Event: TypeAlias = LinkConnected | LinkDisconnected | LinkWanted | IccReceived | MacClaimed

EVENTS: Final[dict[str, type[Any]]] = {
    "link_connected": LinkConnected,
    "link_disconnected": LinkDisconnected,
    "link_wanted": LinkWanted,
    "icc": IccReceived,
    "mac_claimed": MacClaimed,
}
EVENT_NAMES: Final = {kind: name for name, kind in EVENTS.items()}
