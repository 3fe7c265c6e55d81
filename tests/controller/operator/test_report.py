"""Reports, from sources provided by hand."""

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from controller.config.load import check
from controller.errors import ControlError, SystemRefusal
from controller.operator.report import Reporter, Sources
from controller.signal.port import SignalState
from tincan.control import messages as api

A, B, C = "a" * 64, "b" * 64, "c" * 64
NAMES = {A: "alpha", B: "beta"}
MAC = "02:00:00:00:00:05"
CONFIG = check(
    {"network": "lab", "secret": "correct horse battery", "signal": "ws://r", "node": "alpha"},
    Path("switch.json"),
)


class Tap:
    state = "forwarding"
    bridge_name = "lxcbr0"

    async def check(self, now: float) -> list[str]:
        return ["the firewall drops it; cure"]


class Loops:
    def warnings(self) -> list[str]:
        return ["a loop"]

    def refusals(self) -> list[dict[str, Any]]:
        return [{"kind": "everything", "peer": "beta", "why": "loop", "count": 1, "age_s": 2.0}]


class Peer:
    def __init__(self, present: bool, why: str) -> None:
        self.present = present
        self.why = why


def snapshot() -> dict[str, Any]:
    """Return what ``switch.snapshot.take`` returns."""
    binding = {"mac": MAC, "vlan": 0, "state": "alive", "age_s": 1.0, "since_s": 2.0}
    return {
        "bindings": [
            {"ip": "10.0.3.5", "at": "local", **binding},
            {"ip": "10.0.3.7", "at": B, **binding},
        ],
        "conflicts": [
            {
                **{"ip": "10.0.3.7", "vlan": 0, "mac": MAC, "at": B},
                **{"other_mac": MAC, "other_at": "local", "state": "conflict", "age_s": 1.0},
            }
        ],
        "gateways": [{"ip": "10.0.3.1", "mac": MAC, "nodes": [A, B]}],
        "blocked": [{"kind": "claim", "peer": B, "why": "static", "count": 3, "age_s": 1.0}],
        "warnings": ["moved too often"],
    }


class Tincan:
    """A tincan that answers, until it is gone."""

    def __init__(self, links: list[api.LinkInfo]) -> None:
        self.there = True
        self._links = links

    async def links(self) -> list[api.LinkInfo]:
        if not self.there:
            raise SystemRefusal("gone")
        return self._links

    async def fdb(self) -> list[api.FdbInfo]:
        return [api.FdbInfo(MAC, 0, None, 1.5, False), api.FdbInfo(MAC, 7, B, 2.5, True)]

    async def counters(self) -> dict[str, int]:
        return {"frames_dropped.loop": 2, "both": 1}


def link(state: str, path: api.PathInfo | None) -> api.LinkInfo:
    """Return a link to B that has carried something, and refused three frames."""
    return api.LinkInfo(
        *(B, state, False, path, 1.5, 1444),
        *(1, 2, 3, 4, 5, 6),
        attended=True,
        negotiating=False,
        offloads=["gso"],
        refused=[api.RefusedFrames("dhcp", 3, 9.0), api.RefusedFrames("unheard of", 1, 9.0)],
    )


CONNECTED = link("connected", api.PathInfo("host", "srflx", "198.51.100.7:1", behind_nat=True))


def reporter(tincan: Tincan, cleared: list[str] | None = None) -> Reporter:
    forgotten: list[str] = [] if cleared is None else cleared
    return Reporter(
        CONFIG,
        Sources(
            node=A,
            started=time.monotonic() - 5,
            counters=Counter({"both": 2, "frames_dropped.malformed": 1}),
            tap=Tap(),
            loops=Loops(),
            snapshot=snapshot,
            clear=forgotten.append,
            peers=lambda: {B: Peer(True, "no answer"), C: Peer(False, "")},
            name=lambda node: NAMES.get(node, node[:8]),
            signals=lambda: [
                SignalState("ws://down", False, "no answer"),
                SignalState("ws://up", True, None),
            ],
            tap_offloads=lambda: ["vnet_hdr"],
            capturing=lambda: True,
            links=tincan.links,
            fdb=tincan.fdb,
            tincan_counters=tincan.counters,
        ),
    )


