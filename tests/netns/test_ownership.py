"""Who may have what: spoofers, claims on what is somebody's, cloned MACs, names, floods."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_RA, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether

from lab import Host, Lab, wait_until
from lab.layouts import build
from tests.netns.overlay import BROADCAST, Overlay, announce, send

STATIC_MAC = "02:00:00:00:00:60"
MINE = "02:00:00:00:00:61"
CONFIG: dict[str, Any] = {
    "static": [
        {"ip": "10.0.3.60", "mac": STATIC_MAC, "node": "a"},
        {"ip": "10.0.3.61", "mac": MINE, "node": "b"},
    ],
    "allow": {"b": ["10.0.3.128/25", "10.0.3.61/32", "fd00::/64"]},
}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def net(lab: Lab) -> Overlay:
    """B knows nothing of what it must not do: the others see to it."""
    hosts = build(lab, ["lan", "lan", "lan"])
    assert hosts.rendezvous.running
    configs: list[dict[str, Any]] = [CONFIG, {}, CONFIG]
    controllers = [h.controller(c) for h, c in zip(hosts.hosts, configs, strict=True)]
    for controller, others in zip(controllers, ("bc", "ac", "ab"), strict=True):
        controller.wait_connected(others)
    return Overlay(hosts, controllers)


def resident(host: Host) -> int:
    """Bytes of memory that a host's controller has."""
    pid = host.pids("controller")[0]
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    raise AssertionError


# --- what contradicts itself


def test_a_spoofed_sender_says_nothing(net: Overlay) -> None:
    with net.containers((net.a, "10.0.3.200"), (net.c, "10.0.3.201")) as (p, spoofer):
        assert spoofer.ping("10.0.3.200").received == 1
        before = net.count(net.c, "frames_dropped.contradicts_source")
        for ip in ("10.0.3.200", "10.0.3.202"):
            lie = ARP(op=2, hwsrc="02:00:00:00:00:99", psrc=ip, hwdst=BROADCAST, pdst=ip)
            send(spoofer, *[bytes(Ether(src=spoofer.mac, dst=BROADCAST) / lie)] * 3)
        na = (
            Ether(src=spoofer.mac, dst="33:33:00:00:00:01")
            / IPv6(src="fd00::200", dst="ff02::1", hlim=255)
            / ICMPv6ND_NA(tgt="fd00::200", S=0, O=1)
            / ICMPv6NDOptDstLLAddr(lladdr="02:00:00:00:00:99")
        )
        send(spoofer, bytes(na))
        wait_until(
            lambda: net.count(net.c, "frames_dropped.contradicts_source") >= before + 7,
            3,
            "counted",
        )
        assert net.bindings(net.a)["10.0.3.200"]["mac"] == p.mac
        assert "10.0.3.202" not in net.bindings(net.a)
        assert net.controllers[2].output().count("in the name of another MAC") == 1


# --- static, allow, names


def test_a_static_binding_is_nobody_elses(net: Overlay) -> None:
    with net.containers(
        (net.a, "10.0.3.60", STATIC_MAC), (net.b, "10.0.3.61", MINE), (net.c, "10.0.3.210")
    ) as (_, _, q):
        assert q.ping("10.0.3.60", 2).lost == q.ping("10.0.3.61", 2).lost == 0
        assert net.bindings(net.a)["10.0.3.60"]["state"] == "static"
        assert net.bindings(net.a)["10.0.3.61"]["at"] == "b"
        with net.containers((net.c, "10.0.3.62")) as (thief,):
            before = net.counted("claims_refused.static")
            for _ in range(3):
                announce(thief, "10.0.3.60")
            wait_until(lambda: net.counted("claims_refused.static") >= before + 3, 3, "refused")
            for host in (net.a, net.b, net.c):
                assert net.bindings(host)["10.0.3.60"]["mac"] == STATIC_MAC
            said = [x for x in net.controllers[2].output().splitlines() if "refused 10.0.3.60" in x]
            assert len(said) == 1
            blocked = net.controllers[2].ask("status")["blocked"]
            assert ("claim", "local", "static") in {
                (b["kind"], b["peer"], b["why"]) for b in blocked
            }
            assert "blocked claim from local: static" in net.controllers[2].status_text()
    # With its container gone, it is still nobody else's.
    with net.containers((net.c, "10.0.3.63")) as (thief,):
        net.wait_gone("10.0.3.60")
        announce(thief, "10.0.3.60")
        time.sleep(0.3)
        assert "10.0.3.60" not in net.bindings(net.c)


