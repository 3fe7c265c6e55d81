"""A slow or dead peer costs the others nothing, a slow device no more delay than it must.

Also what comes of it under load: numbered datagrams, and files both ways at once.
"""

from __future__ import annotations

import re
import statistics
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from lab import Container, Controller, Lab
from lab.layouts import Hosts, build
from tests.netns.traffic import Files, Numbered, files_cross


class Scene:
    """a sends; b is slow or dead, c is well."""

    def __init__(self, lab: Lab) -> None:
        self.hosts: Hosts = build(lab, ["lan"] * 3)
        self.a, self.b, self.c = (
            host.container(f"c{number}", f"10.0.3.{number + 10}/24")
            for number, host in enumerate(self.hosts.hosts)
        )
        self.one, self.two, self.three = self.hosts.connect()
        for other in (self.b, self.c):
            self.a.wait_ping(other.ip)


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with Lab() as lab:
        yield Scene(lab)


class Pings:
    """Pings every 50 ms while the `with` lasts; then `times` in ms and how many were `lost`."""

    def __init__(self, place: Container, address: str) -> None:
        words = ["ping", "-n", "-i", "0.05", "-W", "2", address]
        self._process = place.popen(words, stdout=subprocess.PIPE)
        self.times: list[float] = []
        self.lost = 0

    def __enter__(self) -> Pings:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(2)
        output, _stderr = self._process.communicate()
        self.times = [float(time) for time in re.findall(r"time=([\d.]+)", output)]
        sent, received = re.findall(r"(\d+) packets transmitted, (\d+) received", output)[0]
        self.lost = int(sent) - int(received)

    @property
    def median(self) -> float:
        return statistics.median(self.times)


def megabits(report: Any) -> float:
    return float(report["end"]["sum_received"]["bits_per_second"]) / 1e6


def drops(controller: Controller) -> dict[str, int]:
    counters = controller.counters()
    return {**counters["frames_dropped"], **counters.get("records_dropped", {})}


def far(scene: Scene, rate: str | None) -> None:
    """Limit the wire to b, behind the switch."""
    uplink = scene.hosts.b.uplink
    uplink.network.run(["tc", "qdisc", "del", "dev", uplink.port, "root"], check=False)
    if rate:
        uplink.network.run(
            f"tc qdisc add dev {uplink.port} root tbf rate {rate} burst 128kb latency 50ms"
        )


def test_a_slow_peer_costs_the_others_nothing(scene: Scene) -> None:
    with Pings(scene.a, scene.c.ip) as alone:
        before = megabits(scene.a.iperf3(scene.c, scene.c.ip, 1))
    far(scene, "10mbit")
    words = ["iperf3", "--server", "--one-off", "--port", "5300"]
    server = scene.b.popen(words)
    scene.b.run("until ss -Hltn 'sport = 5300' | grep -q .; do sleep 0.05; done")
    bulk = scene.a.popen(["iperf3", "-c", scene.b.ip, "-p", "5300", "-t", "3"])
    with Pings(scene.a, scene.b.ip) as slow, Pings(scene.a, scene.c.ip) as well:
        after = megabits(scene.a.iperf3(scene.c, scene.c.ip, 1))
    print(
        f"beside a peer at 10 Mbit/s: {after:.0f} Mbit/s (alone {before:.0f}), ping"
        f" {well.median:.1f} ms (alone {alone.median:.1f}); to that peer {slow.median:.1f} ms"
    )
    bulk.wait(20)
    server.wait(20)
    far(scene, None)
    assert after > before / 4  # the pings and the other flow take processor time, not more
    assert well.lost == 0
    assert well.median < 10 * alone.median + 10
    assert slow.median < 200


def test_a_dead_peer_costs_the_others_nothing(scene: Scene) -> None:
    """Its death is not yet noticed: what is sent to it goes nowhere."""
    scene.hosts.b.uplink.down()
    try:
        flood = f"yes | timeout 3 busybox nc -u {scene.b.ip} 9 || true"
        sending = scene.a.popen(["sh", "-c", flood])
        with Pings(scene.a, scene.c.ip) as well:
            files_cross([(scene.a, scene.c, scene.c.ip), (scene.c, scene.a, scene.a.ip)], 16)
        sending.wait(10)
    finally:
        scene.hosts.b.uplink.up()
    assert well.lost == 0
    for controller in (scene.one, scene.two):
        controller.wait_connected({"a", "b", "c"} - {controller.host.name}, 30)
    assert scene.a.wait_ping(scene.b.ip, 20) < 20


@pytest.mark.parametrize("rate", ["10mbit", "100mbit"])
def test_a_slow_device_queues_little(scene: Scene, rate: str) -> None:
    """Our own, with a queue that would take all that we have: every drop is ours, and counted."""
    host = scene.hosts.a
    interface = host.uplink.interface
    host.run(f"tc qdisc add dev {interface} root tbf rate {rate} burst 128kb limit 200mb")
    before = drops(scene.one)
    try:
        with Pings(scene.a, scene.b.ip) as ping:
            reached = megabits(scene.a.iperf3(scene.b, scene.b.ip, 3, "-P", "4", "-C", "reno"))
    finally:
        host.run(["tc", "qdisc", "del", "dev", interface, "root"])
    news = {name: n - before.get(name, 0) for name, n in drops(scene.one).items()}
    print(
        f"{rate} device: {reached:.1f} Mbit/s, ping {ping.median:.0f} ms beside it,"
        f" dropped { ({name: n for name, n in news.items() if n}) }"
    )
    assert reached > 0.8 * float(rate.removesuffix("mbit"))
    assert ping.median < 250
    assert news.get("device_backlog", 0) > 0
    assert news.get("not_sent", 0) == news.get("socket_full", 0) == 0


def test_load_in_both_directions_is_carried_right(scene: Scene) -> None:
    """Numbered datagrams both ways, each once and in order, beside files both ways."""
    a, c = scene.a, scene.c
    with (
        Files([(a, c, c.ip), (c, a, a.ip)], 24),
        Numbered(a, c, c.ip, seconds=2, size=300, rate=2000) as there,
        Numbered(c, a, a.ip, seconds=2, size=1400, rate=1000, port=7102) as back,
    ):
        pass
    for flow in (there, back):
        assert (flow.received["late"], flow.received["damaged"]) == (0, 0)
        assert flow.received["received"] > 0.9 * flow.sent["sent"], (flow.sent, flow.received)
        print(f"{flow.received['received']} of {flow.sent['sent']} datagrams beside the files")
