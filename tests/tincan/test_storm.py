"""Storms are noticed, thinned and forgotten; the filter does to scapy's frames what it says."""

import socket
import struct
from collections import Counter

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6MLReport2, ICMPv6ND_NA, ICMPv6ND_NS, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from tincan.storm import ADMITTED, CALM_FOR, STORM_RATE, Filter, Storm


def test_calm_weather_needs_no_filter() -> None:
    counters: Counter[str] = Counter()
    storm = Storm(counters, 0.0)
    for tick in range(1, 20):
        counters["frames_flooded"] += int(STORM_RATE / 8)
        assert storm.observe(0, False, tick * 0.25) is None


def test_a_storm_is_thinned_in_proportion_and_the_filter_goes_when_it_is_over() -> None:
    counters: Counter[str] = Counter()
    storm = Storm(counters, 0.0)
    counters["frames_dropped.broadcast_policed"] += 25_000
    filter_ = storm.observe(0, True, 0.25)
    assert filter_ is not None
    assert filter_.part == pytest.approx(65536 * ADMITTED / 100_000, rel=0.01)
    assert filter_.neighbours
    counters["frames_dropped.broadcast_policed"] += 500
    steady = storm.observe(24_500, True, 0.5)  # what the filter refused counts as offered
    assert steady == filter_
    now = 0.5
    while storm.observe(0, True, now := now + 0.25) is not None:
        assert now < CALM_FOR + 1.5
    assert now > CALM_FOR


def accepted(program: bytes, frame: Packet) -> bool:
    """Run a program on a frame as the kernel does: in a socket filter."""
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    import ctypes

    code = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    two.setsockopt(socket.SOL_SOCKET, 26, fprog)  # SO_ATTACH_FILTER
    two.setblocking(False)
    one.setblocking(False)
    with one, two:
        try:
            one.send(bytes(frame))
            return len(two.recv(2048)) == len(bytes(frame))
        except (BlockingIOError, PermissionError):
            return False


ALL, GROUP6, B = "ff:ff:ff:ff:ff:ff", "33:33:ff:00:00:01", "02:00:00:00:00:0b"


@pytest.mark.parametrize(
    ("frame", "neighbour"),
    [
        (Ether(dst=ALL) / ARP(), True),
        (Ether(dst=GROUP6) / IPv6() / ICMPv6ND_NS(), True),
        (Ether(dst=GROUP6) / IPv6() / ICMPv6ND_NA(), True),
        (Ether(dst=GROUP6) / IPv6() / ICMPv6MLReport2(), False),
        (Ether(dst=ALL) / IP() / UDP() / bytes(30), False),
    ],
)
def test_the_filter(frame: Packet, neighbour: bool) -> None:
    everything, nothing = Filter(65536, True), Filter(1, True)
    assert accepted(everything.program(), frame)
    assert accepted(Filter(65536, False).program(), frame) is not neighbour
    assert sum(accepted(nothing.program(), frame) for _ in range(20)) <= 2
    half = sum(accepted(Filter(32768, True).program(), frame) for _ in range(200))
    assert 60 <= half <= 140
    frame = frame.copy()
    frame[Ether].dst = B
    assert accepted(nothing.program(), frame)  # unicast is none of its business
