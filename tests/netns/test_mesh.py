"""Three hosts, then eight, of all kinds: everybody reaches everybody, and a broadcast reaches
everybody once."""

from __future__ import annotations

import itertools
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack

from lab import Container, Controller, Lab
from lab.layouts import Hosts, Place, build

EXPERIMENTAL = 0x88B6  # the second of the two EtherTypes for local experiments (RFC 9542)
PLACES: Sequence[Place] = ["easy", "easy", "public", "easy", "shared", "shared", "public", "easy"]


def everybody_reaches_everybody(containers: list[Container]) -> None:
    """One ping for each ordered pair, all containers at the same time, none lost."""
    pings = {
        (one, two): one.popen(["ping", "-n", "-c", "1", "-W", "3", two.ip], stdout=subprocess.PIPE)
        for one, two in itertools.permutations(containers, 2)
    }
    failed = []
    for (one, two), ping in pings.items():
        output = ping.communicate(timeout=30)[0]
        if ping.returncode or "DUP!" in output or "Redirect" in output:
            failed.append(f"{one.name} to {two.name}:\n{output}")
    assert not failed, "\n".join(failed)


def a_broadcast_reaches_everybody_once(containers: list[Container]) -> None:
    """Each container sends one frame to all; each other gets it exactly once."""
    with ExitStack() as stack:
        captures = {
            container: stack.enter_context(
                container.capture("eth0", f"ether proto {EXPERIMENTAL} and inbound")
            )
            for container in containers
        }
        for container in containers:
            with container.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
                sender.bind(("eth0", 0))
                source = bytes.fromhex(container.mac.replace(":", ""))
                sender.send(b"\xff" * 6 + source + EXPERIMENTAL.to_bytes(2, "big") + bytes(46))
        for capture in captures.values():
            capture.wait(len(containers) - 1, 10)
        time.sleep(0.3)
    for container, capture in captures.items():
        heard = Counter(packet.src for packet in capture.packets)
        others = {other.mac: 1 for other in containers if other is not container}
        assert heard == others, f"{container.name}: {heard}"


def connect(hosts: Hosts, controllers: list[Controller]) -> None:
    """Wait until each is connected to all others."""
    names = {controller.host.name for controller in controllers}
    for controller in controllers:
        controller.wait_connected(names - {controller.host.name}, 60)


def test_three_hosts_then_eight(lab: Lab) -> None:
    hosts = build(lab, PLACES)
    containers: list[Container] = [
        host.container(f"c{number}", f"10.0.3.{number + 10}/24")
        for number, host in enumerate(hosts.hosts)
    ]
    assert hosts.rendezvous.running
    controllers = [host.controller() for host in hosts.hosts[:3]]
    connect(hosts, controllers)
    everybody_reaches_everybody(containers[:3])
    a_broadcast_reaches_everybody_once(containers[:3])

    controllers += [host.controller() for host in hosts.hosts[3:]]
    connect(hosts, controllers)
    everybody_reaches_everybody(containers)
    a_broadcast_reaches_everybody_once(containers)
    for controller in controllers:
        assert controller.running
        assert len(controller.status()["peers"]) == 7
