"""Each offload turned off, or refused by the kernel: slower, and not one byte wrong.

One host has everything; each of the others lacks something; one lacks all of it. Traffic goes
between the first and each of them, and between those that have the least in common.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from lab import Container, Controller, Lab
from lab.layouts import build
from tests.netns.traffic import Numbered, files_cross, start_tincan
from tests.netns.traffic import dropped as dropped_by_reason

EIO = """
import errno, os, struct, tincan.device.udp as udp
send = udp.UdpSocket.send
def refuse(self, place, size, address):
    _, pieces = struct.unpack("@PN", place)
    if size and pieces > 4:
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    send(self, place, size, address)
udp.UdpSocket.send = refuse
"""
OFF: dict[str, dict[str, bool]] = {
    "all": {},
    "gso": {"gso": False},
    "gro": {"gro": False},
    "tso": {"tso": False},
    "uso": {"uso": False},
    "vnet": {"vnet_hdr": False, "tso": False, "uso": False},
    "none": {"gso": False, "gro": False, "vnet_hdr": False, "tso": False, "uso": False},
    "eio": {},  # UDP_SEGMENT is refused, as by devices without checksum offload before Linux 6.11
}
NAMES = list(OFF)
PAIRS = [*(("all", name) for name in NAMES[1:]), ("none", "vnet"), ("none", "tso"), ("eio", "gro")]


class Scene:
    """Hosts by what they lack, all linked to each other."""

    def __init__(self, lab: Lab) -> None:
        hosts = build(lab, ["lan"] * len(NAMES))
        assert hosts.rendezvous.running
        self.containers: dict[str, Container] = {}
        self.controllers: dict[str, Controller] = {}
        for number, (name, host) in enumerate(zip(NAMES, hosts.hosts, strict=True)):
            container = host.container(f"c{number}", f"10.0.3.{number + 10}/24")
            container.run(f"ip addr add fd00::{number + 10}/64 dev eth0 nodad")
            self.containers[name] = container
            if name == "eio":
                start_tincan(host, EIO)
            self.controllers[name] = host.controller(node=name, offloads=OFF[name])
        for name, controller in self.controllers.items():
            controller.wait_connected({*NAMES} - {name}, 60)

    def status(self, name: str) -> Any:
        return self.controllers[name].ask("status")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One lab for all tests here."""
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def scene(lab: Lab) -> Scene:
    return Scene(lab)


@pytest.mark.parametrize(("one", "two"), PAIRS, ids=[f"{a}-{b}" for a, b in PAIRS])
def test_files_cross_whole_both_ways(scene: Scene, one: str, two: str) -> None:
    a, b = scene.containers[one], scene.containers[two]
    files_cross([(a, b, b.ip), (b, a, a.ip)], 4)


@pytest.mark.parametrize(("one", "two"), [("all", "vnet"), ("vnet", "all"), ("none", "eio")])
def test_over_ipv6_too(scene: Scene, one: str, two: str) -> None:
    """Segmented in software, both ways: TCP over IPv6."""
    a, b = scene.containers[one], scene.containers[two]
    address = next(each for each in b.addresses(6) if each.startswith("fd00"))
    report = a.iperf3(b, address, 1, "-6")
    assert report["end"]["sum_received"]["bytes"] > 1 << 20
    assert no_checksum_errors(a)
    assert no_checksum_errors(b)


def no_checksum_errors(container: Container) -> bool:
    """Whether the container's stack found every checksum right."""
    text = container.run(["cat", "/proc/net/snmp", "/proc/net/snmp6"]).stdout
    tables = [line.split() for line in text.splitlines()]
    found: dict[str, int] = {}
    for names, values in itertools.pairwise(tables):
        if names[0] == values[0] and names[0].endswith(":"):
            found |= {names[0] + n: int(v) for n, v in zip(names[1:], values[1:], strict=True)}
        elif len(names) == 2:
            found[names[0]] = int(names[1])
    errors = ("Tcp:InCsumErrors", "Udp:InCsumErrors", "Udp6InCsumErrors", "Ip:InHdrErrors")
    return not any(found.get(name, 0) for name in errors)


@pytest.mark.parametrize(("one", "two"), [("all", "uso"), ("vnet", "all"), ("none", "vnet")])
def test_numbered_datagrams_arrive_once_and_in_order(scene: Scene, one: str, two: str) -> None:
    a, b = scene.containers[one], scene.containers[two]
    with Numbered(a, b, b.ip, seconds=1, size=1400, rate=1000) as flow:
        pass
    assert flow.received["received"] == flow.sent["sent"]
    assert (flow.received["late"], flow.received["damaged"]) == (0, 0)


@pytest.mark.parametrize("name", NAMES)
def test_every_checksum_was_right_and_nothing_was_refused(scene: Scene, name: str) -> None:
    assert no_checksum_errors(scene.containers[name])
    counters = scene.controllers[name].counters()
    dropped = dropped_by_reason(counters)
    # What speaks of the TAP's offloads, or the sockets'.
    assert not {reason for reason in dropped if "tap_refused" in reason or "segment_" in reason}
    assert not {reason for reason in dropped if reason.startswith("records_dropped")}, dropped


@pytest.mark.parametrize("name", NAMES)
def test_status_says_which_are_in_use(scene: Scene, name: str) -> None:
    status = scene.status(name)
    off = {offload for offload, on in OFF[name].items() if not on}
    assert status["tap"]["offloads"] == [o for o in ("vnet_hdr", "tso", "uso") if o not in off]
    if name == "eio":
        off = {"gso"}
        assert status["counters"]["offload_fallbacks"]["udp_segment"] >= 1
    else:
        assert "offload_fallbacks" not in status["counters"]
    used = [peer["offloads"] for peer in status["peers"] if peer["tx_bytes"] > 1 << 20]
    assert used
    assert all(each == [o for o in ("gso", "gro") if o not in off] for each in used)
