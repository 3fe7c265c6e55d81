"""Questions between hosts: who answers, what exactly, and who is left alone (arp-nd checklist).

Real tools ask: iputils' arping, ndisc6, ping and the kernel's own resolution and DAD.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6NDOptUnknown,
    IPv6,
)
from scapy.layers.l2 import ARP, Ether

from lab import Container, Lab, wait_until
from tests.netns.overlay import BROADCAST, Overlay, connected, monitor, send

ALL_NODES = "33:33:00:00:00:01"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def net(lab: Lab) -> Overlay:
    return connected(lab, ["lan", "lan"])


def replies(frames: Any, ip: str) -> list[Any]:
    """The ARP replies and advertisements about ``ip`` among captured frames."""
    return [
        p
        for p in frames.packets
        if (ARP in p and p.op == 2 and p.psrc == ip) or (ICMPv6ND_NA in p and p.tgt == ip)
    ]


def questions(frames: Any, ip: str) -> list[Any]:
    """The ARP requests and solicitations for ``ip``."""
    return [
        p
        for p in frames.packets
        if (ARP in p and p.op == 1 and p.pdst == ip) or (ICMPv6ND_NS in p and p.tgt == ip)
    ]


def set_neighbour_times(container: Container) -> None:
    """Doubt a neighbour after half a second or so, and check on it after another second."""
    for family in ("ipv4", "ipv6"):
        container.sysctl(f"net.{family}.neigh.eth0.base_reachable_time_ms", 1000)
        container.sysctl(f"net.{family}.neigh.eth0.delay_first_probe_time", 1)


def trickle(source: Container, target: Container, ip: str, count: int) -> tuple[list[int], ...]:
    """Send ``count`` datagrams, five a second; return those sent and those received. Not ping:
    that tells the kernel that its neighbour is alive (MSG_CONFIRM)."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with source.socket(family) as out, target.socket(family) as there:
        there.bind((ip, 5005))
        there.setblocking(False)
        received = []
        for number in range(count):
            out.sendto(bytes([number]), (ip, 5005))
            time.sleep(0.2)
            with contextlib.suppress(BlockingIOError):
                while True:
                    received.append(there.recv(9)[0])
    return list(range(count)), received


# --- ARP


def test_a_request_is_relayed_once_and_then_answered_at_home(net: Overlay) -> None:
    with net.containers((net.a, "10.0.3.25"), (net.b, "10.0.3.27")) as (p, q):
        with p.capture("eth0", "arp") as near, q.capture("eth0", "arp") as far:
            assert p.arping("10.0.3.27") == [q.mac]
        assert len(questions(far, "10.0.3.27")) == 1, far.summary()
        [reply] = replies(near, "10.0.3.27")
        assert (reply.src, reply.hwsrc, reply.dst, reply.hwdst) == (q.mac, q.mac, p.mac, p.mac)
        assert reply.pdst == "10.0.3.25"
        net.wait_at("10.0.3.27", net.b)
        before = net.count(net.a, "arp_answered_locally")
        with p.capture("eth0", "arp") as near, q.capture("eth0", "arp") as far:
            assert p.arping("10.0.3.27", 3) == [q.mac] * 3
        # iputils' arping asks by unicast only without -b; all three were broadcast.
        assert not questions(far, "10.0.3.27"), far.summary()
        assert len(replies(near, "10.0.3.27")) == 3
        assert net.count(net.a, "arp_answered_locally") == before + 3


def test_nobody_answers_for_a_free_address(net: Overlay) -> None:
    with net.containers((net.a, "10.0.3.35"), (net.b, "10.0.3.37")) as (p, q):
        with q.capture("eth0", "arp") as far:
            assert p.arping("10.0.3.70", 3) == []
        assert 1 <= len(questions(far, "10.0.3.70")) <= 3
        assert all(ask.dst == BROADCAST for ask in questions(far, "10.0.3.70"))


@pytest.mark.parametrize("known", [False, True], ids=["cold", "known"])
def test_a_probe_for_an_address_in_use_elsewhere_is_answered(net: Overlay, known: bool) -> None:
    with net.containers((net.a, "10.0.3.45"), (net.b, "10.0.3.47")) as (p, q):
        if known:
            p.arping("10.0.3.47")
        with p.capture("eth0", "arp") as near:
            probe = p.run("arping -D -c 3 -w 3 -I eth0 10.0.3.47", check=False)
        assert probe.returncode == 1, probe.stdout
        [reply] = replies(near, "10.0.3.47")
        assert (reply.hwsrc, reply.dst, reply.pdst) == (q.mac, p.mac, "0.0.0.0")


