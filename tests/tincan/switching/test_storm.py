"""Storms are noticed, thinned and forgotten; the filter does to scapy's frames what it says."""

import socket
import struct
from collections import Counter

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6MLReport2, ICMPv6ND_NA, ICMPv6ND_NS, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from tincan.switching.storm import ADMITTED, CALM_FOR, MAX_KNOWN, STORM_RATE, Filter, Storm


def test_calm_weather_needs_no_filter() -> None:
    counters: Counter[str] = Counter()
    storm = Storm(counters, 0.0, frozenset)
    for tick in range(1, 20):
        counters["frames_flooded"] += int(STORM_RATE / 8)
        assert storm.observe(0, False, tick * 0.25) is None


def test_a_storm_is_thinned_in_proportion_and_the_filter_goes_when_it_is_over() -> None:
    counters: Counter[str] = Counter()
    storm = Storm(counters, 0.0, frozenset)
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


def test_the_filter_of_unicast_frames() -> None:
    known = frozenset(bytes([2, 0, 0, number >> 8, number & 255, 9]) for number in range(MAX_KNOWN))
    for group in (True, False):
        program = Filter(1, False, group, known).program()
        assert len(program) // 8 <= 4096  # BPF_MAXINSNS
        for mac in known:
            assert accepted(program, Ether(dst=mac.hex(":")) / bytes(46))
        assert not sum(accepted(program, Ether(dst=B) / bytes(46)) for _ in range(20)) > 2
        passed = sum(accepted(program, Ether(dst=ALL) / bytes(46)) for _ in range(20))
        assert passed <= 2 if group else passed == 20


@pytest.mark.parametrize(
    ("group", "unicast", "wanted"),
    [(25_000, 0, (True, False)), (0, 25_000, (False, True)), (9_000, 16_000, (True, True))],
)
def test_only_what_storms_is_thinned(group: int, unicast: int, wanted: tuple[bool, bool]) -> None:
    counters: Counter[str] = Counter()
    known = frozenset({bytes(6)})
    storm = Storm(counters, 0.0, lambda: known)
    counters["frames_dropped.multicast_policed"] += group
    counters["frames_dropped.unknown_unicast_policed"] += unicast
    counters["frames_flooded"] += 250
    filter_ = storm.observe(0, False, 0.25)
    assert filter_ is not None
    assert (filter_.group, filter_.known is not None) == wanted
    again = storm.observe(25_000, False, 0.5)  # all of it was refused: it is the same storm
    assert again is not None
    assert (again.group, again.known is not None) == wanted
