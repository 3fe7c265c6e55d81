"""What the HTTP server shows: the received routes as HTML, JSON and YAML.

Pure functions of a snapshot, which they sort: they may run in a thread.
"""

import html
import json
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from string import Template
from typing import Any, Final, NamedTuple, Protocol

from controller.routes.values import Destination, NextHop, NextHopType, Vni

REFRESH_S: Final = 5
"""The page renews itself after this time, as the Go program's does."""
MAX_SHOWN: Final = 2000
"""Destinations of one VNI that the page for people shows; the rest is in the JSON."""


class Shown(Protocol):
    """One received route."""

    @property
    def vni(self) -> Vni:
        """The virtual network."""

    @property
    def destination(self) -> Destination:
        """The prefix in it."""

    @property
    def hop(self) -> NextHop:
        """One of the next hops of the prefix."""


class Snapshot(NamedTuple):
    """What a node has received, and its peers: name, state, direction. ``date`` is local time."""

    date: str
    version: str
    routes: Sequence[Shown]
    peers: list[tuple[str, str, str]]
    compatible: str = "0.5.0"


def by_vni(routes: Iterable[Shown]) -> dict[Vni, dict[Destination, list[NextHop]]]:
    """Return the routes by VNI and destination, sorted as numbers: 10.0.2.0 before 10.0.10.0."""
    ordered = sorted(routes, key=_place)
    found: dict[Vni, dict[Destination, list[NextHop]]] = {}
    for route in ordered:
        found.setdefault(route.vni, {}).setdefault(route.destination, []).append(route.hop)
    return found


# --- for programs


def as_json(snapshot: Snapshot) -> bytes:
    """Return what /routes.json has: the Go program's bytes, if its routes are the same."""
    vnet = {}
    for vni, destinations in sorted(by_vni(snapshot.routes).items(), key=lambda item: str(item[0])):
        named = {_name(snapshot, d): _hops(snapshot, hops) for d, hops in destinations.items()}
        vnet[str(vni)] = dict(sorted(named.items()))
    shown = {"date": snapshot.date, "vnet": vnet, "metalbondVersion": snapshot.version}
    return json.dumps(shown, indent=2, ensure_ascii=False).encode()


def as_yaml(snapshot: Snapshot) -> bytes:
    """Return what /routes.yaml has: the structure and the names of the Go program's."""
    lines = [f"date: {_quoted(snapshot.date)}"]
    found = by_vni(snapshot.routes)
    lines.append("vnet:" if found else "vnet: {}")
    for vni, destinations in found.items():
        lines.append(f"  {vni}:")
        for destination, hops in destinations.items():
            lines.append(f"    '{_name(snapshot, destination)}':")
            for hop in _hops(snapshot, hops):
                if isinstance(hop, str):
                    lines.append(f"    - {_quoted(hop)}")
                    continue
                entries = [f"{k.lower()}: {_scalar(v)}" for k, v in hop.items()]
                lines += [f"    - {entries[0]}", *(f"      {entry}" for entry in entries[1:])]
    lines.append(f"metalbondversion: {_quoted(snapshot.version)}")
    return "\n".join(lines).encode() + b"\n"


def _name(snapshot: Snapshot, destination: Destination) -> str:
    if snapshot.compatible == "0.3.0":
        return str(destination)
    return f'{{"IPVersion":{destination.version:d},"Prefix":"{destination}"}}'


def _hops(snapshot: Snapshot, hops: list[NextHop]) -> list[Any]:
    ordered = sorted(hops, key=str)
    if snapshot.compatible == "0.3.0":
        return [str(hop) for hop in ordered]
    return [
        {
            "TargetAddress": str(hop.target_address),
            "TargetVNI": hop.target_vni,
            "Type": int(hop.type),
            "NATPortRangeFrom": hop.nat_port_range_from,
            "NATPortRangeTo": hop.nat_port_range_to,
        }
        for hop in ordered
    ]


def _quoted(text: str) -> str:
    return json.dumps(text)


def _scalar(value: object) -> str:
    """Return a number or an address as YAML. An address with a colon at an end needs quotes."""
    text = str(value)
    return _quoted(text) if text.startswith(":") or text.endswith(":") else text


# --- for people


def as_html(snapshot: Snapshot) -> bytes:
    """Return the page at /."""
    found = by_vni(snapshot.routes)
    page = Template(resources.files("controller.routes").joinpath("page.html").read_text("utf-8"))
    return page.substitute(
        refresh=REFRESH_S,
        date=html.escape(snapshot.date),
        version=html.escape(snapshot.version),
        count=len(snapshot.routes),
        peers="".join(_peers(snapshot)) or "<tr><td colspan=3>none</td></tr>",
        links=" ".join(f'<a href="#vni{vni}">{vni}</a>' for vni in found),
        tables="".join(_tables(found)) or "<p>No routes have been received.</p>",
    ).encode()


def _peers(snapshot: Snapshot) -> Iterator[str]:
    for row in sorted(snapshot.peers):
        cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
        yield f"<tr>{cells}</tr>"


def _tables(found: dict[Vni, dict[Destination, list[NextHop]]]) -> Iterator[str]:
    for vni, destinations in found.items():
        yield f'<section><h2 id="vni{vni}">VNI {vni} <small>{len(destinations)}</small></h2>'
        yield "<table><thead><tr><th>Destination<th>Next hop<th>Type</tr></thead><tbody>"
        for count, (destination, hops) in enumerate(destinations.items()):
            if count == MAX_SHOWN:
                yield f"<tr><td colspan=3>… {len(destinations) - MAX_SHOWN} more</td></tr>"
                break
            for hop in hops:
                yield f"<tr><td>{destination}</td><td>{hop}</td><td>{_type(hop)}</td></tr>"
        yield "</tbody></table></section>"


def _type(hop: NextHop) -> str:
    if hop.type == NextHopType.NAT:
        return f"NAT, ports {hop.nat_port_range_from}–{hop.nat_port_range_to}"
    names = {NextHopType.STANDARD: "standard", NextHopType.LOADBALANCER_TARGET: "load balancer"}
    return {int(kind): name for kind, name in names.items()}.get(hop.type, f"type {hop.type}")


def _place(route: Shown) -> tuple[Any, ...]:
    address, length = route.destination[:2]
    return route.vni, len(address), address, length, len(route.hop.address), route.hop