def test_a_probe_creates_nothing_and_its_own_address_is_free(net: Overlay) -> None:
    with net.containers((net.a, "10.0.3.55"), (net.b, "10.0.3.57")) as (p, q):
        p.arping("10.0.3.57")
        net.wait_at("10.0.3.55", net.a)
        for ip in ("10.0.3.70", "10.0.3.55"):  # nobody's, and the prober's
            probe = p.run(f"arping -D -c 2 -w 2 -I eth0 {ip}", check=False)
            assert probe.returncode == 0, probe.stdout
        assert "10.0.3.70" not in net.bindings(net.a)
        assert "10.0.3.70" not in net.bindings(net.b)
        # Of two that want one address at once, one gets it; and it is nobody's after that.
        both = [
            c.popen(["arping", "-D", "-c", "3", "-w", "3", "-I", "eth0", "10.0.3.71"])
            for c in (p, q)
        ]
        assert sorted(process.wait() for process in both) == [0, 1]


def test_a_gratuitous_arp_changes_caches_elsewhere(net: Overlay) -> None:
    """The kernel announces a new MAC by itself (arp_notify, ndisc_notify)."""
    with net.containers((net.a, "10.0.3.65"), (net.b, "10.0.3.67")) as (p, q):
        assert p.ping("10.0.3.67").received == p.ping("fd00::67").received == 1
        q.sysctl("net.ipv4.conf.eth0.arp_notify", 1)
        q.sysctl("net.ipv6.conf.eth0.ndisc_notify", 1)
        q.run("ip link set eth0 address 02:00:00:00:00:77")

        def learned() -> bool:
            known = p.neighbours()
            return {known.get(ip) for ip in ("10.0.3.67", "fd00::67")} == {"02:00:00:00:00:77"}

        took = wait_until(learned, 3, "the new MAC in the cache of the container elsewhere")
        print(f"caches elsewhere changed after {took:.2f} s")
        assert p.ping("10.0.3.67").received == p.ping("fd00::67").received == 1


# --- reachability


@pytest.mark.parametrize("target", ["10.0.3.77", "fd00::77"])
def test_reachability_checks_go_to_the_owner(net: Overlay, target: str) -> None:
    """REACHABLE -> STALE -> DELAY -> PROBE -> REACHABLE, with nothing lost or doubled."""
    with net.containers((net.a, "10.0.3.75"), (net.b, "10.0.3.77")) as (p, q):
        set_neighbour_times(p)
        p.ping(target)
        with (
            monitor(p, "neigh") as states,
            p.capture("eth0", f"ether src {q.mac} and (arp or icmp6)") as near,
            q.capture("eth0", f"ether src {p.mac} and ether dst {q.mac}") as far,
        ):
            sent, received = trickle(p, q, target, 16)
        assert received == sent
        seen = [line.split()[-1] for line in states if line.startswith(f"{target} ")]
        assert "PROBE" in seen, states
        assert seen[seen.index("PROBE") + 1] == "REACHABLE", states
        assert not {"FAILED", "INCOMPLETE"} & set(seen), states
        checks = questions(far, target)
        assert checks
        assert len(replies(near, target)) == len(checks), near.summary()
        if ":" in target:
            assert all(na.S for na in replies(near, target))


def test_a_container_that_is_gone_is_found_unreachable(net: Overlay) -> None:
    with net.containers((net.a, "10.0.3.85"), (net.b, "10.0.3.87")) as (p, q):
        p.ping("10.0.3.87")
        net.wait_at("10.0.3.87", net.b)
        q.stop()
        net.wait_gone("10.0.3.87", 2)
        net.wait_gone("fd00::87", 2)
        p.flush_neighbours()
        assert p.arping("10.0.3.87") == []
        assert p.ping("10.0.3.87", 1, "-W", "1").received == 0


# --- ND


def test_a_solicitation_is_answered_with_the_owners_flags(net: Overlay) -> None:
    with net.containers((net.a, "10.0.3.95"), (net.b, "10.0.3.97"), (net.b, "10.0.3.98")) as made:
        p, q, router = made
        router.sysctl("net.ipv6.conf.all.forwarding", 1)
        for owner, ip, is_router in ((q, "fd00::97", False), (router, "fd00::98", True)):
            for attempt in ("first", "again"):
                with p.capture("eth0", "icmp6") as near, owner.capture("eth0", "icmp6") as far:
                    asked = p.run(f"ndisc6 -1 -r 1 {ip} eth0", check=False)
                assert owner.mac.upper() in asked.stdout.upper(), asked.stdout
                [na] = replies(near, ip)
                assert (na.S, na.O) == (1, 1)
                assert bool(na.R) is is_router, (attempt, ip)
                assert (na[IPv6].hlim, na.src, na.dst) == (255, owner.mac, p.mac)
                assert na.lladdr == owner.mac
                if attempt == "again":
                    assert not [ns for ns in questions(far, ip) if ns.src == p.mac]
            assert net.bindings(net.a)[ip]["at"] == "b"


