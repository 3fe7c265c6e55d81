"""Segments and checksums against scapy, and what becomes of bad input."""

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from tincan.device.segment import (
    MAX_SEGMENTS,
    _invert,
    _sum,
    complete_checksum,
    segment,
    split,
)
from tincan.device.vnet import (
    GSO_ECN,
    GSO_NONE,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    NEEDS_CSUM,
    VNET,
)
from tincan.errors import MalformedDatagram

ADDRESSES = {4: ("10.0.3.5", "10.0.3.7"), 6: ("fd00::5", "fd00::7")}


def stack(version: int, l4: Packet, payload: bytes, *, tagged: bool = False, **ip: Any) -> bytes:
    """A frame as bytes, lengths and checksums filled in by scapy."""
    source, destination = ADDRESSES[version]
    ethernet = Ether(dst="02:00:00:00:00:07", src="02:00:00:00:00:05")
    if tagged:
        ethernet = ethernet / Dot1Q(vlan=42, prio=3)
    network = (IP if version == 4 else IPv6)(src=source, dst=destination, **ip)
    return bytes(ethernet / network / l4 / Raw(payload))


def offsets(version: int, tagged: bool) -> tuple[int, int]:
    l3 = 18 if tagged else 14
    return l3, l3 + (20 if version == 4 else 40)


def super_frame(
    version: int,
    l4: Packet,
    payload: bytes,
    gso_type: int,
    gso_size: int,
    *,
    tagged: bool = False,
    **ip: Any,
) -> bytes:
    """What a TAP hands over: a hdr_len that means nothing, a checksum field to be filled."""
    frame = bytearray(stack(version, l4, payload, tagged=tagged, **ip))
    start = offsets(version, tagged)[1]
    field = 6 if gso_type & 0x7F == GSO_UDP_L4 else 16
    frame[start + field : start + field + 2] = b"\xde\xad"
    return VNET.pack(NEEDS_CSUM, gso_type, 0xFFFF, gso_size, start, field) + frame


def again(frame: bytes) -> bytes:
    """The frame with lengths and checksums computed anew by scapy."""
    packet = Ether(frame)
    for layer in (IP, IPv6, TCP, UDP):
        if layer in packet:
            for field in ("len", "plen", "chksum"):
                if field in packet[layer].fields:
                    delattr(packet[layer], field)
    return bytes(packet)


versions = st.sampled_from([4, 6])
sizes = st.one_of(st.integers(64, 9000), st.sampled_from([536, 1220, 1400, 1448]))


