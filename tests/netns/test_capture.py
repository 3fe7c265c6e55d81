"""The capture socket on a real TAP in a real bridge.

c0 === v0 ---+
            br0 --- tap (tincan's end: what is written there comes from peers)
c1 === v1 ---+
"""

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

import controller.packets.decode  # noqa: F401 - loaded before any capture is opened: no waiting for it
from controller.errors import SystemRefusal
from controller.host.capture import PAUSE_S, READ_BUDGET, SAMPLE_S, Capture
from controller.packets.addresses import BROADCAST_MAC, ZERO_MAC
from controller.packets.encode import build
from controller.packets.packets import (
    ARP_REPLY,
    ARP_REQUEST,
    Arp,
    Captured,
    Echo,
    HostPacket,
    NeighbourSolicitation,
    RouterMessage,
)
from tests.netns.namespace import Namespace, Tap, needs_root, sh, until

pytestmark = needs_root

TAP = "smtap"
C0, C1 = "02:00:00:00:00:c0", "02:00:00:00:00:c1"
REMOTE = "02:00:00:00:bb:bb"
REQUEST = Arp(ARP_REQUEST, C0, "10.0.9.1", ZERO_MAC, "10.0.9.7", 0, C0, BROADCAST_MAC)
REPLY = Arp(ARP_REPLY, C0, "10.0.9.1", REMOTE, "10.0.9.7", 0, C0, REMOTE)

# In one request the kernel brings a link up before it reads addrgenmode.
SETUP = f"""ip link add br0 type bridge
    for i in 0 1; do
        ip link add v$i type veth peer name c$i
        ip link set v$i master br0
        ip link set c$i address 02:00:00:00:00:c$i
    done
    ip link set {TAP} master br0
    for link in br0 v0 v1 c0 c1 {TAP}; do
        ip link set $link addrgenmode none
        ip link set $link up
    done
    ip addr add 10.0.9.1/24 dev c0; ip addr add fd09::1/64 dev c0 nodad"""


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with Namespace("smcap") as namespace:
        yield namespace


class Bench:
    """A capture on a TAP in a bridge with two containers."""

    def __init__(self) -> None:
        self.tap = Tap(TAP)
        sh(SETUP)
        self.packets: list[Captured] = []
        self.counters: Counter[str] = Counter()
        self.closed: list[str] = []
        self.c0, self.c1 = wire("c0"), wire("c1")
        self.capture = self.open()

    def open(self) -> Capture:
        return Capture(TAP, self.packets.append, self.closed.append, self.counters)

    def close(self) -> None:
        self.capture.close()
        self.c0.close()
        self.c1.close()
        self.tap.close()

    async def settled(self) -> list[Captured]:
        await asyncio.sleep(0.1)
        return self.packets


def wire(interface: str) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sock.bind((interface, 0))
    return sock


def scenario(namespace: Namespace, play: Callable[[Bench], Awaitable[None]]) -> None:
    async def run() -> None:
        bench = Bench()
        try:
            await play(bench)
        finally:
            bench.close()

    namespace.run(run)


def test_the_kernel_s_own_requests_are_captured(namespace: Namespace) -> None:
    async def play(bench: Bench) -> None:
        sh("ping -c1 -W0.1 10.0.9.7 || true; ping -c1 -W0.1 fd09::7 || true")
        await until(lambda: len(bench.packets) >= 2)
        assert REQUEST in bench.packets
        solicitations = [p for p in bench.packets if isinstance(p, NeighbourSolicitation)]
        assert [(p.target, p.lladdr, p.eth_dst) for p in solicitations][:1] == [
            ("fd09::7", C0, "33:33:ff:00:00:07")
        ]

    scenario(namespace, play)


