"""The walkthrough of IPOP's switch-mode page, with real LXC containers on stock hosts."""

from __future__ import annotations

import time
from typing import Any

import pytest

from lab import Container, Controller, Lab, LxcContainer
from lab.layouts import Hosts, build
from lab.processes import wait_until

ASKS_WITHIN = 1.5  # s
ABOUT = "arp and host 10.0.3.5 and host 10.0.3.7"
BROADCAST = "ff:ff:ff:ff:ff:ff"


@pytest.fixture
def hosts(lab: Lab) -> Hosts:
    """Two stock hosts behind easy NATs with the same private subnet."""
    return build(lab, ["easy", "easy"])


def containers(hosts: Hosts) -> tuple[Container, Container]:
    """10.0.3.5 on the first host, 10.0.3.7 on the second."""
    c5 = hosts.a.container("c5", "10.0.3.5/24", kind="lxc")
    c7 = hosts.b.container("c7", "10.0.3.7/24", kind="lxc")
    return c5, c7


def growth(controller: Controller, before: dict[str, Any], name: str) -> int:
    """By how much a counter of `controller` has grown."""
    return int(controller.counters()[name]) - int(before[name])


def quiet(controllers: list[Controller]) -> None:
    """Wait until nobody asks anything: containers that have just booted still look for routers and
    for owners of their own IPv6 addresses."""
    said: list[Any] = []
    since = time.monotonic()

    def nobody_asks() -> bool:
        nonlocal said, since
        before, said = said, [controller.counters()["rpc_sent"] for controller in controllers]
        if said != before:
            since = time.monotonic()
        return time.monotonic() - since > ASKS_WITHIN

    wait_until(nobody_asks, 10, "nobody asks anything")


def test_the_walkthrough(hosts: Hosts) -> None:
    c5, c7 = containers(hosts)
    one, two = hosts.connect()
    quiet([one, two])
    before, before_b = one.counters(), two.counters()

    with hosts.a.capture("lxcbr0", ABOUT) as on_a, hosts.b.capture("lxcbr0", ABOUT) as on_b:
        ping = c5.ping("10.0.3.7", 5)
    assert (ping.received, ping.duplicates) == (5, 0), ping.output
    assert "Redirect" not in ping.output
    requests = [packet for packet in on_b.packets if packet.op == 1 and packet.dst == BROADCAST]
    replies = [packet for packet in on_a.packets if packet.op == 2]
    assert len(requests) == 1, on_b.summary()
    assert [packet.hwsrc for packet in replies] == [c7.mac], on_a.summary()
    assert replies[0].dst == c5.mac
    assert growth(one, before, "arp_requests_relayed") == 1
    assert growth(two, before_b, "arp_replies_relayed") >= 1
    assert growth(one, before, "arp_requests_injected") == 0
    assert c5.neighbours()["10.0.3.7"] == c7.mac
    assert c7.neighbours()["10.0.3.5"] == c5.mac

    c5.flush_neighbours()
    before, before_b = one.counters(), two.counters()
    with hosts.b.capture("lxcbr0", f"({ABOUT}) and ether broadcast") as on_b:
        assert c5.arping("10.0.3.7") == [c7.mac]
        time.sleep(3)
    assert not on_b.frames, on_b.summary()
    assert growth(one, before, "arp_answered_locally") >= 1
    assert growth(one, before, "arp_requests_relayed") == 0
    assert growth(two, before_b, "arp_requests_injected") == 0


def test_leases_stay_on_their_hosts(hosts: Hosts) -> None:
    """Both hosts' dnsmasq serve the same range; each container is served by its own."""
    hosts.connect()
    c5 = hosts.a.container("c5", "dhcp", kind="lxc")
    c7 = hosts.b.container("c7", "dhcp", kind="lxc")
    assert c5.wait_lease(20) != c7.wait_lease(20)
    assert set(hosts.a.leases()) == {c5.mac}
    assert set(hosts.b.leases()) == {c7.mac}
    assert c5.ping(c7.ip, 3).lost == 0


def test_a_container_that_moves(hosts: Hosts) -> None:
    """Stopped on A, started on B with the same MAC and IP."""
    c7 = hosts.b.container("c7", "10.0.3.7/24")
    hosts.connect()
    moving = hosts.a.container("m", "10.0.3.9/24", kind="lxc", mac="00:16:3e:00:00:99")
    assert c7.ping("10.0.3.9", 3).lost == 0
    assert isinstance(moving, LxcContainer)
    moving.destroy()
    hosts.b.container("m", "10.0.3.9/24", kind="lxc", mac="00:16:3e:00:00:99")
    assert c7.wait_ping("10.0.3.9") < 5
