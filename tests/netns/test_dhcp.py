"""Addresses from two DHCP servers that know nothing of each other: stock lxc-net's dnsmasq.

Both serve 10.0.3.2 to 10.0.3.254. The containers are chosen so that both servers would give the
nth container of each host the same address; the first test relies on it, as a server begins
elsewhere once an address has turned out to be in use. lab/scenarios/leases has twenty a host.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from lab import Lab, NetnsContainer, wait_until
from lab.scenarios.leases import crowd, lease
from tests.netns.overlay import Overlay, connected, stop


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def net(lab: Lab) -> Overlay:
    return connected(lab, ["lan", "lan"])


@pytest.fixture
def pair(net: Overlay, request: pytest.FixtureRequest) -> Iterator[list[NetnsContainer]]:
    """A container on each host, both of them next in line for the same address."""
    first: int = request.param
    made = crowd(net.hosts.hosts, 1, first=first)
    yield made
    for container in made:
        stop(container)


@pytest.mark.parametrize("pair", [7], indirect=True)
def test_a_simultaneous_clash_is_reported(net: Overlay, pair: list[NetnsContainer]) -> None:
    """Both servers check at the same moment, and nobody probes: it cannot be prevented."""
    for container in pair:
        container.dhcp()
    wait_until(lambda: all(container.ip for container in pair), 20, "both leases")
    bound = time.monotonic()
    assert pair[0].ip == pair[1].ip

    def reported() -> bool:
        found = [controller.ask("status")["conflicts"] for controller in net.controllers]
        return all(any(c["ip"] == pair[0].ip for c in conflicts) for conflicts in found)

    wait_until(reported, 10, "the clash is reported")
    print(f"{pair[0].ip} is leased twice: reported after {time.monotonic() - bound:.1f} s")
    for controller in net.controllers:
        [conflict] = [c for c in controller.ask("status")["conflicts"] if c["ip"] == pair[0].ip]
        assert {conflict["mac"], conflict["other_mac"]} == {c.mac for c in pair}
        assert f"{pair[0].ip} is used twice" in controller.status_text()


@pytest.mark.parametrize("pair", [5], indirect=True)
def test_without_probes_a_later_start_gets_another_address(
    net: Overlay, pair: list[NetnsContainer]
) -> None:
    """dnsmasq's own ping check finds out, though neither gateway can be answered from afar."""
    before = net.counted("echo_answered_by_proxy")
    first, second = pair
    first.dhcp()
    wait_until(lambda: bool(first.ip), 20, "the first lease")
    time.sleep(6)
    second.dhcp()
    wait_until(lambda: bool(second.ip), 20, "the second lease")
    assert first.ip != second.ip
    assert net.count(net.b, "echo_answered_by_proxy") > 0
    assert net.counted("echo_answered_by_proxy") > before
    assert first.ping(second.ip, 2).lost == 0


def test_a_silent_lease_is_known_everywhere(net: Overlay) -> None:
    (container,) = crowd([net.a], 1, first=11)
    container.dhcp()
    ip = container.wait_lease(20)
    net.wait_at(ip, net.a, 5)
    stop(container)


def test_containers_that_probe_and_start_at_once(net: Overlay) -> None:
    containers = crowd(net.hosts.hosts, 2)
    # -A: how long it waits after an offer that it had to decline; 20 s unless told.
    leases = lease(containers, "-a", "-A", "2", timeout=60)
    print(f"{leases.addresses} after {leases.seconds:.1f} s")
    assert all(leases.addresses)
    assert not leases.twice
    assert net.counted("claims_defended") + net.counted("arp_replies_relayed") > 0
    one, other = containers[0], containers[-1]
    assert one.ping(other.ip, 2).lost == 0
    for container in containers:
        stop(container)
