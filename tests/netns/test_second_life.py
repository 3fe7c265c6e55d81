"""What must hold in the second life of a controller or a TAP as in the first."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import Lab, wait_until
from lab.layouts import build


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


def test_a_tap_whose_name_was_taken_comes_back_when_it_is_free(lab: Lab) -> None:
    """The attempts that fail meanwhile end none of the others."""
    hosts = build(lab, ["lan"])
    assert hosts.rendezvous.running
    (host,) = hosts.hosts
    controller = host.controller()
    wait_until(lambda: "ipop is in bridge" in controller.output(), 20, "TAP in its bridge")
    wait_until(lambda: controller.ask("status")["tap"]["captured"], 10, "capture")
    host.run("ip link del ipop && ip link add ipop type bridge")
    wait_until(lambda: "ipop" in controller.output().split("is gone", 1)[-1], 20, "refused")
    host.run("sleep 1; ip link del ipop")
    wait_until(lambda: "ipop" in host.ports(), 30, "TAP is back")
    wait_until(lambda: controller.ask("status")["tap"]["captured"], 10, "capture")


def test_a_name_means_the_same_peer_after_a_takeover_without_rendezvous(lab: Lab) -> None:
    """What `allow` says of a peer by its name holds before presence tells the name again."""
    hosts = build(lab, ["lan", "lan"])
    assert hosts.rendezvous.running
    a, b = hosts.hosts
    one = a.controller(allow={"b": ["10.0.3.128/25"]})
    two = b.controller()
    wait_until(lambda: "b" in one.connected() and "a" in two.connected(), 40, "connected")
    hosts.rendezvous.kill()
    one.kill()
    one.start()
    wait_until(lambda: "link to" in one.output(), 20, "took the link over")
    mine = b.container("c9", "10.0.3.9/24")
    mine.run("ping -c 1 -W 1 10.0.3.77 || true")
    wait_until(lambda: one.ask("status")["blocked"], 20, "refused")
    assert "10.0.3.9" not in {binding["ip"] for binding in one.ask("bindings")["bindings"]}