def test_duplicate_address_detection_and_router_solicitations_are_captured(
    namespace: Namespace,
) -> None:
    async def play(bench: Bench) -> None:
        sh("ip link set c1 down; ip link set c1 addrgenmode eui64")
        sh("ip link set c1 up; ip addr add fd09::2/64 dev c1")
        await until(lambda: any(isinstance(p, RouterMessage) for p in bench.packets), 10.0)
        probes = [p for p in bench.packets if isinstance(p, NeighbourSolicitation)]
        assert {p.target for p in probes} == {"fd09::2", "fe80::ff:fe00:c1"}
        assert {p.src_ip for p in probes} == {"::"}

    scenario(namespace, play)


def test_tags_come_back_from_the_auxiliary_data(namespace: Namespace) -> None:
    async def play(bench: Bench) -> None:
        for vlan in (0, 7, 4094):
            bench.c0.send(build(replace(REQUEST, vlan=vlan)))
        assert [p.vlan for p in await bench.settled()] == [0, 7, 4094]

    scenario(namespace, play)


def test_only_what_leaves_by_the_tap_is_captured(namespace: Namespace) -> None:
    async def play(bench: Bench) -> None:
        bench.tap.write(build(replace(REQUEST, eth_src=REMOTE, sha=REMOTE)))  # from a peer
        # Between two local ports, unicast: the bridge has learned both.
        bench.c1.send(build(replace(REQUEST, eth_src=C1, sha=C1)))
        await bench.settled()
        bench.packets.clear()
        bench.c0.send(build(replace(REPLY, eth_dst=C1)))
        assert await bench.settled() == []
        bench.c0.send(build(REPLY))  # to the peer
        assert await bench.settled() == [REPLY]

    scenario(namespace, play)


def test_malformed_frames_are_counted_by_reason(namespace: Namespace) -> None:
    async def play(bench: Bench) -> None:
        bench.c0.send(build(REQUEST)[:30])
        bench.c0.send(build(replace(REQUEST, sha=BROADCAST_MAC)))
        assert await bench.settled() == []
        assert bench.counters == {
            "frames_dropped.arp_truncated": 1,
            "frames_dropped.arp_sender_mac": 1,
        }

    scenario(namespace, play)


def test_packets_of_gateways_are_captured_on_demand(namespace: Namespace) -> None:
    async def play(bench: Bench) -> None:
        gateway = "02:00:00:00:00:11"
        echo = Echo(False, "10.0.9.254", "10.0.9.7", 1, 1, b"?", 0, gateway, REMOTE)
        bench.c0.send(build(echo))
        assert await bench.settled() == []
        bench.capture.watch_gateways(frozenset({gateway, "02:00:00:00:00:12"}))
        bench.c0.send(build(echo))
        bench.c0.send(build(replace(echo, eth_src=C0)))
        bench.c0.send(build(replace(echo, eth_dst=BROADCAST_MAC)))
        bench.c0.send(build(replace(REQUEST, eth_src=gateway)))  # once, by the other socket
        big = Ether(src=gateway, dst=REMOTE) / IP(src="10.0.9.254", dst="10.0.9.7") / UDP()
        bench.c0.send(bytes(big / bytes(1400)))
        await bench.settled()
        assert len(bench.packets) == 3
        assert echo in bench.packets
        assert replace(REQUEST, eth_src=gateway) in bench.packets
        (other,) = [p for p in bench.packets if isinstance(p, HostPacket)]
        assert other.packet == bytes(big / bytes(1400))[14 : 14 + 512]
        bench.packets.clear()
        for _ in range(3000):  # a flood of the rest takes no echo request along
            bench.c0.send(bytes(big))
        bench.c0.send(build(echo))
        await until(lambda: echo in bench.packets)
        assert len(bench.packets) < 300
        bench.capture.watch_gateways(frozenset())
        await bench.settled()
        bench.packets.clear()
        bench.c0.send(build(echo))
        assert await bench.settled() == []

    scenario(namespace, play)


