"""The answers to ``controller status``, ``bindings`` and ``clear``, put together from Sources.

Whatever the operator is told comes through a Source: a function or a narrow Protocol. So a report
depends on no other part of the controller, and a test provides the sources by hand.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from controller.config.settings import Config
from controller.errors import ControlError, SystemRefusal
from controller.node.counters import report
from controller.operator.paths import explain_path
from controller.operator.status import (
    Bindings,
    BlockedStatus,
    FdbStatus,
    NodeStatus,
    PathStatus,
    PeerStatus,
    SignalStatus,
    Status,
    TapStatus,
)
from controller.packets.addresses import Ip, NodeId
from controller.signal.port import SignalState
from controller.version import version
from tincan.control import messages as api
from tincan.control.codec import convert

_MORE: Final = ("conflicts", "gateways", "blocked")
"""The parts of a snapshot beside the bindings that ``bindings`` shows."""
_WHY_REFUSED: Final = {
    "dhcp": 'it stays on its host; "dhcp": "relay" on both lets it through',
    "router": 'it stays on its host; "ra": "relay" on both lets it through',
    "link_control": "it stays on its segment",
    "gateway": "it concerns a gateway that both hosts have",
    "malformed_frame": "it is no whole frame",
}
"""What people are told about the kinds of frames that tincan refuses from peers."""


class Peer(Protocol):
    """A node that signalling or a link has told of."""

    @property
    def present(self) -> bool:
        """True if a rendezvous says that it is there."""

    @property
    def why(self) -> str:
        """The reason why there is no link to it, "" if that is not known."""


class TapSource(Protocol):
    """The TAP's place on this host."""

    @property
    def state(self) -> str:
        """``absent``, ``down``, ``up``, or the state of a bridge's port."""

    @property
    def bridge_name(self) -> str | None:
        """The bridge that the TAP is in."""

    async def check(self, now: float) -> list[str]:
        """Return what keeps frames from passing, each with its cure."""


class LoopSource(Protocol):
    """The loop guard."""

    def warnings(self) -> list[str]:
        """Return what there is to say about a loop now."""

    def refusals(self) -> list[dict[str, Any]]:
        """Return what is blocked because of it, in the shape of BlockedStatus."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where a Reporter finds what it tells. It asks anew for each answer."""

    node: NodeId
    started: float
    """When this controller started, monotonic."""
    counters: Mapping[str, int]
    tap: TapSource
    loops: LoopSource
    snapshot: Callable[[], dict[str, Any]]
    """What the switch knows; see ``switch.snapshot``."""
    clear: Callable[[Ip], None]
    """Forgets an address and what is held against it."""
    peers: Callable[[], Mapping[NodeId, Peer]]
    name: Callable[[NodeId], str]
    """What people call a node."""
    signals: Callable[[], Sequence[SignalState]]
    """The state of each rendezvous; there is at least one."""
    tap_offloads: Callable[[], list[str]]
    capturing: Callable[[], bool]
    links: Callable[[], Awaitable[list[api.LinkInfo]]]
    """Asks tincan; this and the next two raise SystemRefusal while it is being replaced."""
    fdb: Callable[[], Awaitable[list[api.FdbInfo]]]
    tincan_counters: Callable[[], Awaitable[dict[str, int]]]


