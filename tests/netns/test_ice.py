"""Agents in network namespaces: NATs of the kernel, a real coturn."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.netns.ice_topology import (
    PASSWORD,
    PUBLIC,
    PUBLIC6,
    TLS_PORT,
    TURN_PORT,
    USER,
    needs_netns,
    readdress,
    run,
    space,
    topology,
)

pytestmark = needs_netns

# Hosts .50 and above are behind a hard NAT (ice_topology.py).
EASY_A, EASY_B, EASY_C = "192.168.7.11", "192.168.7.12", "192.168.7.13"
HARD_A, HARD_B, HARD_C = "192.168.7.51", "192.168.7.52", "192.168.7.53"
V6_A, V6_B = "2001:db8:1::11", "2001:db8:2::12"


@pytest.fixture(scope="module", autouse=True)
def certificate() -> Iterator[Path]:
    with topology() as path:
        yield path


def turn(transport: str = "udp", host: str = PUBLIC, password: str = PASSWORD) -> dict[str, Any]:
    return {
        "host": host,
        "port": TLS_PORT if transport == "tls" else TURN_PORT,
        "user": USER,
        "password": password,
        "transport": transport,
    }


@dataclass
class End:
    """One of the two agents: where it runs, and what it said."""

    host: str
    addresses: list[str]
    stun: list[tuple[str, int]] = field(default_factory=lambda: [(PUBLIC, TURN_PORT)])
    turn: list[dict[str, Any]] = field(default_factory=list)
    refresh: float = 240
    hold: float = 0
    timeout: float = 12
    said: dict[str, Any] = field(default_factory=dict)

    async def start(self, controlling: bool) -> None:
        readdress(self.host, *(a + ("/64" if ":" in a else "/24") for a in self.addresses))
        settings = {
            "controlling": controlling,
            "addresses": self.addresses,
            "stun": self.stun,
            "turn": self.turn,
            "refresh": self.refresh,
            "hold": self.hold,
            "timeout": self.timeout,
        }
        self.process = await asyncio.create_subprocess_exec(
            *("ip", "netns", "exec", space(self.host), sys.executable),
            *("-m", "tests.netns.ice_peer", json.dumps(settings)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    async def hear(self) -> None:
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), 20)
        assert line, f"{self.host} died"
        self.said.update(json.loads(line))

    def tell(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode() + b"\n")

    @property
    def types(self) -> tuple[str, str]:
        assert "path" in self.said, self.said
        return self.said["path"]["local"], self.said["path"]["remote"]


async def meet(a: End, b: End) -> None:
    """Let the two connect, exchange a record each, and close."""
    await asyncio.gather(a.start(True), b.start(False))
    try:
        await asyncio.gather(a.hear(), b.hear())
        a.tell(b.said["description"])
        b.tell(a.said["description"])
        await asyncio.gather(a.hear(), b.hear())
        report(a, b)
        for _ in range(0 if "error" in a.said else 2 if a.hold else 1):
            await asyncio.gather(a.hear(), b.hear())
        for end in (a, b):
            end.tell("close")
        await asyncio.gather(a.hear(), b.hear())
    finally:
        for end in (a, b):
            if end.process.returncode is None:
                end.process.kill()
            await end.process.wait()
    for end in (a, b):
        assert end.said["tasks"] == 0
        assert end.said["sockets"] == 0


def report(a: End, b: End) -> None:
    for end in (a, b):
        path = end.said.get("path") or end.said.get("error")
        print(f"gather {end.said['gather_s']:.3f} connect {end.said['connect_s']:.3f} {path}")


def records_cross(a: End, b: End) -> bool:
    return (a.said.get("received"), b.said.get("received")) == (b.types[0], a.types[0])


async def test_hosts_on_one_lan_use_their_own_addresses() -> None:
    a, c = End("hostA", [EASY_A]), End("hostC", [EASY_C])
    await meet(a, c)
    assert a.types == c.types == ("host", "host")
    assert records_cross(a, c)


async def test_hosts_behind_one_hard_nat_use_their_own_addresses() -> None:
    a, c = End("hostA", [HARD_A], turn=[turn()]), End("hostC", [HARD_C], turn=[turn()])
    await meet(a, c)
    assert a.types == c.types == ("host", "host")
    assert records_cross(a, c)


async def test_two_easy_nats_are_crossed_directly() -> None:
    a, b = End("hostA", [EASY_A], turn=[turn()]), End("hostB", [EASY_B], turn=[turn()])
    await meet(a, b)
    assert a.types == b.types == ("srflx", "srflx")
    assert records_cross(a, b)


@pytest.mark.parametrize(("hard", "easy"), [(0, 1), (1, 0)], ids=["hard offers", "easy offers"])
async def test_a_hard_nat_and_an_easy_one_take_a_relay(hard: int, easy: int) -> None:
    ends = [End("hostA", [HARD_A if hard == 0 else EASY_A], turn=[turn()])]
    ends.append(End("hostB", [HARD_B if hard == 1 else EASY_B], turn=[turn()]))
    await meet(*ends)
    assert "relay" in (*ends[0].types, *ends[1].types)
    assert records_cross(*ends)


async def test_two_hard_nats_take_a_relay() -> None:
    a, b = End("hostA", [HARD_A], turn=[turn()]), End("hostB", [HARD_B], turn=[turn()])
    await meet(a, b)
    assert "relay" in (*a.types, *b.types)
    assert records_cross(a, b)


@pytest.mark.parametrize("who", [0, 1], ids=["offerer", "answerer"])
async def test_one_relay_is_enough(who: int) -> None:
    ends = [End("hostA", [HARD_A]), End("hostB", [HARD_B])]
    ends[who].turn = [turn()]
    await meet(*ends)
    assert ends[who].types[0] == "relay"
    assert ends[1 - who].types[1] == "relay"
    assert records_cross(*ends)


@pytest.mark.parametrize("transport", ["tcp", "tls"])
async def test_a_relay_over_a_stream(
    transport: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    a, b = End("hostA", [HARD_A], turn=[turn(transport)]), End("hostB", [HARD_B])
    await meet(a, b)
    assert a.said["path"]["stream"]
    assert records_cross(a, b)


@pytest.mark.parametrize(
    ("transport", "refresh", "alive"), [("udp", 1, True), ("tcp", 1, True), ("udp", 240, False)]
)
async def test_a_relay_lives_on_only_with_its_channel_refreshed(
    transport: str, refresh: float, alive: bool
) -> None:
    a = End("hostA", [HARD_A], turn=[turn(transport)], refresh=refresh, hold=5)
    b = End("hostB", [HARD_B], hold=5)
    await meet(a, b)
    assert records_cross(a, b)
    assert (a.said["held"] == b.types[0]) is alive


async def test_ipv6_alone_needs_no_server() -> None:
    a, b = End("hostA", [V6_A], stun=[]), End("hostB", [V6_B], stun=[])
    await meet(a, b)
    assert a.types == b.types == ("host", "host")
    assert ":" in a.said["path"]["peer"]
    assert records_cross(a, b)


async def test_a_relay_reached_over_ipv6() -> None:
    server = [turn(host=PUBLIC6)]
    stun = [(PUBLIC6, TURN_PORT)]
    run("natB", "nft add rule inet firewall forward ip6 saddr 2001:db8:1::/64 drop")
    try:
        a, b = End("hostA", [V6_A], stun, server), End("hostB", [V6_B], stun, server)
        await meet(a, b)
    finally:
        run("natB", "nft flush chain inet firewall forward")
        run("natB", "nft add rule inet firewall forward iifname wan ct state new drop")
    assert "relay" in (*a.types, *b.types)
    assert records_cross(a, b)


async def test_a_relay_with_an_unknown_certificate_is_refused() -> None:
    a = End("hostA", [EASY_A], turn=[turn("tls")])
    c = End("hostC", [EASY_C])
    await meet(a, c)
    assert a.said["counters"] == {f"turn_failed.{PUBLIC}:{TLS_PORT}": 1}


async def test_two_hard_nats_without_a_relay_fail_with_the_reason() -> None:
    a = End("hostA", [HARD_A], timeout=3)
    b = End("hostB", [HARD_B], turn=[turn(password="wrong")], timeout=3)
    await meet(a, b)
    assert "no TURN server is configured" in a.said["error"]
    assert "no TURN server gave a relay" in b.said["error"]
    assert a.said["connect_s"] >= 3