def test_the_router_flag_is_known_before_anybody_asks(net: Overlay) -> None:
    """A router that was only heard asking, which does not say that it is one."""
    with net.containers((net.a, "10.0.3.105"), (net.b, "10.0.3.108")) as (p, router):
        router.sysctl("net.ipv6.conf.all.forwarding", 1)
        router.ping("fd00::99", 1, "-W", "0.3")
        net.wait_at("fd00::108", net.b)
        time.sleep(0.3)
        with p.capture("eth0", "icmp6") as near:
            p.run("ndisc6 -1 -r 1 fd00::108 eth0", check=False)
        assert [na.R for na in replies(near, "fd00::108")] == [1]


def test_dad_of_an_address_in_use_elsewhere_fails(net: Overlay) -> None:
    with net.containers((net.a, "10.0.3.115"), (net.b, "10.0.3.117")) as (p, q):
        p.sysctl("net.ipv6.conf.eth0.accept_dad", 1)

        def settled(ip: str) -> str:
            listing = ""

            def done() -> bool:
                nonlocal listing
                listing = p.run(["ip", "-6", "-o", "addr", "show", "to", ip]).stdout
                return "dadfailed" in listing or "tentative" not in listing

            wait_until(done, 5, f"DAD of {ip}: {listing}")
            return listing

        for attempt in ("cold", "known"):
            with p.capture("eth0", "icmp6") as near:
                p.run("ip addr add fd00::117/64 dev eth0")
                assert "dadfailed" in settled("fd00::117"), attempt
            [na] = replies(near, "fd00::117")
            assert (na.S, na.O) == (0, 1)
            assert (na.dst, na[IPv6].dst) == (ALL_NODES, "ff02::1")
            assert na.lladdr == q.mac
            p.run("ip addr del fd00::117/64 dev eth0")
        p.run("ip addr add fd00::70/64 dev eth0")
        assert "dadfailed" not in settled("fd00::70")
        assert q.ping("fd00::70").received == 1


def test_two_that_want_one_address_at_once(net: Overlay) -> None:
    """Simultaneous DAD (RFC 4862 section 5.4.3): never both."""
    with net.containers((net.a, "10.0.3.125"), (net.b, "10.0.3.127")) as both:
        for container in both:
            container.sysctl("net.ipv6.conf.eth0.accept_dad", 1)
        for container in both:
            container.popen(["ip", "addr", "add", "fd00::72/64", "dev", "eth0"])
        time.sleep(2.5)
        listings = [c.run("ip -6 -o addr show to fd00::72").stdout for c in both]
        failed = ["dadfailed" in listing for listing in listings]
        assert any(failed), listings


def test_a_solicitation_with_an_unknown_option_is_the_owners_to_answer(net: Overlay) -> None:
    with net.containers((net.a, "10.0.3.135"), (net.b, "10.0.3.137")) as (p, q):
        assert p.ping("fd00::137").received == 1
        group = "33:33:ff:00:01:37"
        strange = (
            Ether(src=p.mac, dst=group)
            / IPv6(src="fd00::135", dst="ff02::1:ff00:137", hlim=255)
            / ICMPv6ND_NS(tgt="fd00::137")
            / ICMPv6NDOptSrcLLAddr(lladdr=p.mac)
            / ICMPv6NDOptUnknown(type=253, len=1, data=b"switch")
        )
        with p.capture("eth0", "icmp6") as near, q.capture("eth0", "icmp6") as far:
            send(p, bytes(strange))
            near.wait(1, where=lambda packet: ICMPv6ND_NA in packet and packet.tgt == "fd00::137")
        asked = [ns for ns in questions(far, "fd00::137") if b"switch" in bytes(ns)]
        assert len(asked) == 1, far.summary()
        [na] = replies(near, "fd00::137")
        assert (na.S, na.src) == (1, q.mac)


# --- nonsense


