"""The walkthrough of IPOP's switch-mode page, seen on both bridges; and what follows later.

Two stock hosts behind easy NATs with the same private subnet. tests/lxc has it with real LXC
containers; here they are bare namespaces, so that nothing but the kernel speaks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from lab import Container, Controller, Lab, wait_until
from lab.layouts import Hosts, build

A_IP, B_IP = "10.0.3.5", "10.0.3.7"
ARP = f"arp and host {A_IP} and host {B_IP}"
BROADCAST = "ff:ff:ff:ff:ff:ff"
REQUEST, REPLY = 1, 2
PROBE_SIZE = 49
"""UDP payload of the probe that keeps an idle link: record header 16, tag 16, and one item."""


@dataclass
class Scene:
    """The two hosts, their controllers, 10.0.3.5 on A and 10.0.3.7 on B."""

    hosts: Hosts
    one: Controller
    two: Controller
    c5: Container
    c7: Container


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One lab for all tests here."""
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def scene(lab: Lab) -> Scene:
    """Both connected, and nothing about the containers known to anybody."""
    hosts = build(lab, ["easy", "easy"])
    c5 = hosts.a.container("c5", f"{A_IP}/24")
    c7 = hosts.b.container("c7", f"{B_IP}/24")
    for container in (c5, c7):
        container.run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1")
    one, two = hosts.connect()
    return Scene(hosts, one, two, c5, c7)


def growth(now: dict[str, Any], before: dict[str, Any]) -> dict[str, int]:
    """By how much each plain counter has grown, those that have not left out."""
    return {
        name: count - before.get(name, 0)
        for name, count in now.items()
        if isinstance(count, int) and count != before.get(name, 0)
    }


def rpcs(controller: Controller) -> tuple[int, int]:
    """How many messages between controllers it has sent and received."""
    counters = controller.counters()
    return sum(counters["rpc_sent"].values()), sum(counters["rpc_received"].values())


def about(packets: list[Any], operation: int, target: str, to: str | None = None) -> list[Any]:
    """The ARP packets with this operation and target address, and Ethernet destination."""
    found = [p for p in packets if p.op == operation and p.pdst == target]
    return [p for p in found if to is None or p.dst == to]


def test_steps_one_to_six(scene: Scene) -> None:
    hosts, c5, c7 = scene.hosts, scene.c5, scene.c7
    before_a, before_b = scene.one.counters(), scene.two.counters()
    with (
        hosts.a.capture("lxcbr0", "arp or icmp") as on_a,
        hosts.b.capture("lxcbr0", "arp or icmp") as on_b,
    ):
        ping = c5.ping(B_IP, 5)  # the first that anybody hears of either
        time.sleep(0.5)
    assert (ping.received, ping.duplicates) == (5, 0), ping.output
    assert "Redirect" not in ping.output

    arp_a = [packet for packet in on_a.packets if packet.type == 0x0806]
    arp_b = [packet for packet in on_b.packets if packet.type == 0x0806]
    # 1: A's container asks. 2, 3: one request on B's bridge, in its name.
    assert len(about(arp_a, REQUEST, B_IP, BROADCAST)) >= 1, on_a.summary()
    (asked,) = about(arp_b, REQUEST, B_IP)
    assert (asked.src, asked.hwsrc, asked.psrc) == (c5.mac, c5.mac, A_IP)
    # 4: B's container answers. 5, 6: one reply on A's bridge, with its real MAC.
    (answered,) = about(arp_b, REPLY, A_IP)
    (told,) = about(arp_a, REPLY, A_IP)
    for reply in (answered, told):
        assert (reply.src, reply.hwsrc, reply.psrc) == (c7.mac, c7.mac, B_IP)
        assert (reply.dst, reply.hwdst) == (c5.mac, c5.mac)
    assert not about(arp_b, REQUEST, A_IP, BROADCAST)

    # Each echo and each answer once, with the real MACs, on both bridges; nothing else in ICMP.
    for capture in (on_a, on_b):
        icmp = [packet for packet in capture.packets if packet.type == 0x0800]
        kinds = [(packet["ICMP"].type, packet.src, packet.dst) for packet in icmp]
        there = (8, c5.mac, c7.mac)
        back = (0, c7.mac, c5.mac)
        assert sorted(kinds) == sorted([there, back] * 5), capture.summary()

    grown_a = growth(scene.one.counters(), before_a)
    grown_b = growth(scene.two.counters(), before_b)
    assert grown_a["arp_requests_relayed"] == 1
    assert grown_b["arp_requests_injected"] == 1
    assert grown_b["arp_replies_relayed"] == 1
    assert grown_a["arp_replies_injected"] == 1
    assert c5.neighbours()[B_IP] == c7.mac
    assert c7.neighbours()[A_IP] == c5.mac


