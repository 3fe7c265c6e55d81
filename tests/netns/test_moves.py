"""Containers and addresses that go to another host, seen from a third one."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator

import pytest
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import Ether

from lab import Container, Lab, wait_until
from tests.netns.overlay import Overlay, connected, send, stop

SOON = 3.0  # s; within 1 s on a machine that has nothing else to do (printed)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def net(lab: Lab) -> Overlay:
    return connected(lab, ["lan", "lan", "lan"])


@contextlib.contextmanager
def pinging(watcher: Container, ip: str) -> Iterator[None]:
    """Have ``watcher`` ping ``ip`` twenty times a second."""
    process = watcher.popen(["ping", "-n", "-i", "0.05", ip])
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def silence(container: Container) -> None:
    """The container hangs: its port stays, and nothing comes from it any more."""
    container.run("nft add table netdev gone")
    for way in ("ingress", "egress"):
        hook = f"{{ type filter hook {way} device eth0 priority 0; policy drop; }}"
        container.run(["nft", f"add chain netdev gone {way} {hook}"])


@pytest.mark.parametrize("how", ["stopped", "hung"])
def test_a_container_that_starts_elsewhere(net: Overlay, how: str) -> None:
    """The same MAC and IP on B: reachable from C within a second of its first frame."""
    last = 5 if how == "stopped" else 6
    ip, mac = f"10.0.3.{last}", f"02:00:00:00:00:0{last}"
    with (
        net.containers((net.c, f"10.0.3.{last + 10}")) as (watcher,),
        contextlib.ExitStack() as end,
    ):
        old = net.container(net.a, ip, mac)
        end.callback(stop, old)
        assert watcher.ping(ip, 2).lost == watcher.ping(f"fd00::{last}", 2).lost == 0
        before = net.counted("conflicts")
        if how == "stopped":
            old.stop()
        else:
            silence(old)
        with (
            pinging(watcher, ip),
            pinging(watcher, f"fd00::{last}"),
            watcher.capture("eth0", f"icmp[icmptype] == icmp-echoreply and src {ip}") as four,
            watcher.capture("eth0", f"icmp6[0] == 129 and src fd00::{last}") as six,
            net.b.capture("lxcbr0", f"ether src {mac}") as moved,
        ):
            time.sleep(0.2)
            four.clear()
            six.clear()
            new = net.container(net.b, ip, mac)
            end.callback(stop, new)
            moved.wait()
            new.popen(["ping", "-n", "-c", "1", "-W", "1", "10.0.3.240"])
            four.wait()
            six.wait()
        for name, replies in (("IPv4", four), ("IPv6", six)):
            took = next(iter(replies)).time - next(iter(moved)).time
            print(f"{how}, {name}: reachable {took:.2f} s after its first frame")
            assert took < SOON
        net.wait_at(ip, net.b)
        assert net.counted("conflicts") == before


@pytest.mark.parametrize("family", [4, 6])
def test_a_failover_address(net: Overlay, family: int) -> None:
    """Only the address moves, to another MAC on another host, and is announced there."""
    vip = "10.0.3.50" if family == 4 else "fd00::50"
    plain = f"{vip}/{24 if family == 4 else 64}"
    with net.containers(
        (net.a, "10.0.3.20"), (net.b, "10.0.3.21"), (net.c, "10.0.3.22"), (net.a, "10.0.3.23")
    ) as (one, two, watcher, beside):

        def take(container: Container) -> None:
            container.run(f"ip addr add {plain} dev eth0 {'nodad' if family == 6 else ''}")
            if family == 4:
                container.popen(["arping", "-U", "-c", "1", "-I", "eth0", "-s", vip, vip])
            else:
                announcement = (
                    Ether(src=container.mac, dst="33:33:00:00:00:01")
                    / IPv6(src=vip, dst="ff02::1", hlim=255)
                    / ICMPv6ND_NA(tgt=vip, R=0, S=0, O=1)
                    / ICMPv6NDOptDstLLAddr(lladdr=container.mac)
                )
                send(container, bytes(announcement))

        take(one)
        for each in (watcher, beside):
            assert each.ping(vip).received == 1
        holder = one
        for other in (two, one):
            holder.run(f"ip addr del {plain} dev eth0")
            started = time.monotonic()
            take(other)
            for each in (watcher, beside):
                wait_until(
                    lambda each=each, other=other: each.neighbours().get(vip) == other.mac,  # type: ignore[misc]
                    SOON,
                    f"{each.name} of {each.host.name} knows {vip} at {other.host.name}",
                )
            took = time.monotonic() - started
            print(f"{vip} moved to {other.host.name}: in the caches after {took:.2f} s")
            assert watcher.ping(vip, 2).lost == beside.ping(vip, 2).lost == 0
            holder = other
        net.wait_at(vip, net.a)


def test_a_restarted_container_with_another_mac(net: Overlay) -> None:
    """As `docker run` of the same address again and again: it never freezes."""
    with net.containers((net.c, "10.0.3.30")) as (watcher,):
        for attempt in range(7):
            with net.containers((net.a, "10.0.3.31", f"02:00:00:00:31:{attempt:02x}")):
                watcher.flush_neighbours()  # as on any segment: nobody told it
                assert watcher.ping("10.0.3.31", 2).lost == 0
                net.wait_at("10.0.3.31", net.a)
        assert not [c for c in net.controllers if "10.0.3.31" in c.output()]


def test_a_port_that_disappears_withdraws_at_once(net: Overlay) -> None:
    with net.containers((net.a, "10.0.3.40"), (net.b, "10.0.3.41")) as (p, q):
        assert p.ping("10.0.3.41").received == 1
        net.wait_at("10.0.3.41", net.b)
        started = time.monotonic()
        q.unplug()
        net.wait_gone("10.0.3.41", 1)
        net.wait_gone("fd00::41", 1)
        print(f"withdrawn everywhere after {time.monotonic() - started:.2f} s")
        # Plugged in again, it is found again.
        net.b.bridge_add(q.port)
        assert p.wait_ping("10.0.3.41", 4) < 4


def test_who_watches_the_bindings_sees_it(net: Overlay) -> None:
    """`controller bindings --watch`, into a pipe: a table each second."""
    words = ["controller", "bindings", "--watch", "--config", net.controller(net.c).file]
    with contextlib.ExitStack() as end:
        old = net.container(net.a, "10.0.3.60", "02:00:00:00:00:60")
        end.callback(stop, old)
        old.ping("10.0.3.240", 1, "-W", "0.2")
        net.wait_at("10.0.3.60", net.a)
        watch = net.c.popen(words, stdout=subprocess.PIPE)
        end.callback(watch.wait)
        end.callback(watch.kill)
        assert watch.stdout is not None
        rows = (line.split() for line in watch.stdout if line.startswith("10.0.3.60 "))
        assert next(rows)[:4] == ["10.0.3.60", old.mac, "a", "alive"]
        old.stop()
        new = net.container(net.b, "10.0.3.60", "02:00:00:00:00:60")
        end.callback(stop, new)
        new.ping("10.0.3.240", 1, "-W", "0.2")
        deadline = time.monotonic() + 10
        while (row := next(rows))[2] != "b":
            assert time.monotonic() < deadline, row
        watch.stdout.close()
