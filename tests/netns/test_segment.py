"""Our segments against the kernel's, byte by byte.

A frame with a virtio header enters a veth that has no offloads, as if it came from a TAP; the
kernel segments it (validate_xmit_skb), and the other end shows with what result.
"""

import asyncio
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from scapy.layers.inet import TCP, UDP

from tests.netns.namespace import Namespace, needs_root, sh
from tests.tincan.device.test_segment import pseudo, super_frame
from tincan.device.segment import segment
from tincan.device.vnet import GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, VNET

pytestmark = needs_root

SOL_PACKET = 263
PACKET_VNET_HDR = 15
ETH_P_ALL = 3

SETUP = """ip link add in type veth peer name out
    ethtool -K in tx off tso off gso off gro off >/dev/null
    ethtool -K out gro off >/dev/null
    for link in in out; do
        ip link set $link addrgenmode none
        ip link set $link up
    done"""

TIMESTAMP = [("NOP", None), ("NOP", None), ("Timestamp", (7, 9))]


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with Namespace("smseg") as namespace:
        yield namespace


def packets() -> list[bytes]:
    made = []
    for version, gso_tcp in ((4, GSO_TCPV4), (6, GSO_TCPV6)):
        ip: dict[str, Any] = {"id": 0xFFFE, "flags": "DF"} if version == 4 else {}
        for length, size in ((1000, 999), (4284, 1428), (64000, 1400), (5001, 501)):
            payload = bytes(number * 7 & 0xFF for number in range(length))
            tcp = TCP(seq=0xFFFFF000, flags="CEPAF", window=500, options=TIMESTAMP)
            udp = UDP(sport=9, dport=10)
            made.append((version, tcp, payload, gso_tcp | GSO_ECN, size, ip))
            if length <= 60 * size:  # UDP_MAX_SEGMENTS of older kernels
                made.append((version, udp, payload, GSO_UDP_L4, size, ip))
    return [
        open_checksum(super_frame(v, l4, payload, kind, size, **ip), v, kind)
        for v, l4, payload, kind, size, ip in made
    ]


def open_checksum(packet: bytes, version: int, kind: int) -> bytes:
    """Fill in the sum of the pseudo-header, as a stack does that leaves the rest to the device."""
    udp = kind == GSO_UDP_L4
    start = 14 + (20 if version == 4 else 40)
    at = VNET.size + start + (6 if udp else 16)
    total = pseudo(version, 17 if udp else 6, len(packet) - VNET.size - start)
    return packet[:at] + struct.pack(">H", total) + packet[at + 2 :]


def plain(packet: bytes) -> bytes:
    """The same without segmentation: only the checksum is left to do."""
    flags, _, hdr_len, _, start, offset = VNET.unpack_from(packet)
    return VNET.pack(flags, 0, hdr_len, 0, start, offset) + packet[VNET.size :]


async def through_the_kernel() -> list[tuple[bytes, list[bytes]]]:
    sh(SETUP)
    results = []
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender,
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as receiver,
    ):
        sender.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        sender.bind(("in", 0))
        receiver.bind(("out", ETH_P_ALL))
        receiver.setblocking(False)
        loop = asyncio.get_running_loop()
        everything = packets()
        everything += [plain(packet) for packet in everything if len(packet) < 1500]
        for packet in everything:
            header = VNET.unpack_from(packet)
            length = len(packet) - VNET.size
            start = header[4]
            hdr_len = start + (8 if header[5] == 6 else 32)
            sender.send(VNET.pack(NEEDS_CSUM, header[1], hdr_len, *header[3:]) + packet[10:])
            frames: list[bytes] = []
            while sum(len(frame) - hdr_len for frame in frames) < length - hdr_len:
                async with asyncio.timeout(5):
                    frames.append(await loop.sock_recv(receiver, 70000))
            results.append((packet, frames))
    return results


def test_segments_are_those_of_the_kernel(namespace: Namespace) -> None:
    results = namespace.run(through_the_kernel)
    assert len(results) == 16 + 4
    for packet, frames in results:
        assert segment(packet) == frames