def test_a_repeat_is_answered_at_home(scene: Scene) -> None:
    """After that, a broadcast request leaves nothing on the link but its keep-alive."""
    hosts, c5, c7 = scene.hosts, scene.c5, scene.c7
    assert c5.ping(B_IP, 1).received
    # B's container checks on A's 5 s after it was last asked; then nobody has a doubt left.
    wait_until(lambda: all_reachable(c5) and all_reachable(c7), 15, "checks are done")
    wait_quiet(scene)

    c5.flush_neighbours()
    before = scene.one.counters()
    rpc_before = rpcs(scene.one), rpcs(scene.two)
    with (
        hosts.a.capture("lxcbr0", "arp") as on_a,
        hosts.b.capture("lxcbr0", ARP) as on_b,
        hosts.b.capture("ipop", "arp") as on_tap,
        hosts.a.capture(hosts.a.uplink.interface, "udp and not port 3478") as on_wire,
    ):
        assert c5.arping(B_IP) == [c7.mac]
        time.sleep(3)
    (reply,) = about(on_a.packets, REPLY, A_IP)
    assert (reply.hwsrc, reply.dst) == (c7.mac, c5.mac)
    assert not on_b.frames, on_b.summary()
    assert not on_tap.frames, on_tap.summary()
    assert growth(scene.one.counters(), before).get("arp_answered_locally") == 1
    assert "arp_requests_relayed" not in growth(scene.one.counters(), before)
    assert (rpcs(scene.one), rpcs(scene.two)) == rpc_before
    sizes = [len(packet["UDP"].payload) for packet in on_wire.packets]
    assert len(sizes) <= 4, sizes
    assert all(size <= PROBE_SIZE for size in sizes), sizes


def all_reachable(container: Container) -> bool:
    """Whether the container holds no ARP entry in doubt."""
    states = container.run("ip -4 neigh show dev eth0").stdout
    return not any(state in states for state in ("DELAY", "PROBE", "INCOMPLETE", "STALE"))


def wait_quiet(scene: Scene, seconds: float = 1.5) -> None:
    """Wait until no controller has had anything to say for a while."""
    deadline = time.monotonic() + 20
    last = None
    while time.monotonic() < deadline:
        now = rpcs(scene.one), rpcs(scene.two)
        if now == last:
            return
        last = now
        time.sleep(seconds)
    raise AssertionError(f"the controllers do not stop talking: {last}")


def test_the_kernels_reachability_checks(scene: Scene) -> None:
    """Unicast ARP, as it comes after 30 to 60 s of use: to the owner and back, each once."""
    hosts, c5, c7 = scene.hosts, scene.c5, scene.c7
    for container in (c5, c7):
        container.run(
            "cd /proc/sys/net/ipv4/neigh/eth0\n"
            "echo 1000 > base_reachable_time_ms; echo 1 > delay_first_probe_time\n"
            "ip neigh flush all"  # so that the times hold for the new entries
        )
    with hosts.a.capture("lxcbr0", ARP) as on_a, hosts.b.capture("lxcbr0", ARP) as on_b:
        ping = c5.ping(B_IP, 100, interval=0.1)
        time.sleep(0.2)
    assert (ping.received, ping.duplicates) == (100, 0), ping.output
    assert "Redirect" not in ping.output
    for asker, asked, mac, capture in (
        (A_IP, B_IP, c7.mac, on_b),
        (B_IP, A_IP, c5.mac, on_a),
    ):
        checks = [p for p in about(capture.packets, REQUEST, asked, mac) if p.psrc == asker]
        assert checks, f"{asker} made no check:\n{capture.summary()}"
        # The owner itself answered each of them.
        answers = [p for p in about(capture.packets, REPLY, asker) if p.psrc == asked]
        assert len(answers) >= len(checks), capture.summary()
    for asker, capture in ((A_IP, on_a), (B_IP, on_b)):
        requests = [p for p in capture.packets if p.op == REQUEST and p.psrc == asker]
        replies = [p for p in capture.packets if p.op == REPLY and p.pdst == asker]
        assert len(replies) == len(requests), capture.summary()  # each once
