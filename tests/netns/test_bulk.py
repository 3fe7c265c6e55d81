"""Bulk TCP through containers of MTU 1500 over a path of MTU 1500, with nothing configured."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import pytest

from lab import Container, Lab, wait_until
from lab.layouts import Hosts, build

SIZE = 64 << 20


@dataclass
class Scene:
    hosts: Hosts
    c5: Container
    c7: Container


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One lab for all tests here."""
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def scene(lab: Lab) -> Scene:
    """Two hosts behind easy NATs, a container on each."""
    hosts = build(lab, ["easy", "easy"])
    c5 = hosts.a.container("c5", "10.0.3.5/24", ip6="fd00::5/64")
    c7 = hosts.b.container("c7", "10.0.3.7/24", ip6="fd00::7/64")
    hosts.connect()
    for container in (c5, c7):  # an address that is still being checked does not answer
        wait_until(partial(settled, container), 5, "duplicate address detection is over")
    return Scene(hosts, c5, c7)


def settled(container: Container) -> bool:
    return "tentative" not in container.run("ip -6 addr show dev eth0").stdout


def test_full_size_packets_pass(scene: Scene) -> None:
    """From the first on, whatever path MTU discovery has found by then."""
    ping = scene.c5.ping("10.0.3.7", 5, "-M", "do", "-s", "1472")
    assert (ping.received, ping.duplicates) == (5, 0), ping.output
    assert scene.c5.ping("fd00::7", 3, "-M", "do", "-s", "1452").lost == 0
    assert scene.c5.ping("10.0.3.7", 1, "-M", "do", "-s", "1473").received == 0


@pytest.mark.parametrize("address", ["TCP4:10.0.3.7", "TCP6:[fd00::7]"])
def test_a_file_arrives_whole(scene: Scene, address: str) -> None:
    """Both ways at once."""
    data = os.urandom(1 << 20) * (SIZE >> 20)
    wanted = hashlib.sha256(data).hexdigest()
    for container in (scene.c5, scene.c7):
        container.path("/run/sent").write_bytes(data)
        container.path("/run/got").unlink(missing_ok=True)
    kind = address[:4]
    server = scene.c7.popen(
        ["socat", "-t10", f"{kind}-LISTEN:5000,reuseaddr", "OPEN:/run/sent,rdonly!!CREATE:/run/got"]
    )
    wait_until(lambda: "5000" in scene.c7.run("ss -Hltn").stdout, 5, "socat listens")
    began = time.monotonic()
    words = ["socat", "-t10", f"{address}:5000", "OPEN:/run/sent,rdonly!!CREATE:/run/got"]
    scene.c5.run(words, timeout=120)
    server.wait(30)
    seconds = time.monotonic() - began
    print(f"\n{2 * SIZE * 8 / seconds / 1e9:.2f} Gbit/s in both directions together, by {address}")
    for container in (scene.c5, scene.c7):
        assert hashlib.sha256(container.path("/run/got").read_bytes()).hexdigest() == wanted
    # Nothing was cut for it: the segments on the wire are full ones, and so are the containers'.
    assert "mtu 1500" in scene.c5.run("ip link show eth0").stdout
    assert "mtu 1500" in scene.hosts.a.run("ip link show ipop").stdout