async def test_status() -> None:
    told = await reporter(Tincan([CONNECTED])).status({})
    assert (told.node.name, told.node.id, told.network) == ("alpha", A, "lab")
    assert (told.tap.name, told.tap.bridge, told.tap.state) == ("ipop", "lxcbr0", "forwarding")
    assert (told.tap.offloads, told.tap.captured) == (["vnet_hdr"], True)
    assert (told.signal.url, told.signal.connected, told.signal.error) == ("ws://up", True, "")
    assert told.warnings == ["the firewall drops it; cure", "moved too often", "a loop"]
    assert told.tap.warnings == told.warnings
    assert 5 <= told.uptime_s < 60
    assert told.counters["both"] == 3
    assert told.counters["frames_dropped"] == {"loop": 2, "malformed": 1}
    assert [(entry.at, entry.vlan) for entry in told.fdb] == [("local", 0), ("beta", 7)]


async def test_peers() -> None:
    beta, lost = (await reporter(Tincan([CONNECTED])).status({})).peers
    assert (beta.name, beta.id, beta.state, beta.why) == ("beta", B, "connected", "")
    assert (beta.tx_bytes, beta.rx_bytes, beta.tx_frames, beta.rx_frames) == (1, 2, 3, 4)
    assert (beta.tx_records, beta.tx_datagrams, beta.rtt_ms, beta.pmtu) == (5, 6, 1.5, 1444)
    assert beta.path is not None
    assert (beta.path.address, beta.path.why) == ("198.51.100.7:1", "direct, both behind NAT")
    assert (lost.name, lost.state, lost.why) == (C[:8], "lost", "it has left the rendezvous")


async def test_a_peer_without_a_path_says_why() -> None:
    (beta, _) = (await reporter(Tincan([link("connecting", None)])).status({})).peers
    assert (beta.state, beta.path, beta.why) == ("connecting", None, "no answer")
    (beta, _) = (await reporter(Tincan([])).status({})).peers
    assert (beta.state, beta.why) == ("connecting", "no answer")


async def test_what_is_blocked() -> None:
    told = await reporter(Tincan([CONNECTED])).status({})
    assert [(each.kind, each.peer, each.count) for each in told.blocked] == [
        ("claim", "beta", 3),
        ("everything", "beta", 1),
        ("dhcp", "beta", 3),
    ]


async def test_while_tincan_is_being_replaced() -> None:
    tincan = Tincan([CONNECTED])
    tincan.there = False
    told = await reporter(tincan).status({})
    assert told.fdb == []
    assert told.counters["both"] == 2
    assert [peer.state for peer in told.peers] == ["connecting", "lost"]
    assert [binding.ip for binding in told.bindings] == ["10.0.3.5", "10.0.3.7"]


async def test_bindings_have_names_in_place_of_ids() -> None:
    told = await reporter(Tincan([])).bindings({})
    assert [binding.at for binding in told.bindings] == ["local", "beta"]
    assert [(each.at, each.other_at) for each in told.conflicts] == [("beta", "local")]
    assert told.gateways[0].nodes == ["alpha", "beta"]


async def test_clear() -> None:
    cleared: list[str] = []
    asked = reporter(Tincan([]), cleared)
    assert await asked.clear({"ip": "10.0.3.7"}) == {"cleared": 2}
    assert await asked.clear({"ip": "10.0.3.9"}) == {"cleared": 0}
    assert cleared == ["10.0.3.7", "10.0.3.9"]
    for params in ({}, {"ip": 5}):
        with pytest.raises(ControlError, match='"ip" is missing'):
            await asked.clear(params)