def test_the_tap_may_go_down_and_up(namespace: Namespace) -> None:
    async def play(bench: Bench) -> None:
        for _ in range(2):
            sh(f"ip link set {TAP} down")
            await asyncio.sleep(0.05)
            sh(f"ip link set {TAP} up")
            bench.packets.clear()
            bench.c0.send(build(REQUEST))
            await until(lambda: bench.packets)
        assert bench.closed == []

    scenario(namespace, play)


def test_the_end_of_the_tap_is_reported_once(namespace: Namespace) -> None:
    async def play(bench: Bench) -> None:
        bench.tap.close()
        await until(lambda: bench.closed)
        await asyncio.sleep(0.05)
        assert bench.closed == [f"the TAP {TAP} is gone: Network is down"]
        with pytest.raises(SystemRefusal, match=f"capturing on {TAP} failed: No such device"):
            bench.open()
        bench.tap = Tap(TAP)
        sh(f"ip link set {TAP} master br0 up")
        bench.capture = bench.open()
        bench.c0.send(build(REQUEST))
        await until(lambda: bench.packets)

    scenario(namespace, play)


def test_without_permission_it_says_so(namespace: Namespace) -> None:
    async def play(bench: Bench) -> None:
        os.setresuid(65534, 65534, 65534)  # of this forked child only
        with pytest.raises(SystemRefusal, match="not permitted; run as root"):
            bench.open()

    scenario(namespace, play)


def storm(sources: int, seconds: float) -> int:
    """Send requests from c0 as fast as possible, in a process of its own; its pid."""
    child = os.fork()
    if child:
        return child
    try:
        sock = wire("c0")
        frames = []
        for number in range(max(sources, 250)):
            mac = (
                f"02:aa:00:{number % sources >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
            )
            mac = mac if sources > 1 else "02:aa:00:00:00:00"
            packet = replace(REQUEST, sha=mac, eth_src=mac, tpa=f"10.0.9.{number % 250 + 1}")
            frames.append(build(packet))
        loop_until = os.times().elapsed + seconds
        while os.times().elapsed < loop_until:
            for frame in frames:
                sock.send(frame)
    finally:
        os._exit(0)


@pytest.mark.parametrize("sources", [1, 20000])
def test_a_storm_takes_no_answer_from_another_container(namespace: Namespace, sources: int) -> None:
    async def play(bench: Bench) -> None:
        loop = asyncio.get_running_loop()
        slowest = 0.0
        for _ in range(3):  # known already
            bench.c1.send(build(replace(REQUEST, sha=C1, eth_src=C1)))
            await asyncio.sleep(0.01)
        bench.packets.clear()
        child = storm(sources, 2.5)
        for number in range(50):
            packet = replace(REQUEST, sha=C1, eth_src=C1, tpa=f"10.0.9.{number + 1}")
            bench.c1.send(build(packet))
            before = loop.time()
            await asyncio.sleep(0.04)
            slowest = max(slowest, loop.time() - before - 0.04)
            while bench.tap.read():
                pass
        heard = [p for p in bench.packets if isinstance(p, Arp) and p.sha == C1]
        others = len(bench.packets) - len(heard)
        assert len(heard) >= 40  # before the kernel is told, some are lost
        assert others < 3000
        assert bench.counters["frames_dropped.capture_policed"] >= READ_BUDGET
        relief = "capture_muted" if sources == 1 else "capture_strangers_sampled"
        assert bench.counters[relief] > 0
        # It ends, and everybody is heard again, at the latest with the third try.
        await asyncio.to_thread(os.waitpid, child, 0)
        bench.packets.clear()
        newcomer = "02:00:00:00:00:99"
        for _ in range(3):
            await asyncio.sleep(SAMPLE_S + 5 * PAUSE_S)
            bench.c0.send(build(replace(REQUEST, sha=newcomer, eth_src=newcomer)))
        await until(lambda: [p for p in bench.packets if getattr(p, "eth_src", "") == newcomer])
        assert slowest < 1.0

    scenario(namespace, play)
