"""The relay path: two hard NATs and a real coturn. Correct under load; its figures printed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import Container, Controller, Lab
from lab.layouts import build
from tests.netns.traffic import Files, Numbered, files_cross

SECONDS = 2


class Scene:
    """Two hosts that reach each other only through coturn, or, with `place` public, directly."""

    def __init__(self, lab: Lab, place: Any) -> None:
        hosts = build(lab, [place, place])
        self.a: Container = hosts.a.container("c5", "10.0.3.5/24")
        self.b: Container = hosts.b.container("c7", "10.0.3.7/24")
        turn = hosts.coturn()
        self.controllers: list[Controller] = hosts.connect(turn=[turn.config])
        self.a.wait_ping(self.b.ip)
        pids = [turn.pid, *(host.pids("tincan")[0] for host in hosts.hosts)]
        self._processes = dict(zip(("coturn", "tincan a", "tincan b"), pids, strict=True))

    def cpu(self) -> dict[str, float]:
        """Seconds of processor time that each has used."""
        fields = {
            name: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            for name, pid in self._processes.items()
        }
        return {name: (int(each[11]) + int(each[12])) / 100 for name, each in fields.items()}

    def speed(self) -> str:
        """What one TCP flow reaches, and who works for it how much."""
        before = self.cpu()
        report = self.a.iperf3(self.b, self.b.ip, SECONDS)
        megabits = report["end"]["sum_received"]["bits_per_second"] / 1e6
        used = {name: f"{(now - before[name]) / SECONDS:.0%}" for name, now in self.cpu().items()}
        return f"{megabits:.0f} Mbit/s, processors: {used}"


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with Lab() as lab:
        yield Scene(lab, "hard")


def test_it_is_relayed(scene: Scene) -> None:
    for controller in scene.controllers:
        (peer,) = controller.ask("status")["peers"]
        assert "relay" in (peer["path"]["local"], peer["path"]["remote"])
        assert peer["pmtu"] >= 1400


def test_files_cross_whole_both_ways(scene: Scene) -> None:
    files_cross([(scene.a, scene.b, scene.b.ip), (scene.b, scene.a, scene.a.ip)], 16)


def test_numbered_datagrams_arrive_once_and_in_order(scene: Scene) -> None:
    a, b = scene.a, scene.b
    with (
        Files([(a, b, b.ip)], 8),
        Numbered(a, b, b.ip, seconds=1, size=1400, rate=500) as there,
        Numbered(b, a, a.ip, seconds=1, size=64, rate=1000, port=7102) as back,
    ):
        pass
    for flow in (there, back):
        assert (flow.received["late"], flow.received["damaged"]) == (0, 0)
        assert flow.received["received"] > 0.9 * flow.sent["sent"], (flow.sent, flow.received)


def test_its_speed_beside_a_direct_path(scene: Scene, lab: Lab) -> None:
    print(f"\nrelayed {scene.speed()}")
    print(f"direct {Scene(lab, 'public').speed()}")
    for controller in scene.controllers:
        (peer,) = controller.ask("status")["peers"]
        assert peer["state"] == "connected"