def test_a_peer_is_limited_to_its_prefixes(net: Overlay) -> None:
    with net.containers((net.b, "10.0.3.140"), (net.b, "10.0.3.70"), (net.c, "10.0.3.211")) as (
        inside,
        outside,
        q,
    ):
        assert inside.ping("10.0.3.211", 2).lost == 0
        before = net.counted("claims_refused.not_allowed")
        outside.ping("10.0.3.211", 2, "-W", "0.5")
        wait_until(lambda: net.counted("claims_refused.not_allowed") > before, 3, "refused")
        assert "10.0.3.70" not in net.bindings(net.c)
        assert net.bindings(net.c)["10.0.3.140"]["at"] == "b"
        assert "10.0.3.70" in net.controllers[2].output()
        assert q.arping("10.0.3.70") == []


# --- one MAC, two places


def test_a_cloned_mac_is_reported_and_its_frames_are_dropped(net: Overlay) -> None:
    with net.containers((net.a, "10.0.3.220"), (net.b, "10.0.3.221"), (net.c, "10.0.3.222")) as (
        p,
        thief,
        q,
    ):
        assert q.ping("10.0.3.220").received == 1
        net.wait_at("10.0.3.220", net.a)
        before = net.count(net.c, "frames_dropped.source_claimed")
        frame = Ether(src=p.mac, dst=q.mac) / IP(src="10.0.3.220", dst="10.0.3.222") / UDP(dport=9)
        with q.capture("eth0", "udp port 9") as got:
            started = time.monotonic()
            while time.monotonic() - started < 1.5:
                send(thief, bytes(frame))
                time.sleep(0.1)
        assert not got.frames, got.summary()
        assert net.count(net.c, "frames_dropped.source_claimed") > before + 5
        conflicts = net.controllers[2].ask("status")["conflicts"]
        assert ("a", "b") in {(c["at"], c["other_at"]) for c in conflicts if c["mac"] == p.mac}
        assert q.ping("10.0.3.220", 3).lost == 0
        net.a.run(["controller", "clear", "--config", net.controllers[0].file, "10.0.3.220"])


def test_frames_alone_show_a_move(net: Overlay) -> None:
    """The container hangs on A; its twin on B sends datagrams, and never asks for anybody."""
    with net.containers((net.a, "10.0.3.230", "02:00:00:00:00:e6"), (net.c, "10.0.3.232")) as (
        old,
        q,
    ):
        assert q.ping("10.0.3.230").received == 1
        net.wait_at("10.0.3.230", net.a)
        old.run("nft add table netdev gone")
        for way in ("ingress", "egress"):
            hook = f"{{ type filter hook {way} device eth0 priority 0; policy drop; }}"
            old.run(["nft", f"add chain netdev gone {way} {hook}"])
        new = net.b.container("twin", mac="02:00:00:00:00:e6")
        try:
            new.run(
                "echo 1 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6\n"
                "ip addr add 10.0.3.230/24 dev eth0\n"
                f"ip neigh add 10.0.3.232 lladdr {q.mac} dev eth0"
            )
            with q.capture("eth0", "udp port 9") as got, new.socket() as sock:
                started = time.monotonic()
                while not got.frames and time.monotonic() - started < 5:
                    sock.sendto(b"here", ("10.0.3.232", 9))
                    time.sleep(0.05)
            assert got.frames
            print(f"frames pass after {next(iter(got)).time - started:.2f} s")
            net.wait_at("10.0.3.230", net.b)
            assert q.ping("10.0.3.230", 2).lost == 0
        finally:
            new.stop()


# --- floods


def test_ten_thousand_senders_in_a_second(net: Overlay) -> None:
    with net.containers((net.a, "10.0.3.240"), (net.b, "10.0.3.241")) as (p, q):
        assert p.ping("10.0.3.241").received == 1
        assert p.arping("10.0.3.241", 2) == [q.mac] * 2  # no stranger: heard more than once
        before = resident(net.a)
        with net.containers((net.a, "10.0.3.242")) as (loud,):
            started = time.monotonic()
            with loud.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
                sock.bind(("eth0", 0))
                for number in range(10_000):
                    mac = b"\x02\x77" + struct.pack(">I", number)
                    ip = bytes([10, 0, 4 + (number >> 8), number & 255])
                    body = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + mac + ip + bytes(6)
                    sock.send(b"\xff" * 6 + mac + b"\x08\x06" + body + bytes([10, 0, 3, 240]))
            took = time.monotonic() - started
            answered = p.arping("10.0.3.241", 3)
        grown = resident(net.a) - before
        known = len(net.bindings(net.b))
        print(
            f"10,000 senders in {took:.2f} s: {len(answered)} of 3 questions of a known container "
            f"answered, {known} bindings at the peer, {grown / 1e6:.1f} MB more"
        )
        assert len(answered) >= 2
        assert set(answered) == {q.mac}
        assert known < 2000
        assert grown < 30e6
        assert net.count(net.a, "frames_dropped") > 5000
        assert p.ping("10.0.3.241", 3).lost == 0


