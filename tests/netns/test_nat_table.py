"""Which path two hosts find, wherever they are; and that `status` says which, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from lab import CommandFailed, Controller, Lab, wait_until
from lab.layouts import Place, build

# places -> candidate types that the two ends may call their own, why, whether there is a coturn
TABLE: list[tuple[Sequence[Place], set[str], str, bool]] = [
    (("lan", "lan"), {"host"}, "same LAN", False),
    (("shared", "shared"), {"host"}, "same LAN", False),
    (("public", "public"), {"host"}, "direct, no NAT between", False),
    (("easy", "easy"), {"srflx", "prflx"}, "direct, both behind NAT", False),
    (("ipv6", "ipv6"), {"host"}, "direct, no NAT between", False),
    (("ipv6-firewall", "ipv6-firewall"), {"host", "prflx"}, "direct, no NAT between", False),
    (("easy", "hard"), {"relay"}, "relayed by 203.0.113.10: no direct path found", True),
    (("hard", "hard"), {"relay"}, "relayed by 203.0.113.10: no direct path found", True),
]


def path_to(controller: Controller, name: str) -> dict[str, Any]:
    """The path that the status of `controller` shows to the peer `name`."""
    (peer,) = [peer for peer in controller.ask("status")["peers"] if peer["name"] == name]
    assert peer["state"] == "connected"
    path: dict[str, Any] = peer["path"]
    return path


@pytest.mark.parametrize(
    ("places", "types", "why", "turn"), TABLE, ids=["-".join(row[0]) for row in TABLE]
)
def test_path(lab: Lab, places: Sequence[Place], types: set[str], why: str, turn: bool) -> None:
    hosts = build(lab, places)
    c5 = hosts.a.container("c5", "10.0.3.5/24")
    hosts.b.container("c7", "10.0.3.7/24")
    coturn = hosts.coturn() if turn else None
    one, two = hosts.connect(turn=[coturn.config] if coturn else None)
    assert c5.ping("10.0.3.7", 2).lost == 0

    here, there = path_to(one, "b"), path_to(two, "a")
    if turn:  # one relay will do: then the other end sends to it as to a host
        assert {"relay"} <= {here["local"], here["remote"]}, here
        assert {"relay"} <= {there["local"], there["remote"]}, there
    else:
        assert {here["local"], here["remote"]} <= types, here
        assert {there["local"], there["remote"]} <= types, there
        assert here["address"] != there["address"]
    assert (here["why"], there["why"]) == (why, why)
    assert why in one.status_text()
    if places[0] in ("lan", "shared"):
        assert here["address"].rpartition(":")[0] == hosts.b.uplink.ip4
        assert there["address"].rpartition(":")[0] == hosts.a.uplink.ip4


def test_one_end_behind_a_nat(lab: Lab) -> None:
    """Each end says of itself and of the other what is true."""
    hosts = build(lab, ["easy", "public"])
    one, two = hosts.connect()
    assert path_to(one, "b")["why"] == "direct, this node behind NAT"
    assert path_to(two, "a")["why"] == "direct, peer behind NAT"


def test_no_path_is_explained(lab: Lab) -> None:
    """Two hard NATs and no relay: `status` says what is missing."""
    hosts = build(lab, ["hard", "hard"])
    one, two = hosts.start()

    def explained() -> bool:
        peers = [*peers_of(one), *peers_of(two)]
        return len(peers) == 2 and all("no TURN server is configured" in p["why"] for p in peers)

    wait_until(explained, 40, "the reason")
    assert "no TURN server is configured" in one.status_text()


def peers_of(controller: Controller) -> list[dict[str, Any]]:
    """The peers in its status; none while it is starting."""
    try:
        peers: list[dict[str, Any]] = controller.ask("status")["peers"]
    except CommandFailed:
        return []
    return peers
