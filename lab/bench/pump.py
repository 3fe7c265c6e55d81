"""The pump without a network: records and frames per second through both ends, on one core.

    .venv/bin/python -m lab.bench.pump [--seconds 1] [--profile]

Two tincans' hot paths in one process, joined by two UDP sockets on the loopback: egress reads
frames from a stand-in for the TAP, seals and sends; ingress receives, opens and writes to another.
Run it before and after a change, several times in turn: the machine drifts.
"""

import argparse
import asyncio
import cProfile
import ctypes
import pstats
import time
from collections import Counter
from typing import Any, cast

from tincan.crypto.primitives import PrivateKey
from tincan.device.tap import Offloads, Tap
from tincan.device.udp import UdpSocket
from tincan.link.link import Link
from tincan.link.listener import LinkState
from tincan.link.pmtu import PathMtu
from tincan.path.attempt import Negotiation
from tincan.path.path import Path
from tincan.pump.egress import Egress
from tincan.pump.ingress import Ingress, Source
from tincan.record.layout import VNET_SIZE
from tincan.session.session import Session
from tincan.switching.policy import Policy

MAC_A, MAC_B = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
WORKS = {  # name -> (frame sizes of one wake-up, path MTU)
    "super 64 KiB": ([65226], 1500),
    "super 64 KiB, 3 at a time": ([65226] * 3, 1500),
    "super 64 KiB, MTU 9000": ([65226], 9000),
    "acks, 8 at a time": ([66] * 8, 1500),
    "64-byte UDP, one at a time": ([106], 1500),
    "64-byte UDP, 16 at a time": ([106] * 16, 1500),
    "1400-byte UDP, 16 at a time": ([1442] * 16, 1500),
    "mixed": ([66, 65226, 98, 1514], 1500),
}


class StandIn:
    """A TAP's reading or writing end: hands out the same frames again and again."""

    def __init__(self) -> None:
        self.fd = -1
        self.offloads = Offloads()
        self.waiting: list[bytes] = []
        self.frames = self.bytes = 0

    def read(self, _: int, address: int, size: int) -> int:
        if not self.waiting:
            return -1
        frame = self.waiting.pop()
        assert len(frame) <= size
        ctypes.memmove(address, frame, len(frame))
        return len(frame)

    def refused(self) -> bool:
        return False

    def write(self, item: memoryview) -> int:
        self.frames += 1
        self.bytes += len(item) - VNET_SIZE
        return len(item)


class Silent:
    """Hears a link's events and the negotiation's watching, and does nothing about them."""

    def __getattr__(self, _: str) -> Any:
        return lambda *_: None


class End:
    """One tincan's hot path."""

    def __init__(self, private: PrivateKey, peer: bytes, mtu: int) -> None:
        self.tap = StandIn()
        self.counters: Counter[str] = Counter()
        self.policy: Policy[Link] = Policy(self.counters, lambda *_: None)
        tap = cast(Tap, self.tap)
        self.ingress = Ingress(tap, self.policy, self.counters)
        self.egress = Egress(tap, self.policy, self.counters)
        elected = private.public < peer
        self.link = Link(
            peer.hex(),
            elected=elected,
            events=cast(Any, Silent()),
            counters=self.counters,
            attached=lambda: True,
            clock=time.monotonic,
        )
        indices = iter(range(1, 1000))
        self.link.session = self.session = Session(
            private=private,
            peer=peer,
            psk=bytes(32),
            network_id=bytes(16),
            initiator=elected,
            payload=b"",
            new_index=lambda: next(indices),
            owner=self.link,
        )
        self.policy.links.append(self.link)
        self.sock = UdpSocket("127.0.0.1")
        self.negotiation = Negotiation(1, self.link, cast(Any, Silent()), UdpSocket)
        self.source = Source(self.sock, self.link, self.negotiation)
        self.link.active = self.negotiation
        self.link.state, self.link.up = LinkState.CONNECTED, True
        self.link._pmtu = PathMtu(28, time.monotonic())
        self.link._pmtu.mtu = mtu
        self.link._armed = 0.0  # no timers here

    def join(self, other: "End") -> None:
        address = other.sock.address
        self.negotiation.path = Path(self.sock, address, None, "host", "host", address)
        self.link._resize()
        self.ingress.keys.update(self.session.opening)


def pair(mtu: int) -> tuple[End, End]:
    """Return two ends with keys and a path; the first is elected."""
    low, high = sorted((PrivateKey.generate() for _ in range(2)), key=lambda k: k.public)
    one, two = End(low, high.public, mtu), End(high, low.public, mtu)
    now = time.monotonic()
    for init in one.session.start(now):
        for response in two.session.receive(init, now):
            one.session.receive(response, now)
    one.join(two)
    two.join(one)
    one.policy.table.pin(MAC_B, 0, one.link, now)
    return one, two


def frame(size: int) -> bytes:
    """A virtio header and an IPv4 frame; super-frames are TCP, others UDP."""
    protocol = 6 if size > 1514 else 17
    ip = bytes([0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol]) + bytes(10)
    head = bytes(VNET_SIZE) + MAC_B + MAC_A + b"\x08\x00" + ip + b"\x30\x39\x13\x89"
    return head.ljust(size + VNET_SIZE, b"x")


def run(name: str, seconds: float) -> None:
    sizes, mtu = WORKS[name]
    one, two = pair(mtu)
    frames = [frame(size) for size in sizes]
    wakes = 0
    sending = receiving = 0.0
    end = time.thread_time() + seconds
    while (began := time.thread_time()) < end:
        one.tap.waiting = frames.copy()
        one.egress.wake(began)
        sent = time.thread_time()
        two.ingress.wake(two.source, sent)
        done = time.thread_time()
        sending += sent - began
        receiving += done - sent
        wakes += 1
    count = two.tap.frames
    lost = wakes * len(sizes) - count
    print(
        f"{name:28} {sending / wakes * 1e6:7.1f} us out {receiving / wakes * 1e6:7.1f} us in  "
        f"{count / (sending + receiving):9.0f} frames/s "
        f"{two.tap.bytes * 8 / (sending + receiving) / 1e9:6.2f} Gbit/s"
        + (f"  LOST {lost} {dict(two.counters)}" if lost else "")
    )
    one.sock.close()
    two.sock.close()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="for each work")
    parser.add_argument("--profile", action="store_true", help="show where the time goes")
    parser.add_argument("--only", help="one work, by the beginning of its name")
    options = parser.parse_args()
    for name in WORKS:
        if options.only and not name.startswith(options.only):
            continue
        profile = cProfile.Profile()
        if options.profile:
            profile.enable()
        run(name, options.seconds)
        if options.profile:
            profile.disable()
            pstats.Stats(profile).sort_stats("tottime").print_stats(14)


if __name__ == "__main__":
    asyncio.run(main())