class Reporter:
    """Answers the control methods ``status``, ``bindings`` and ``clear``."""

    def __init__(self, config: Config, sources: Sources) -> None:
        self._config = config
        self._from = sources

    async def status(self, _: dict[str, Any]) -> Status:
        """Answer ``status``."""
        sources, config = self._from, self._config
        links, fdb, counters = await self._ask_tincan()
        snapshot = self._bindings()
        states = sources.signals()
        first = next((state for state in states if state.connected), states[0])
        warnings = await sources.tap.check(time.monotonic()) + sources.snapshot()["warnings"]
        warnings += sources.loops.warnings()
        merged = dict(sources.counters)
        for name, count in counters.items():
            merged[name] = merged.get(name, 0) + count
        return Status(
            node=NodeStatus(config.node, sources.node),
            tap=TapStatus(
                config.tap,
                sources.tap.bridge_name,
                sources.tap.state,
                warnings,
                sources.tap_offloads(),
                sources.capturing(),
            ),
            signal=SignalStatus(first.url, first.connected, first.error or ""),
            peers=self._peers(links),
            bindings=snapshot.bindings,
            fdb=fdb,
            counters=report(merged),
            network=config.network,
            version=version(),
            uptime_s=round(time.monotonic() - sources.started, 1),
            conflicts=snapshot.conflicts,
            gateways=snapshot.gateways,
            blocked=[*snapshot.blocked, *self._refused(links)],
            warnings=warnings,
        )

    async def bindings(self, _: dict[str, Any]) -> Bindings:
        """Answer ``bindings``."""
        return self._bindings()

    async def clear(self, params: dict[str, Any]) -> dict[str, int]:
        """Answer ``clear``: forget an address and what is held against it, and count that."""
        ip = params.get("ip")
        if not isinstance(ip, str):
            raise ControlError('"ip" is missing')
        known = self._from.snapshot()
        self._from.clear(ip)
        return {"cleared": sum(each["ip"] == ip for each in known["bindings"] + known["conflicts"])}

    async def _ask_tincan(
        self,
    ) -> tuple[dict[NodeId, api.LinkInfo], list[FdbStatus], dict[str, int]]:
        """Return tincan's links, table and counters; what is known so far if it is restarting."""
        fdb: list[FdbStatus] = []
        try:
            links = {link.peer: link for link in await self._from.links()}
            fdb = [
                FdbStatus(entry.mac, entry.vlan, self._at(entry.at), entry.age_s)
                for entry in await self._from.fdb()
            ]
            counters = await self._from.tincan_counters()
        except SystemRefusal:
            return {}, fdb, {}
        return links, fdb, counters

    def _at(self, node: NodeId | None) -> str:
        """Return where something is: ``local`` or a peer's name."""
        here = node is None or node == self._from.node
        return "local" if here or node is None else self._from.name(node)

    def _peers(self, links: dict[NodeId, api.LinkInfo]) -> list[PeerStatus]:
        known = self._from.peers()
        nodes = sorted({*known, *links}, key=self._from.name)
        return [self._peer(node, known.get(node), links.get(node)) for node in nodes]

    def _peer(self, node: NodeId, peer: Peer | None, link: api.LinkInfo | None) -> PeerStatus:
        name = self._from.name(node)
        why = peer.why if peer is not None else ""
        if link is None:
            state = "connecting" if peer is not None and peer.present else "lost"
            why = why or ("" if state == "connecting" else "it has left the rendezvous")
            return PeerStatus(name, node, state, why=why)
        return PeerStatus(
            name=name,
            id=node,
            state=link.state,
            path=_path(link),
            rtt_ms=link.rtt_ms,
            pmtu=link.pmtu,
            tx_bytes=link.tx_bytes,
            rx_bytes=link.rx_bytes,
            tx_frames=link.tx_frames,
            rx_frames=link.rx_frames,
            tx_records=link.tx_records,
            tx_datagrams=link.tx_datagrams,
            why="" if link.state == "connected" else why,
            offloads=link.offloads,
            attended=link.attended,
        )

    def _refused(self, links: dict[NodeId, api.LinkInfo]) -> list[BlockedStatus]:
        """Return the frames of peers that stay on their hosts."""
        return [
            BlockedStatus(kind, self._at(peer), _WHY_REFUSED[kind], frames.count, frames.age_s)
            for peer, link in links.items()
            for frames in link.refused
            if (kind := frames.kind) in _WHY_REFUSED
        ]

    def _bindings(self) -> Bindings:
        """Return the switch's snapshot with names in place of ids."""
        found = self._from.snapshot()
        for binding in found["bindings"]:
            binding["at"] = self._named(binding["at"])
        for conflict in found["conflicts"]:
            conflict["at"] = self._named(conflict["at"])
            conflict["other_at"] = self._named(conflict["other_at"])
        for gateway in found["gateways"]:
            own = {self._from.node: self._config.node}
            gateway["nodes"] = sorted(own.get(n) or self._named(n) for n in gateway["nodes"])
        for blocked in found["blocked"]:
            blocked["peer"] = self._named(blocked["peer"])
        found["blocked"] += self._from.loops.refusals()
        return convert({key: found[key] for key in ("bindings", *_MORE)}, Bindings)

    def _named(self, at: str) -> str:
        """Return ``at`` of a snapshot, ``local`` or an id, as people read it."""
        return at if at == "local" else self._at(at)


def _path(link: api.LinkInfo) -> PathStatus | None:
    """Return the path of a link with its explanation."""
    path = link.path
    if path is None:
        return None
    told = explain_path(
        path.local,
        path.remote,
        path.relay or path.address,
        behind_nat=path.behind_nat,
        peer_behind_nat=path.peer_behind_nat,
    )
    return PathStatus(path.local, path.remote, path.address, told)
