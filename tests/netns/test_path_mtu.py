"""The path MTU of every link is found, whatever it is, and found again when it falls.

Nobody sets an MTU but on the wires: containers, bridges and TAPs keep their 1500.
"""

from __future__ import annotations

import itertools
import string
import time
from collections.abc import Iterator

import pytest

from lab import Container, Controller, Lab, wait_until
from lab.layouts import Hosts, build
from tests.netns.traffic import Files, files_cross

DF_1472 = ("-M", "do", "-s", "1472")
WIRES = [65535, 65535, 9000, 1500, 1280, 1200]


def pmtus(controller: Controller) -> dict[str, int]:
    return {peer["name"]: peer["pmtu"] for peer in controller.ask("status")["peers"]}


def narrow(hosts: Hosts, name: str, size: int | None) -> None:
    """Have the wire of a host carry no packet over `size`, and say nothing about it."""
    host = hosts.lab.hosts[name]
    uplink = host.uplink
    state = "off" if size else "on"
    # Packets that the kernel would cut at the far end are none on a real wire.
    for each in hosts.lab.hosts.values():
        each.run(f"ethtool -K {each.uplink.interface} tx-udp-segmentation {state} >/dev/null")
    table = f"netdev narrow-{uplink.port}"
    rules = f"add table {table}\ndelete table {table}\n"
    if size:
        rules += f"""
        table {table} {{
            chain to {{
                type filter hook egress device "{uplink.port}" priority 0;
                meta length > {size + 14} drop
            }}
            chain from {{
                type filter hook ingress device "{uplink.port}" priority 0;
                meta length > {size} drop
            }}
        }}
        """
    uplink.network.run(["nft", "-f", "-"], input=rules)


@pytest.fixture(scope="module")
def wires() -> Iterator[Hosts]:
    """One host on each kind of wire."""
    with Lab() as lab:
        network = lab.segment("lan", prefix4="192.168.7.0/24")
        server = lab.host("server", network, "plain")
        hosts = []
        for letter, mtu in zip(string.ascii_lowercase, WIRES, strict=False):
            host = lab.host(letter, network, mtu=max(mtu, 1280))
            if mtu < 1280:  # too little for IPv6: its settings vanish from the interface
                host.run(f"ip link set {host.uplink.interface} mtu {mtu}")
                network.run(f"ip link set {host.uplink.port} mtu {mtu}")
            hosts.append(host)
        yield Hosts(lab, hosts, server)


@pytest.fixture(scope="module")
def containers(wires: Hosts) -> list[Container]:
    return [
        host.container(f"c{number}", f"10.0.3.{number + 10}/24")
        for number, host in enumerate(wires.hosts)
    ]


@pytest.fixture(scope="module")
def controllers(wires: Hosts, containers: list[Container]) -> list[Controller]:
    """Every one linked to every other."""
    return wires.connect(timeout=60)


def test_status_shows_the_path_mtu_of_each_link(controllers: list[Controller]) -> None:
    mtus = dict(zip(string.ascii_lowercase, WIRES, strict=False))

    def wrong() -> list[tuple[str, str, int]]:
        found = [
            (each.host.name, name, mtu) for each in controllers for name, mtu in pmtus(each).items()
        ]
        assert len(found) == len(WIRES) * (len(WIRES) - 1)
        # The kernel's bridges and veths leave room for a VLAN tag, and it is found: a host with
        # a larger MTU reaches one with 1500 by 1504.
        return [
            (mine, theirs, mtu)
            for mine, theirs, mtu in found
            if mtu - min(mtus[mine], mtus[theirs])
            not in ((0, 4) if mtus[mine] > mtus[theirs] else (0,))
        ]

    deadline = time.monotonic() + 10
    while wrong() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert wrong() == []


def test_a_ping_of_1472_bytes_passes_on_every_link(
    controllers: list[Controller], containers: list[Container]
) -> None:
    assert controllers
    for one, two in itertools.combinations(containers, 2):
        ping = one.ping(two.ip, 2, *DF_1472, interval=0.05)
        assert (ping.received, ping.duplicates) == (2, 0), ping.output


def test_files_cross_whole(controllers: list[Controller], containers: list[Container]) -> None:
    first, *others = containers
    for other in others:
        files_cross([(first, other, other.ip), (other, first, first.ip)], 4)
    for controller in controllers:
        counters = controller.counters()
        assert "too_big" not in counters.get("records_dropped", {}), counters


@pytest.mark.parametrize("size", [1400, 1200])
def test_a_path_mtu_that_falls_under_a_flow(lab: Lab, size: int) -> None:
    hosts = build(lab, ["lan", "lan"])
    c5 = hosts.a.container("c5", "10.0.3.5/24")
    c7 = hosts.b.container("c7", "10.0.3.7/24")
    one, two = hosts.connect()
    c5.wait_ping(c7.ip)
    wait_until(lambda: pmtus(one) == {"b": 1500}, 10, "path MTU 1500")
    with Files([(c5, c7, c7.ip), (c7, c5, c5.ip)], 30) as files:
        narrow(hosts, "b", size)
        began = time.monotonic()
        while not c5.ping(c7.ip, 1, "-W", "0.3", *DF_1472).received:
            assert time.monotonic() - began < 10
        took = time.monotonic() - began
        assert not files.finished
    print(f"path MTU 1500 -> {size}: 1472 bytes with DF crossed again after {took:.2f} s")
    assert took < 3
    assert (pmtus(one), pmtus(two)) == ({"b": size}, {"a": size})


def test_no_probing_if_the_configuration_says_so(two_hosts_lan: Hosts) -> None:
    hosts = two_hosts_lan
    c5 = hosts.a.container("c5", "10.0.3.5/24")
    c7 = hosts.b.container("c7", "10.0.3.7/24")
    one, two = hosts.connect(mtu_probing=False)
    for host in (hosts.a, hosts.b):  # captures show datagrams as a wire would, not in batches
        host.run(f"ethtool -K {host.uplink.interface} tx-udp-segmentation off >/dev/null")
    with (
        hosts.a.capture(hosts.a.uplink.interface, "udp and greater 1214") as largest,
        hosts.a.capture(hosts.a.uplink.interface, "udp and greater 1215") as larger,
    ):
        assert c5.ping(c7.ip, 3, *DF_1472).received == 3
        files_cross([(c5, c7, c7.ip), (c7, c5, c5.ip)], 2)
    assert len(largest) > 1000
    assert len(larger) == 0
    assert (pmtus(one), pmtus(two)) == ({"b": 1200}, {"a": 1200})