def nonsense(source: bytes) -> list[bytes]:
    """Malformed ARP and ND of every kind, from a MAC, about 10.0.3.137 and fd00::147."""
    ethernet = b"\xff" * 6 + source + b"\x08\x06"
    good = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + source + bytes([10, 0, 3, 66])
    good += bytes(6) + bytes([10, 0, 3, 147])
    arp = [
        *(good[:size] for size in range(28)),
        struct.pack(">HHBBH", 1, 0x0800, 8, 4, 1) + good[8:],
        struct.pack(">HHBBH", 1, 0x0800, 6, 16, 1) + good[8:],
        struct.pack(">HHBBH", 6, 0x0800, 6, 4, 1) + good[8:],
        struct.pack(">HHBBH", 1, 0x86DD, 6, 4, 1) + good[8:],
        struct.pack(">HHBBH", 1, 0x0800, 6, 4, 9) + good[8:],
        good[:14] + bytes([127, 0, 0, 1]) + good[18:],
        good[:14] + bytes([224, 0, 0, 9]) + good[18:],
        good[:24] + bytes([255, 255, 255, 255]),
        good[:8] + b"\x02\0\0\0\0\x99" + good[14:],  # in another's name
        good[:8] + b"\xff" * 6 + good[14:],
    ]
    frames = [ethernet + body for body in arp]
    mac = source.hex(":")
    nd = Ether(src=mac, dst="33:33:ff:00:01:47")
    ip = IPv6(src="fd00::66", dst="ff02::1:ff00:147", hlim=255)
    ns = ICMPv6ND_NS(tgt="fd00::147")
    option = ICMPv6NDOptSrcLLAddr(lladdr=mac)
    whole = bytes(nd / ip / ns / option)
    frames += [whole[:size] for size in range(14, len(whole), 3)]
    frames += [
        whole[:-8] + bytes([1, 0]) + whole[-6:],  # zero-length option, wrong checksum
        bytes(nd / ip / ICMPv6ND_NS(tgt="fd00::147") / (bytes([1, 0]) + bytes(6))),
        bytes(nd / ip / ICMPv6ND_NS(tgt="fd00::147") / (bytes([1, 9]) + bytes(6))),
        bytes(nd / IPv6(src="fd00::66", dst="ff02::1:ff00:147", hlim=64) / ns / option),
        bytes(nd / ip / ICMPv6ND_NS(tgt="ff02::1") / option),
        bytes(nd / IPv6(src="::", dst="ff02::1:ff00:147", hlim=255) / ns / option),
        bytes(nd / ip / ICMPv6ND_NS(tgt="fd00::147", code=3) / option),
        bytes(nd / ip / ns / ICMPv6NDOptSrcLLAddr(lladdr="02:00:00:00:00:99")),
        # a fragment (RFC 6980), and behind other headers
        bytes(nd / IPv6(src="fd00::66", dst="ff02::1:ff00:147", hlim=255, nh=44))
        + bytes([58, 0, 0, 1, 0, 0, 0, 7])
        + whole[54:],
        bytes(nd / IPv6(src="fd00::66", dst="ff02::1:ff00:147", hlim=255, nh=0))
        + bytes([58, 0, 1, 4, 0, 0, 0, 0])
        + whole[54:],
        bytes(nd / IPv6(src="ff02::5", dst="ff02::1:ff00:147", hlim=255) / ns / option),
        bytes(
            nd
            / ip
            / ICMPv6ND_NA(tgt="fd00::147", S=1)
            / bytes([2, 1, 255, 255, 255, 255, 255, 255])
        ),
    ]
    return [frame for frame in frames if len(frame) >= 14]


def test_nonsense_moves_counters_only(net: Overlay) -> None:
    with net.containers((net.a, "10.0.3.145"), (net.b, "10.0.3.147")) as (p, q):
        assert p.ping("10.0.3.147").received == p.ping("fd00::147").received == 1
        before = net.counted("frames_dropped")
        frames = nonsense(bytes.fromhex("020000000066"))
        with q.capture("eth0", "arp or icmp6") as far:
            for start in range(0, len(frames), 20):
                send(p, *frames[start : start + 20])
                time.sleep(0.05)
            time.sleep(0.5)
        print(f"{len(frames)} frames, {net.counted('frames_dropped') - before} counted as dropped")
        assert not [f for f in far.packets if f.src == "02:00:00:00:00:66"], far.summary()
        assert not {"fd00::66", "10.0.3.66"} & set(net.bindings(net.b))
        assert net.bindings(net.b)["10.0.3.147"]["mac"] == q.mac
        assert (p.arping("10.0.3.147"), p.ping("fd00::147").received) == ([q.mac], 1)
