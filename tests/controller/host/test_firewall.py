"""The firewall as the host's own tools print it, which the test plays."""

import json
from pathlib import Path
from typing import Any

import pytest

from controller.host import firewall
from controller.host.firewall import drops_bridged

FORWARD = {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward"}
USER = {"family": "ip", "table": "filter", "name": "DOCKER-USER"}


class Tools:
    """What ``nft`` prints about each chain, and which settings of br_netfilter are 1."""

    def __init__(self, chains: list[dict[str, Any]], rules: dict[str, list[Any]]) -> None:
        self.chains = chains
        self.rules = rules

    async def output(self, *command: str) -> str:
        if command[:4] == ("nft", "-j", "list", "chains"):
            return json.dumps({"nftables": [{"chain": chain} for chain in self.chains]})
        if command[:4] == ("nft", "-j", "list", "chain"):
            rules = [{"rule": {"expr": rule}} for rule in self.rules.get(command[-1], [])]
            return json.dumps({"nftables": rules})
        return ""


@pytest.fixture
def sysctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(firewall, "_SYSCTL", tmp_path)
    monkeypatch.setattr(firewall, "_LEGACY_TABLES", tmp_path / "none")
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/sbin/{name}")
    (tmp_path / "bridge-nf-call-iptables").write_text("1\n")
    return tmp_path


def play(monkeypatch: pytest.MonkeyPatch, tools: Tools) -> None:
    monkeypatch.setattr(firewall, "_output", tools.output)


async def test_docker_drops(sysctl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chains = [{**FORWARD, "policy": "drop"}, USER]
    play(monkeypatch, Tools(chains, {"FORWARD": [[{"jump": {"target": "DOCKER-USER"}}]]}))
    told = await drops_bridged("br0")
    assert told is not None
    assert "chain FORWARD of table ip filter drops what br0 forwards" in told
    assert "nft insert rule ip filter DOCKER-USER iifname br0 oifname br0 accept" in told
    assert "sysctl -w net.bridge.bridge-nf-call-iptables=0" in told


@pytest.mark.parametrize(
    ("policy", "rules"),
    [
        ("accept", {}),
        ("drop", {"FORWARD": [[{"accept": None}]]}),
        ("drop", {"FORWARD": [[{"jump": {"target": "USER"}}]], "USER": [[{"accept": None}]]}),
    ],
)
async def test_what_passes(
    sysctl: Path, monkeypatch: pytest.MonkeyPatch, policy: str, rules: dict[str, list[Any]]
) -> None:
    play(monkeypatch, Tools([{**FORWARD, "policy": policy}], rules))
    assert await drops_bridged("br0") is None


async def test_without_br_netfilter(sysctl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, Tools([{**FORWARD, "policy": "drop"}], {}))
    (sysctl / "bridge-nf-call-iptables").write_text("0\n")
    assert await drops_bridged("br0") is None
    (sysctl / "bridge-nf-call-iptables").unlink()
    assert await drops_bridged("br0") is None


async def test_chains_that_jump_in_a_circle(sysctl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    circle = {"FORWARD": [[{"jump": {"target": "FORWARD"}}]]}
    play(monkeypatch, Tools([{**FORWARD, "policy": "accept"}], circle))
    assert await drops_bridged("br0") is None


async def test_tools_that_are_missing_or_fail() -> None:
    assert await firewall._output("no-such-tool") == ""
    assert await firewall._output("false") == ""
    assert await firewall._output("echo", "hello") == "hello\n"