# --- names, and what a careless peer lets out


@pytest.fixture
def other_lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


def test_a_name_means_who_had_it_first(other_lab: Lab) -> None:
    hosts = build(other_lab, ["lan", "lan", "lan"])
    assert hosts.rendezvous.running
    a, b, c = hosts.hosts
    one = a.controller(allow={"b": ["10.0.3.0/24"]})
    two = b.controller()
    one.wait_connected(["b"])
    impostor = c.controller(node="b")

    def refused() -> bool:
        counters = one.counters()
        return bool(counters.get("peers_refused", {}).get("name_taken"))

    wait_until(refused, 10, "seen")
    assert "calls itself 'b', which is pinned to node" in one.output()

    def told(ip: str) -> bool:
        return any(binding["ip"] == ip for binding in one.ask("bindings")["bindings"])

    theirs = c.container("theirs", "10.0.3.9/24")
    owned = b.container("owned", "10.0.3.7/24")
    theirs.arping("10.0.3.77")
    owned.arping("10.0.3.77")
    wait_until(lambda: told("10.0.3.7"), 5, "b's container is known")
    assert not told("10.0.3.9")
    # The pin outlives both controllers: the impostor is first now, and refused all the same.
    two.terminate()
    one.terminate()
    one.start()
    wait_until(lambda: bool(one.connected()), 15, "connected to the impostor")
    wait_until(refused, 5, "seen again")
    theirs.arping("10.0.3.78")
    time.sleep(0.5)
    assert not told("10.0.3.9")
    assert impostor.running


def test_dhcp_and_router_advertisements_cross_where_both_want_it(other_lab: Lab) -> None:
    hosts = build(other_lab, ["lan", "lan", "lan"])
    assert hosts.rendezvous.running
    a, b, c = hosts.hosts
    relaying = {"dhcp": "relay", "ra": "relay"}
    controllers = [a.controller(relaying), b.controller(relaying), c.controller()]
    for controller, others in zip(controllers, ("bc", "ac", "ab"), strict=True):
        controller.wait_connected(others)
    p, q, r = (h.container(f"c{i}", f"10.0.3.{5 + i}/24") for i, h in enumerate(hosts.hosts))
    frames = [
        Ether(src=p.mac, dst=BROADCAST)
        / IP(src="0.0.0.0", dst="255.255.255.255")
        / UDP(sport=68, dport=67)
        / BOOTP(chaddr=bytes.fromhex(p.mac.replace(":", "")))
        / DHCP(options=[("message-type", "discover"), "end"]),
        Ether(src=p.mac, dst="33:33:00:00:00:01")
        / IPv6(src="fe80::1234", dst="ff02::1", hlim=255)
        / ICMPv6ND_RA(),
    ]
    about = f"ether src {p.mac} and (udp port 67 or icmp6[0] = 134)"
    with q.capture("eth0", about) as relayed, r.capture("eth0", about) as blocked:
        send(p, *map(bytes, frames))
        relayed.wait(2)
        time.sleep(0.2)
    assert not blocked.frames, blocked.summary()
    found = {(x["kind"], x["peer"]): x for x in controllers[2].ask("status")["blocked"]}
    assert found["dhcp", "a"]["count"] >= 1
    assert found["router", "a"]["count"] >= 1
    text = controllers[2].status_text()
    assert "blocked dhcp from a: it stays on its host" in text
    # Control frames of bridges never cross (unless asked for).
    with q.capture("eth0", "ether dst 01:80:c2:00:00:00 or ether dst 01:80:c2:00:00:0e") as stp:
        for last in ("00", "0e"):
            send(p, bytes(Ether(src=p.mac, dst=f"01:80:c2:00:00:{last}", type=0x88CC) / bytes(46)))
        time.sleep(0.3)
    assert not stp.frames