@settings(max_examples=60, deadline=None)
@given(
    version=versions,
    tagged=st.booleans(),
    length=st.one_of(st.integers(0, 4000), st.integers(0, 65000)),
    size=sizes,
    flags=st.integers(0, 0xFF),
    sequence=st.one_of(st.integers(0, 0xFFFFFFFF), st.integers(0xFFFFFFFF - 70000, 0xFFFFFFFF)),
    identification=st.integers(0, 0xFFFF),
    options=st.booleans(),
    seed=st.binary(min_size=1, max_size=7),
)
def test_tcp_segments_are_what_scapy_would_build(
    version: int,
    tagged: bool,
    length: int,
    size: int,
    flags: int,
    sequence: int,
    identification: int,
    options: bool,
    seed: bytes,
) -> None:
    payload = (seed * (length // len(seed) + 1))[:length]
    tcp = TCP(sport=5001, dport=80, seq=sequence, flags=flags, window=501)
    if options:
        tcp.options = [("NOP", None), ("NOP", None), ("Timestamp", (1, 2))]
    gso_type = (GSO_TCPV4 if version == 4 else GSO_TCPV6) | (GSO_ECN if flags & 0x80 else 0)
    ip: dict[str, Any] = {"id": identification, "flags": "DF"} if version == 4 else {}
    frames = segment(super_frame(version, tcp, payload, gso_type, size, tagged=tagged, **ip))

    l4 = offsets(version, tagged)[1]
    header = l4 + 20 + (12 if options else 0)
    assert b"".join(frame[header:] for frame in frames) == payload
    assert all(len(frame) == header + size for frame in frames[:-1])
    assert len(frames) == max(1, -(-length // size))
    for number, frame in enumerate(frames):
        assert frame == again(frame)
        packet = Ether(frame)
        assert packet[TCP].seq == (sequence + number * size) % (1 << 32)
        last = number == len(frames) - 1
        expected = flags if last else flags & ~0x09
        if number:
            expected &= ~0x80
        assert int(packet[TCP].flags) & 0xFF == expected
        if version == 4:
            assert packet[IP].id == (identification + number) & 0xFFFF
        if tagged:
            assert (packet[Dot1Q].vlan, packet[Dot1Q].prio) == (42, 3)
        if options:
            assert ("Timestamp", (1, 2)) in packet[TCP].options


@settings(max_examples=30, deadline=None)
@given(
    version=versions,
    tagged=st.booleans(),
    length=st.integers(0, 65000),
    size=sizes,
    seed=st.binary(min_size=1, max_size=7),
)
def test_udp_segments_are_what_scapy_would_build(
    version: int, tagged: bool, length: int, size: int, seed: bytes
) -> None:
    payload = (seed * (length // len(seed) + 1))[:length]
    packet = super_frame(
        version, UDP(sport=5001, dport=53), payload, GSO_UDP_L4, size, tagged=tagged
    )
    frames = segment(packet)
    header = offsets(version, tagged)[1] + 8
    assert b"".join(frame[header:] for frame in frames) == payload
    assert [len(frame) - header for frame in frames[:-1]] == [size] * (len(frames) - 1)
    for frame in frames:
        assert frame == again(frame)


def pseudo(version: int, protocol: int, length: int) -> int:
    source, destination = ADDRESSES[version]
    header = IP(src=source, dst=destination) if version == 4 else IPv6(src=source, dst=destination)
    raw = bytes(header)
    addresses = raw[12:20] if version == 4 else raw[8:40]
    return (_sum(addresses) + protocol + length) % 0xFFFF


@given(
    version=versions,
    tagged=st.booleans(),
    udp=st.booleans(),
    payload=st.binary(max_size=2000),
)
def test_a_checksum_left_open_is_completed(
    version: int, tagged: bool, udp: bool, payload: bytes
) -> None:
    l4 = UDP(sport=1, dport=2) if udp else TCP(sport=1, dport=2, seq=7)
    whole = stack(version, l4, payload, tagged=tagged)
    start, offset = offsets(version, tagged)[1], 6 if udp else 16
    frame = bytearray(whole)
    partial = pseudo(version, 17 if udp else 6, len(whole) - start)
    struct.pack_into(">H", frame, start + offset, partial)
    [done] = segment(VNET.pack(NEEDS_CSUM, GSO_NONE, 0, 0, start, offset) + frame)
    if not udp and whole[start + offset : start + offset + 2] == b"\0\0":
        whole = whole[: start + offset] + b"\xff\xff" + whole[start + offset + 2 :]
    assert done == whole
    assert complete_checksum(frame, start, offset) == whole


def test_a_plain_frame_is_left_alone() -> None:
    frame = stack(4, TCP(), b"data")
    assert segment(VNET.pack(0, GSO_NONE, 0, 0, 0, 0) + frame) == [frame]
    assert segment(memoryview(bytearray(VNET.size) + frame)) == [frame]


def test_padding_of_the_ethernet_frame_is_not_payload() -> None:
    packet = super_frame(4, TCP(), b"x" * 100, GSO_TCPV4, 60)
    assert segment(packet + bytes(30)) == segment(packet)


def test_frames_too_long_for_the_length_field() -> None:
    """BIG TCP: a length of 0 means up to the end."""
    for version, gso_type, field in ((4, GSO_TCPV4, 2), (6, GSO_TCPV6, 4)):
        packet = bytearray(super_frame(version, TCP(), b"x" * 5000, gso_type, 1000))
        expected = segment(bytes(packet))
        at = VNET.size + 14 + field
        packet[at : at + 2] = bytes(2)
        assert segment(packet) == expected


def test_a_segment_that_no_length_field_can_say() -> None:
    packet = bytearray(super_frame(4, TCP(), b"x" * 65400, GSO_TCPV4, 65535))
    at = VNET.size + 14 + 2
    packet[at : at + 2] = bytes(2)
    with pytest.raises(MalformedDatagram, match="segment_too_long"):
        segment(packet + bytes(200))


GOOD = super_frame(4, TCP(seq=9), bytes(range(256)) * 20, GSO_TCPV4, 1000)
GOOD6 = super_frame(6, TCP(seq=9), bytes(range(256)) * 20, GSO_TCPV6, 1000)


def changed(packet: bytes, at: int, value: int) -> bytes:
    edited = bytearray(packet)
    edited[at] = value
    return bytes(edited)


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"", "segment_truncated"),
        (GOOD[: VNET.size + 13], "segment_truncated"),
        (GOOD[: VNET.size + 30], "segment_truncated"),
        (GOOD[:-1], "segment_truncated"),
        (GOOD6[:-1], "segment_truncated"),
        (changed(GOOD, 1, 3), "segment_unsupported"),  # UFO
        (changed(GOOD, 1, 0x25), "segment_unsupported"),
        (changed(GOOD, 1, GSO_TCPV6), "segment_header"),
        (changed(GOOD6, 1, GSO_TCPV4), "segment_header"),
        (changed(GOOD, 1, GSO_UDP_L4), "segment_header"),
        (changed(GOOD, VNET.size + 12, 0x09), "segment_header"),  # another EtherType
        (changed(GOOD, VNET.size + 14, 0x65), "segment_header"),  # version
        (changed(GOOD, VNET.size + 14, 0x44), "segment_header"),  # header length
        (changed(GOOD, VNET.size + 20, 0x20), "segment_header"),  # more fragments
        (changed(GOOD, VNET.size + 21, 1), "segment_header"),  # a later fragment
        (changed(GOOD, VNET.size + 23, 1), "segment_header"),  # protocol
        (changed(GOOD, VNET.size + 46, 0x40), "segment_header"),  # TCP header length
        (changed(changed(GOOD, VNET.size + 16, 0), VNET.size + 17, 30), "segment_truncated"),
        (changed(GOOD6, VNET.size + 14, 0x45), "segment_header"),
        (changed(GOOD6, VNET.size + 20, 0), "segment_header"),  # an extension header
        (changed(changed(GOOD, 4, 0), 5, 0), "segment_count"),
        (changed(changed(GOOD, 4, 4), 5, 0), "segment_count"),
        (VNET.pack(NEEDS_CSUM, 0, 0, 0, 34, 0xFFFF) + GOOD[10:], "segment_checksum_outside"),
        (VNET.pack(NEEDS_CSUM, 0, 0, 0, 0, 0) + GOOD[10:], "segment_checksum_outside"),
    ],
)
def test_malformed(packet: bytes, reason: str) -> None:
    with pytest.raises(MalformedDatagram) as failure:
        segment(packet)
    assert failure.value.reason == reason


def outcome(packet: bytes) -> int:
    """How many frames; nothing but MalformedDatagram may come out instead."""
    try:
        frames = segment(packet)
    except MalformedDatagram:
        return 0
    assert sum(map(len, frames)) <= len(packet) + MAX_SEGMENTS * 150
    return len(frames)


@given(header=st.binary(min_size=10, max_size=10), frame=st.binary(max_size=200))
def test_garbage(header: bytes, frame: bytes) -> None:
    assert outcome(header + frame) <= MAX_SEGMENTS


@given(
    packet=st.sampled_from([GOOD, GOOD6]),
    edits=st.lists(st.tuples(st.integers(0, 90), st.integers(0, 255)), max_size=4),
    size=st.integers(0, 6000),
)
def test_damaged(packet: bytes, edits: list[tuple[int, int]], size: int) -> None:
    for at, value in edits:
        packet = changed(packet, at, value)
    assert outcome(packet[:size]) <= MAX_SEGMENTS


@given(st.binary(max_size=300))
def test_sum_is_that_of_rfc_1071(data: bytes) -> None:
    padded = data + b"\0" * (len(data) & 1)
    words = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    assert _sum(data) == words % 0xFFFF
    if words:
        while words >> 16:
            words = (words & 0xFFFF) + (words >> 16)
        assert _invert(_sum(data)) == words ^ 0xFFFF


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("tagged", [False, True])
@given(
    size=st.integers(2, 20_000),
    mss=st.sampled_from([536, 1448]),
    limit=st.integers(900, 9000),
    flags=st.sampled_from(["A", "PA", "FPA", "CA", "CPA"]),
)
@settings(max_examples=40, deadline=None)
def test_pieces_of_a_super_frame_are_its_bytes(
    version: int, tagged: bool, size: int, mss: int, limit: int, flags: str
) -> None:
    """Cut, then segmented: each segment is right, and together they are what TCP sent."""
    payload = bytes(i * 7 & 255 for i in range(size))
    tcp = TCP(sport=1, dport=2, seq=0xFFFFF000, flags=flags)
    kind = GSO_TCPV4 if version == 4 else GSO_TCPV6
    whole = bytearray(super_frame(version, tcp, payload, kind, mss, tagged=tagged))
    l3, l4 = (VNET.size + offset for offset in offsets(version, tagged))
    addresses = whole[l3 + 12 : l3 + 20] if version == 4 else whole[l3 + 8 : l3 + 40]
    pseudo = (_sum(addresses) + 6 + len(whole) - l4) % 0xFFFF
    whole[l4 + 16 : l4 + 18] = pseudo.to_bytes(2, "big")
    parts = split(whole, limit)
    head = l4 + 20
    assert all(len(part) <= max(limit, head + mss) for part in parts)
    assert all(len(part) == len(parts[0]) for part in parts[:-1])
    sent = b""
    segments = [each for part in parts for each in segment(part)]
    for number, each in enumerate(segments):
        packet = Ether(each)
        found = packet[TCP]
        assert found.seq == (0xFFFFF000 + len(sent)) & 0xFFFFFFFF
        sent += bytes(found.payload)
        assert ("C" in found.flags) == ("C" in flags and number == 0)
        assert ("F" in found.flags) == ("F" in flags and number == len(segments) - 1)
        assert again(each) == each
        assert len(bytes(found.payload)) <= mss
    assert sent == payload


def test_what_is_no_tcp_is_not_split() -> None:
    datagram = VNET.pack(0, GSO_NONE, 0, 0, 0, 0) + stack(4, UDP(sport=1, dport=2), bytes(5000))
    assert split(datagram, 1000) == [datagram]
