"""Tables of the status for people. The one module that imports rich.

Text that other nodes chose (names) reaches the terminal as plain text with its control
characters escaped.
"""

import ipaddress
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from controller.errors import ControlError, one_line
from controller.operator.paths import explain_path
from controller.operator.status import (
    Bindings,
    BindingStatus,
    BlockedStatus,
    ConflictStatus,
    GatewayStatus,
    PeerStatus,
    Status,
)
from tincan.control.codec import DecodeError, convert

PIPE_WIDTH: Final = 200
"""Columns in a file or a pipe, where nothing shall be cut."""
WATCH_EVERY_S: Final = 1.0
"""Time between two tables of ``watch_bindings``."""

_STATE_STYLES: Final = {
    "connected": "green",
    "connecting": "yellow",
    "lost": "red",
    "conflict": "red",
    "frozen": "red",
}


def show_status(answer: object) -> None:
    """Print the answer to ``status`` for people; raise ControlError if it has another shape."""
    _console().print(_status(_shaped(answer, Status)))


def show_bindings(answer: object) -> None:
    """Print the answer to ``bindings`` for people; raise ControlError if it has another shape."""
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
            time.sleep(WATCH_EVERY_S)
    with Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            live.update(_bindings(_shaped(ask(), Bindings)), refresh=True)
            time.sleep(WATCH_EVERY_S)


def _console() -> Console:
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


def _shaped(answer: object, kind: type[Any]) -> Any:
    """Return the answer as a ``kind``; raise ControlError if it has another shape."""
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
    """Return a line for each group that has counted anything; zeros are for programs."""
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
    """Return ``text`` with what could disturb a terminal escaped."""
    return Text(one_line(text), style=style)


def _state(state: str) -> Text:
    return _line(state, style=_STATE_STYLES.get(state, ""))


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
