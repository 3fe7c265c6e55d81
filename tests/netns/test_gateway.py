"""The gateway that every stock host has: 10.0.3.1 with 00:16:3e:00:00:00, each its own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

from lab import Lab, wait_until
from tests.netns.overlay import GATEWAY, GATEWAY_MAC, Overlay, announce, connected, stop

LINK_LOCAL = "fe80::216:3eff:fe00:0"
ABOUT = (
    f"(ether host {GATEWAY_MAC}) or (arp and host {GATEWAY}) or "
    f"(ip6 host {LINK_LOCAL}) or (icmp6[0] = 135 and ip6[48:4] = 0xfe800000 and "
    "ip6[56:4] = 0x02163eff and ip6[60:4] = 0xfe000000)"
)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def net(lab: Lab) -> Overlay:
    return connected(lab, ["easy", "easy"])


def test_it_is_recognised_and_shown(net: Overlay) -> None:
    for controller in net.controllers:
        wait_until(lambda c=controller: len(c.ask("status")["gateways"]) >= 2, 5, "shared")  # type: ignore[misc]
        shown = {entry["ip"]: entry for entry in controller.ask("status")["gateways"]}
        assert set(shown) == {GATEWAY, LINK_LOCAL}
        assert shown[GATEWAY]["mac"] == GATEWAY_MAC
        assert sorted(shown[GATEWAY]["nodes"]) == ["a", "b"]
        assert (
            f"shared gateway {GATEWAY} ({GATEWAY_MAC}): local to each" in controller.status_text()
        )
        assert not {GATEWAY, LINK_LOCAL} & {b["ip"] for b in controller.ask("bindings")["bindings"]}
        assert not controller.ask("status")["conflicts"]


def test_a_container_uses_its_own_hosts_gateway_also_after_a_move(net: Overlay) -> None:
    outside = net.hosts.server.uplink.ip4
    with contextlib.ExitStack() as end:
        (watcher,) = end.enter_context(net.containers((net.b, "10.0.3.20")))
        moving = net.container(net.a, "10.0.3.21", "02:00:00:00:00:21")
        assert moving.ping(outside, 2).lost == 0
        assert watcher.ping("10.0.3.21").received == 1
        stop(moving)
        moving = net.container(net.b, "10.0.3.21", "02:00:00:00:00:21")
        end.callback(stop, moving)
        with net.b.capture("ipop", f"ip host {outside}") as crossing:
            assert moving.wait_ping(outside, 3) < 3
            assert moving.ping(outside, 3).lost == 0
        assert not crossing.frames, crossing.summary()
        assert watcher.ping("10.0.3.21", 2).lost == 0


def test_nothing_from_or_about_it_crosses(net: Overlay) -> None:
    with net.containers((net.a, "10.0.3.30"), (net.b, "10.0.3.31")) as (p, q):
        assert p.ping("10.0.3.31", 2).lost == 0
        with (
            net.a.capture("ipop", f"inbound and ({ABOUT})") as at_a,
            net.b.capture("ipop", f"inbound and ({ABOUT})") as at_b,
        ):
            for container in (p, q):
                container.flush_neighbours()
                assert container.ping(GATEWAY, 2).lost == 0
                assert container.arping(GATEWAY) == [GATEWAY_MAC]
                container.run("ndisc6 -1 -r 1 -w 300 fe80::216:3eff:fe00:0 eth0", check=False)
            for host in (net.a, net.b):
                host.run("arping -U -c 1 -I lxcbr0 -s 10.0.3.1 10.0.3.1", check=False)
                host.run("arping -b -c 1 -w 1 -I lxcbr0 10.0.3.99", check=False)
            time.sleep(0.3)
        # A proxied answer to the gateway comes in by the TAP; nothing else concerns it.
        for frames in (at_a, at_b):
            assert not [f for f in frames.packets if f.src == GATEWAY_MAC], frames.summary()
            assert not [f for f in frames.packets if f.dst != GATEWAY_MAC], frames.summary()


def test_the_host_is_refused_visibly_and_its_echo_answered(net: Overlay) -> None:
    with net.containers((net.a, "10.0.3.40"), (net.b, "10.0.3.41")) as (p, q):
        assert p.ping("10.0.3.41").received == 1
        # dnsmasq's check, and whoever pings from the host: answered in the owner's name ...
        before = net.count(net.a, "echo_answered_by_proxy")
        echo = net.a.run("ping -n -c 3 -i 0.3 -W 2 10.0.3.41").stdout
        assert " 0% packet loss" in echo
        assert net.count(net.a, "echo_answered_by_proxy") >= before + 3
        # ... as long as it lives,
        q.stop()
        gone = net.a.run("ping -n -c 1 -W 1 10.0.3.41", check=False).stdout
        assert " 0% packet loss" not in gone
    with net.containers((net.b, "10.0.3.42")) as (q,):
        q.ping("10.0.3.199", 1, "-W", "0.3")
        net.wait_at("10.0.3.42", net.b)
        # ... and everything else is refused at once: ICMP 3/13 is EACCES or EHOSTUNREACH.
        before = net.count(net.a, "host_packets_refused")
        net.a.run("ip neigh flush dev lxcbr0", check=False)
        started = time.monotonic()
        with net.a.capture("lxcbr0", "icmp[icmptype] = 3 and icmp[icmpcode] = 13") as refusals:
            tried = net.a.run(
                "socat -u OPEN:/dev/null TCP4:10.0.3.42:22,connect-timeout=5", check=False
            )
            took = time.monotonic() - started
            refusals.wait(1)
        assert tried.returncode
        print(f"refused after {took:.2f} s: {tried.stderr.strip()}")
        assert took < 4, tried.stderr
        assert net.count(net.a, "host_packets_refused") > before
        text = " ".join(net.controllers[0].status_text().split())
        assert "cannot reach containers on other hosts" in text
        assert "give the bridges different addresses" in text
        assert "cannot reach containers on other hosts" in net.controllers[0].output()


def test_a_claim_on_the_gateway_is_refused(net: Overlay) -> None:
    """A container that says it is 10.0.3.1 tells nobody elsewhere; who is beside it is its own
    bridge's matter."""
    with net.containers((net.a, "10.0.3.50"), (net.b, "10.0.3.51")) as (thief, q):
        assert q.ping(GATEWAY).received == 1
        before = net.counted("claims_refused.gateway")
        for _ in range(3):
            announce(thief, GATEWAY)
        time.sleep(0.3)
        assert net.counted("claims_refused.gateway") > before
        assert q.neighbours()[GATEWAY] == GATEWAY_MAC
        assert q.arping(GATEWAY) == [GATEWAY_MAC]
        lines = [x for x in net.controllers[0].output().splitlines() if "refused 10.0.3.1 " in x]
        assert len(lines) == 1
        blocked = net.controllers[0].ask("status")["blocked"]
        assert ("local", "gateway") in {(entry["peer"], entry["why"]) for entry in blocked}
