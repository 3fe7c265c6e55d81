"""What a controller tells about itself: the shapes that programs rely on, and tables for people.

The one module that imports rich. ``Status`` is what ``controller status --json`` prints; its
fields are a public interface, and new ones come with a default. Text that other nodes chose
(names) reaches the terminal as plain text with its control characters escaped.
"""

import ipaddress
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from controller.errors import ControlError, one_line
from tincan.codec import DecodeError, Struct, convert, field

PIPE_WIDTH = 200  # columns when nobody looks: nothing is cut in a file or a pipe
WATCH_EVERY = 1.0  # seconds

_LAN = [
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
_STATE_STYLES = {
    "connected": "green",
    "connecting": "yellow",
    "lost": "red",
    "conflict": "red",
    "frozen": "red",
}


class NodeStatus(Struct, frozen=True):
    """This node: its name for people, and its id (64 hexadecimal digits)."""

    name: str
    id: str


class TapStatus(Struct, frozen=True):
    """The TAP, the bridge that it is in, and that port's state (``forwarding``, ...)."""

    name: str
    bridge: str | None
    state: str
    warnings: list[str] = field(default_factory=list)


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
    why: str = ""


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
    counters: dict[str, int | dict[str, int]]  # as controller.metrics.report makes it
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


def show_status(answer: object) -> None:
    """Print the answer to ``status`` for people; raise ControlError if it has another shape."""
    _console().print(_status(_shaped(answer, Status)))


def show_bindings(answer: object) -> None:
    """Print the answer to ``bindings`` for people; raise ControlError likewise."""
    _console().print(_bindings(_shaped(answer, Bindings)))


def watch_bindings(ask: Callable[[], object]) -> None:
    """Show what ``ask`` returns, again every second, until interrupted.

    On a terminal the table stays in place; elsewhere each follows the one before.
    """
    console = _console()
    if not console.is_terminal:
        while True:
            console.print(_bindings(_shaped(ask(), Bindings)))
            sys.stdout.flush()
            time.sleep(WATCH_EVERY)
    with Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            live.update(_bindings(_shaped(ask(), Bindings)), refresh=True)
            time.sleep(WATCH_EVERY)


def _console() -> Console:
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


def _shaped(answer: object, kind: type[Any]) -> Any:
    try:
        return convert(answer, kind)
    except DecodeError as error:
        raise ControlError(f"the controller speaks another version of status: {error}") from None


def _status(status: Status) -> RenderableType:
    node, tap, signal = status.node, status.tap, status.signal
    head = Table.grid(padding=(0, 2))
    head.add_row("node", _line(node.name, style="bold"), Text(f"id {node.id[:8]}", style="dim"))
    head.add_row(
        "network",
        _line(status.network or "-"),
        Text(f"up {span(status.uptime_s)}, version {status.version or '?'}", style="dim"),
    )
    where = f"in {tap.bridge}, {tap.state}" if tap.bridge else f"in no bridge, {tap.state}"
    head.add_row("tap", _line(tap.name), _line(where))
    state = Text("connected", "green") if signal.connected else Text("not connected", "red")
    if signal.error:
        state.append(f": {one_line(signal.error)}")
    head.add_row("signal", _line(signal.url), state)
    local = sum(binding.at == "local" for binding in status.bindings)
    remote = len(status.bindings) - local
    head.add_row("addresses", f"{local} local", f"{remote} at peers (see: controller bindings)")

    conflicts = map(_conflict_line, status.conflicts)
    warnings = dict.fromkeys([*status.warnings, *tap.warnings, *conflicts])  # each once
    return Group(
        head,
        Text(),
        _peers(status.peers),
        *_gateways(status.gateways),
        *_blocked(status.blocked),
        *_counters(status.counters),
        *(Text(f"! {one_line(warning)}", style="bold yellow") for warning in warnings),
    )


def _peers(peers: list[PeerStatus]) -> RenderableType:
    if not peers:
        return Text("no other node is in the network yet", style="yellow")
    table = _table("peer", "state", "path", "address")
    for heading in ("rtt", "mtu", "sent", "received"):
        table.add_column(heading, justify="right")
    for peer in sorted(peers, key=lambda peer: (peer.name, peer.id)):
        path = peer.path
        explanation = peer.why
        if path is not None and not explanation:
            explanation = path.why or explain_path(path.local, path.remote, path.address)
        table.add_row(
            _line(peer.name or peer.id[:8], style="bold"),
            _state(peer.state),
            _line(explanation),
            _line(path.address if path else "-"),
            "-" if peer.rtt_ms is None else f"{peer.rtt_ms:.3g} ms",
            "-" if peer.pmtu is None else str(peer.pmtu),
            size(peer.tx_bytes),
            size(peer.rx_bytes),
        )
    return table


def _bindings(report: Bindings) -> RenderableType:
    vlans = any(binding.vlan for binding in report.bindings)
    table = _table("address", "MAC", *(["vlan"] if vlans else []), "at", "state")
    for heading in ("since", "heard"):
        table.add_column(heading, justify="right")
    for binding in sorted(report.bindings, key=_by_address):
        table.add_row(
            binding.ip,
            binding.mac,
            *([str(binding.vlan)] if vlans else []),
            _line(binding.at, style="bold" if binding.at == "local" else ""),
            _state(binding.state),
            "-" if binding.since_s is None else span(binding.since_s),
            span(binding.age_s),
        )
    conflicts = (Text(f"! {_conflict_line(c)}", "bold yellow") for c in report.conflicts)
    return Group(
        table if report.bindings else Text("no address is known yet", style="yellow"),
        *_gateways(report.gateways),
        *_blocked(report.blocked),
        *conflicts,
    )


def _gateways(gateways: Iterable[GatewayStatus]) -> list[RenderableType]:
    return [
        _line(
            f"shared gateway {gateway.ip} ({gateway.mac}): local to each of "
            f"{', '.join(gateway.nodes) or 'several nodes'}, never crosses"
        )
        for gateway in gateways
    ]


def _blocked(blocked: Iterable[BlockedStatus]) -> list[RenderableType]:
    return [
        _line(
            f"blocked {entry.kind} from {entry.peer}: {entry.why} "
            f"({entry.count} times, last {span(entry.age_s)} ago)"
        )
        for entry in blocked
    ]


def _counters(counters: dict[str, int | dict[str, int]]) -> list[RenderableType]:
    """One line for each group that has counted anything; zeros are for programs."""
    single = {name: count for name, count in counters.items() if isinstance(count, int)}
    groups = {name: group for name, group in counters.items() if isinstance(group, dict)}
    lines = []
    for title, group in {"counted": single, **groups}.items():
        counted = ", ".join(f"{name} {count}" for name, count in group.items() if count)
        if counted:
            lines.append(_line(f"{title.replace('_', ' ')}: {counted}", style="dim"))
    return [Text(), *lines] if lines else []


def _conflict_line(conflict: ConflictStatus) -> str:
    vlan = f" (vlan {conflict.vlan})" if conflict.vlan else ""
    return one_line(
        f"{conflict.ip}{vlan} is used twice: {conflict.mac} at {conflict.at} keeps it, "
        f"{conflict.other_mac} at {conflict.other_at} claims it "
        f"({conflict.state}, {span(conflict.age_s)} ago); give one of them another address, "
        f"then: controller clear {conflict.ip}"
    )


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _line(text: str, style: str = "") -> Text:
    return Text(one_line(text), style=style)


def _state(state: str) -> Text:
    return _line(state, style=_STATE_STYLES.get(state, ""))


def _on_lan(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in _LAN)


def _by_address(binding: BindingStatus) -> tuple[int, int, int]:
    address = ipaddress.ip_address(binding.ip)
    return address.version, int(address), binding.vlan


def span(seconds: float) -> str:
    """Return a length of time in at most two units: ``3 h 12 min``."""
    left = max(int(seconds), 0)
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
        elif parts:
            break
    return " ".join(parts[:2])


def size(count: float) -> str:
    """Return a number of bytes in three digits: ``1.23 MB``."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 999.5 or unit == "TB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" or count >= 99.95 else f"{count:.3g} {unit}"
