"""One address, two users: who keeps it, who is told, and what stops the to and fro."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from lab import Lab, wait_until
from tests.netns.overlay import Overlay, announce, connected


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def net(lab: Lab) -> Overlay:
    return connected(lab, ["lan", "lan", "lan"])


def clear(net: Overlay, ip: str) -> str:
    """`controller clear IP`, on the first host."""
    words = ["controller", "clear", "--config", net.controller(net.a).file, ip]
    return net.a.run(words).stdout


@pytest.mark.parametrize("version", [4, 6])
def test_the_first_holder_keeps_its_address(net: Overlay, version: int) -> None:
    ip, length = ("10.0.3.50", 24) if version == 4 else ("fd00::50", 64)
    with net.containers(
        (net.a, "10.0.3.20"), (net.b, "10.0.3.21"), (net.c, "10.0.3.22"), (net.b, "10.0.3.23")
    ) as (first, second, watcher, beside):
        first.run(f"ip addr add {ip}/{length} dev eth0 {'nodad' if version == 6 else ''}")
        assert watcher.ping(ip).received == 1
        net.wait_at(ip, net.a)
        before = net.counted("conflicts")
        second.run(f"ip addr add {ip}/{length} dev eth0 {'nodad' if version == 6 else ''}")
        started = time.monotonic()
        second.ping("10.0.3.22" if version == 4 else "fd00::22", 2, "-I", ip)

        def conflicts(host: str) -> list[dict[str, str]]:
            controller = next(c for c in net.controllers if c.host.name == host)
            return [c for c in controller.ask("status")["conflicts"] if c["ip"] == ip]

        for host in ("a", "b"):
            wait_until(lambda host=host: bool(conflicts(host)), 5, f"{host} reports it")  # type: ignore[misc]
        print(f"{ip}: reported after {time.monotonic() - started:.2f} s, two pings included")
        for host, holder, other in (("a", "local", "b"), ("b", "a", "local")):
            [conflict] = conflicts(host)
            assert (conflict["mac"], conflict["at"]) == (first.mac, holder)
            assert (conflict["other_mac"], conflict["other_at"]) == (second.mac, other)
            controller = next(c for c in net.controllers if c.host.name == host)
            [line] = [line for line in controller.output().splitlines() if f"address {ip}" in line]
            assert "WARNING" in line
            assert first.mac in line
            assert second.mac in line
            assert f"{first.mac} at {'this node' if host == 'a' else 'node a'} has it" in line
            assert f"{second.mac} at {'node b' if host == 'a' else 'this node'} uses it" in line
            text = controller.status_text()
            assert f"{ip} is used twice: {first.mac}" in text
            assert f"controller clear {ip}" in text
        assert net.counted("conflicts") >= before + 2

        # Everybody elsewhere goes on with the first one; beside the second its claims are undone.
        for _ in range(3):
            if version == 4:
                announce(second, ip)
            assert watcher.ping(ip).received == 1
            assert watcher.neighbours()[ip] == first.mac
        for place in net.hosts.hosts:
            assert net.bindings(place)[ip]["mac"] == first.mac
        beside.flush_neighbours()

        # The second gives up; the operator says so.
        second.run(f"ip addr del {ip}/{length} dev eth0")
        assert f"{ip}: cleared" in clear(net, ip)
        for host in ("a", "b"):
            wait_until(lambda host=host: not conflicts(host), 3, f"{host} has forgotten it")  # type: ignore[misc]
        assert beside.ping(ip).received == 1
        assert beside.neighbours()[ip] == first.mac


def test_the_contender_inherits(net: Overlay) -> None:
    """When the first holder goes, the other one, which still has the address, gets it."""
    ip = "10.0.3.51"
    with net.containers((net.a, ip), (net.c, "10.0.3.24")) as (first, watcher):
        assert watcher.ping(ip).received == 1
        with net.containers((net.b, ip)) as (second,):
            second.ping("10.0.3.24", 1, "-W", "1")
            wait_until(lambda: bool(net.controllers[1].ask("status")["conflicts"]), 3, "conflict")
            assert net.bindings(net.c)[ip]["mac"] == first.mac
            first.stop()
            net.wait_at(ip, net.b, 3)
            watcher.flush_neighbours()
            assert watcher.ping(ip, 2).lost == 0
            assert watcher.neighbours()[ip] == second.mac


def test_five_moves_freeze_an_address(net: Overlay) -> None:
    ip = "10.0.3.60"
    with net.containers((net.a, "10.0.3.30"), (net.b, "10.0.3.31"), (net.c, "10.0.3.32")) as (
        one,
        two,
        watcher,
    ):
        before = net.counted("freezes")
        holder, other = one, two
        holder.run(f"ip addr add {ip}/24 dev eth0")
        announce(holder, ip)
        net.wait_at(ip, holder.host)
        for _ in range(5):
            holder.run(f"ip addr del {ip}/24 dev eth0")
            other.run(f"ip addr add {ip}/24 dev eth0")
            announce(other, ip)
            net.wait_at(ip, other.host, 2)
            holder, other = other, holder
        assert net.counted("freezes") >= before + 1
        for controller in net.controllers:
            wait_until(
                lambda controller=controller: "frozen" in controller.status_text(),  # type: ignore[misc]
                3,
                "status says frozen",
            )
            assert f"{ip} moved five times" in controller.output()
        states = {net.bindings(host)[ip]["state"] for host in net.hosts.hosts}
        assert states == {"frozen"}

        # A sixth move is refused, wherever it is tried.
        holder.run(f"ip addr del {ip}/24 dev eth0")
        other.run(f"ip addr add {ip}/24 dev eth0")
        announce(other, ip)
        time.sleep(1)
        assert net.bindings(net.c)[ip]["mac"] == holder.mac
        assert net.counted("moves_refused.frozen") > 0

        assert f"{ip}: cleared" in clear(net, ip)
        announce(other, ip)
        net.wait_at(ip, other.host, 3)
        assert watcher.ping(ip, 2).lost == 0
        assert "frozen" not in net.controllers[2].status_text().partition("counted")[0]
