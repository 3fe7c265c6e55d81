"""Paths explained in a sentence."""

import pytest

from controller.operator.paths import explain_path


@pytest.mark.parametrize(
    ("local", "remote", "address", "told"),
    [
        ("host", "host", "192.168.1.7:4711", "same LAN"),
        ("host", "host", "[fe80::1]:4711", "same LAN"),
        ("host", "host", "198.51.100.7:4711", "direct, no NAT between"),
        ("host", "host", "[2001:db8::1]:4711", "direct, no NAT between"),
        ("host", "srflx", "198.51.100.7:4711", "direct, peer behind NAT"),
        ("srflx", "host", "198.51.100.7:4711", "direct, this node behind NAT"),
        ("prflx", "srflx", "198.51.100.7:4711", "direct, both behind NAT"),
        ("relay", "srflx", "203.0.113.9:3478", "relayed by 203.0.113.9: no direct path found"),
        ("host", "relay", "[2001:db8::9]:50000", "relayed by 2001:db8::9: no direct path found"),
        ("host", "host", "nonsense", "direct, no NAT between"),
    ],
)
def test_paths_explained_by_their_types(local: str, remote: str, address: str, told: str) -> None:
    assert explain_path(local, remote, address) == told


def test_paths_explained_by_who_knows_better() -> None:
    def told(address: str, here: bool, there: bool, remote: str = "srflx") -> str:
        return explain_path("host", remote, address, behind_nat=here, peer_behind_nat=there)

    assert told("198.51.100.7:1", True, True) == "direct, both behind NAT"
    assert told("198.51.100.7:1", True, False) == "direct, this node behind NAT"
    assert told("192.168.1.7:1", True, True, "host") == "same LAN"
