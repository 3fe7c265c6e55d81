"""What ``controller status`` and ``controller bindings`` are told, put together from all rooms."""

import time
from typing import TYPE_CHECKING, Any, Final

from controller.config.settings import Config
from controller.errors import ControlError, SystemRefusal
from controller.host.interfaces import Link
from controller.node.counters import report
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
    explain_path,
)
from controller.packets.addresses import NodeId
from controller.version import version
from tincan.control import messages as api
from tincan.control.codec import convert

if TYPE_CHECKING:
    from controller.app import App


_MORE: Final = ("conflicts", "gateways", "blocked")
_WHY_REFUSED: Final = {
    "dhcp": 'it stays on its host; "dhcp": "relay" on both lets it through',
    "router": 'it stays on its host; "ra": "relay" on both lets it through',
    "link_control": "it stays on its segment",
    "gateway": "it concerns a gateway that both hosts have",
    "malformed_frame": "it is no whole frame",
}


class Reporter:
    """Answers the control methods."""

    def __init__(self, config: Config, app: "App") -> None:
        self._config = config
        self._app = app

    async def status(self, _: dict[str, Any]) -> Status:
        """Answer ``status``."""
        app, config = self._app, self._config
        mesh = app.mesh
        assert mesh is not None
        links, fdb, counters = await self._ask_tincan()
        snapshot = self._bindings()
        attachment = app.attachment
        tap, bridge = attachment.tap, attachment.bridge
        states = mesh.signal_states
        first = next((state for state in states if state.connected), states[0])
        warnings = await attachment.check(time.monotonic()) + app.proxy.snapshot()["warnings"]
        warnings += app.guard.warnings()
        merged = dict(app.counters)
        for name, count in counters.items():
            merged[name] = merged.get(name, 0) + count
        return Status(
            node=NodeStatus(config.node, app.node),
            tap=TapStatus(
                config.tap,
                bridge.name if bridge is not None else None,
                _tap_state(tap),
                warnings,
                app.tap_offloads,
                app.capture is not None,
            ),
            signal=SignalStatus(first.url, first.connected, first.error or ""),
            peers=self._peers(links),
            bindings=snapshot.bindings,
            fdb=fdb,
            counters=report(merged),
            network=config.network,
            version=version(),
            uptime_s=round(time.monotonic() - app.started, 1),
            conflicts=snapshot.conflicts,
            gateways=snapshot.gateways,
            blocked=[*snapshot.blocked, *self._refused(links)],
            warnings=warnings,
        )

    async def bindings(self, _: dict[str, Any]) -> Bindings:
        """Answer ``bindings``."""
        return self._bindings()

    async def clear(self, params: dict[str, Any]) -> dict[str, int]:
        """Answer ``clear``: forget an address and what is held against it; say of how much."""
        ip = params.get("ip")
        if not isinstance(ip, str):
            raise ControlError('"ip" is missing')
        known = self._app.proxy.snapshot()
        self._app.proxy.clear(ip)
        return {"cleared": sum(each["ip"] == ip for each in known["bindings"] + known["conflicts"])}

    async def _ask_tincan(
        self,
    ) -> tuple[dict[NodeId, api.LinkInfo], list[FdbStatus], dict[str, int]]:
        tunnel = self._app.tunnel
        fdb: list[FdbStatus] = []
        try:
            links = {link.peer: link for link in await self._app.links()}
            cursor: int | None = 0
            while cursor is not None:
                page = await tunnel.call("query_fdb", api.Page(cursor), api.FdbPage)
                fdb += [FdbStatus(e.mac, e.vlan, self._at(e.at), e.age_s) for e in page.entries]
                cursor = page.next
            counters = await tunnel.call("query_counters", None, dict[str, int])
        except SystemRefusal:
            return {}, fdb, {}  # tincan is being restarted: say what we know
        return links, fdb, counters

    def _at(self, node: NodeId | None) -> str:
        mesh = self._app.mesh
        assert mesh is not None
        return "local" if node is None or node == self._app.node else mesh.name(node)

    def _peers(self, links: dict[NodeId, api.LinkInfo]) -> list[PeerStatus]:
        mesh = self._app.mesh
        assert mesh is not None
        peers = []
        for node in sorted({*mesh.topology.contacts, *links}, key=mesh.name):
            contact, link = mesh.topology.contacts.get(node), links.get(node)
            why = contact.why if contact is not None else ""
            if link is None:
                state = "connecting" if contact is not None and contact.present else "lost"
                why = why or ("" if state == "connecting" else "it has left the rendezvous")
                peers.append(PeerStatus(mesh.name(node), node, state, why=why))
                continue
            path = None
            if link.path is not None:
                address = link.path.address
                told = explain_path(
                    link.path.local,
                    link.path.remote,
                    link.path.relay or address,
                    behind_nat=link.path.behind_nat,
                    peer_behind_nat=link.path.peer_behind_nat,
                )
                path = PathStatus(link.path.local, link.path.remote, address, told)
            peers.append(
                PeerStatus(
                    name=mesh.name(node),
                    id=node,
                    state=link.state,
                    path=path,
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
            )
        return peers

    def _refused(self, links: dict[NodeId, api.LinkInfo]) -> list[BlockedStatus]:
        """The frames of peers that stay on their hosts."""
        return [
            BlockedStatus(kind, self._at(peer), _WHY_REFUSED[kind], frames.count, frames.age_s)
            for peer, link in links.items()
            for frames in link.refused
            if (kind := frames.kind) in _WHY_REFUSED
        ]

    def _bindings(self) -> Bindings:
        """The switch's snapshot with names in place of ids."""
        found = self._app.proxy.snapshot()
        for binding in found["bindings"]:
            binding["at"] = self._name(binding["at"])
        for conflict in found["conflicts"]:
            conflict["at"] = self._name(conflict["at"])
            conflict["other_at"] = self._name(conflict["other_at"])
        for gateway in found["gateways"]:
            own = {self._app.node: self._config.node}
            gateway["nodes"] = sorted(own.get(n) or self._name(n) for n in gateway["nodes"])
        for blocked in found["blocked"]:
            blocked["peer"] = self._name(blocked["peer"])
        found["blocked"] += self._app.guard.refusals()
        return convert({key: found[key] for key in ("bindings", *_MORE)}, Bindings)

    def _name(self, at: str) -> str:
        return at if at == "local" else self._at(at)


def _tap_state(tap: Link | None) -> str:
    if tap is None:
        return "absent"
    if not tap.up:
        return "down"
    return tap.port_state or "up"
