"""What a device does for offloaded frames, in software: for a TAP that takes no virtio header.

The virtio header (device.vnet) says that a frame is to become several. The frame's own headers are
parsed anew, and what does not parse is refused.

Segments are those of the kernel: tcp_gso_segment, __udp_gso_segment, inet_gso_segment.
"""

import struct
from collections.abc import Iterator
from typing import Final

from tincan.device.device import Buffer
from tincan.device.vnet import GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, VNET
from tincan.errors import MalformedDatagram
from tincan.switching.frame import ETHERNET_SIZE, IPV4, IPV6, TYPES, UDP

MAX_SEGMENTS: Final = 1024
"""Frames that one frame may become: a peer must not make 65,000 of it. The least MSS is 64."""

_TCP: Final = 6
_LAST_ONLY: Final = 0x09
"""FIN and PSH: flags of the last segment alone."""
_FIRST_ONLY: Final = 0x80
"""CWR, of the first alone (RFC 3168 section 6.1.2)."""

_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")


def segment(packet: Buffer) -> list[bytes]:
    """Return the Ethernet frames that ``packet``, a virtio header and a frame, stands for.

    TCP over IPv4 and IPv6 without extension headers, UDP (UDP_L4), at most one VLAN tag, frames
    of up to 64 KiB. All checksums that the sender left open are filled in. Raise
    MalformedDatagram.
    """
    if len(packet) < VNET.size + ETHERNET_SIZE:
        raise MalformedDatagram("segment_truncated")
    flags, gso_type, _, gso_size, csum_start, csum_offset = VNET.unpack_from(packet)
    frame = memoryview(packet)[VNET.size :]
    if gso_type == GSO_NONE:
        if flags & NEEDS_CSUM:
            return [complete_checksum(frame, csum_start, csum_offset)]
        return [bytes(frame)]
    return _Super(frame, gso_type & ~GSO_ECN, gso_size).split()


def split(packet: Buffer, limit: int) -> list[bytes]:
    """Return ``packet``, a virtio header and a frame, as several of ``limit`` bytes, the last less.

    Each is a shorter TCP super-frame, as the kernel would have handed it over; where it ends is of
    no importance to TCP. Anything else is returned as it is. Raise MalformedDatagram.
    """
    flags, gso_type, hdr_len, gso_size, csum_start, csum_offset = VNET.unpack_from(packet)
    kind = gso_type & ~GSO_ECN
    if kind not in (GSO_TCPV4, GSO_TCPV6) or not flags & NEEDS_CSUM:
        return [bytes(packet)]
    whole = _Super(memoryview(packet)[VNET.size :], kind, gso_size)
    parts = []
    for header, payload in whole.parts(max(gso_size, limit - VNET.size - whole.payload)):
        one = len(payload) <= gso_size
        kind, size = (GSO_NONE, 0) if one else (gso_type, gso_size)
        vnet = VNET.pack(flags, kind, hdr_len, size, csum_start, csum_offset)
        parts.append(b"".join((vnet, header, payload)))
    return parts


def complete_checksum(frame: Buffer, start: int, offset: int) -> bytes:
    """Return ``frame`` with the checksum at ``start + offset`` completed (skb_checksum_help).

    The field holds the sum of the pseudo-header already. Raise MalformedDatagram.
    """
    if start < ETHERNET_SIZE or start + offset + 2 > len(frame):
        raise MalformedDatagram("segment_checksum_outside")
    completed = bytearray(frame)
    checksum = _invert(_sum(memoryview(completed)[start:])) or 0xFFFF
    _U16.pack_into(completed, start + offset, checksum)
    return bytes(completed)


class _Super:
    """A frame that is to become several: where its headers are, and what they say."""

    __slots__ = ("end", "frame", "ipv6", "l3", "l4", "payload", "size", "tcp")

    def __init__(self, frame: memoryview, gso_type: int, size: int) -> None:
        if gso_type not in (GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4):
            raise MalformedDatagram("segment_unsupported")
        self.frame = frame
        self.size = size
        self.tcp = gso_type != GSO_UDP_L4
        try:
            self._parse(gso_type)
        except struct.error:
            raise MalformedDatagram("segment_truncated") from None
        length = self.end - self.payload
        if length > size * MAX_SEGMENTS or not size:
            raise MalformedDatagram("segment_count")
        if self.payload - self.l3 + min(size, length) > 0xFFFF:
            raise MalformedDatagram("segment_too_long")

    def _parse(self, gso_type: int) -> None:
        frame = self.frame
        self.l3 = ETHERNET_SIZE
        (kind,) = _U16.unpack_from(frame, 12)
        if kind in TYPES:
            self.l3 += 4
            (kind,) = _U16.unpack_from(frame, 16)
        self.ipv6 = kind == IPV6
        if kind not in (IPV4, IPV6) or (self.tcp and self.ipv6 != (gso_type == GSO_TCPV6)):
            raise MalformedDatagram("segment_header")
        protocol = self._parse_ipv6() if self.ipv6 else self._parse_ipv4()
        self.payload = self.l4 + 8
        if self.tcp:
            self.payload = self.l4 + (_U16.unpack_from(frame, self.l4 + 12)[0] >> 12) * 4
            if self.payload < self.l4 + 20:
                raise MalformedDatagram("segment_header")
        if protocol != (_TCP if self.tcp else UDP):
            raise MalformedDatagram("segment_header")
        if not self.payload <= self.end <= len(frame):
            raise MalformedDatagram("segment_truncated")

    def _parse_ipv4(self) -> int:
        first, _, length, _, fragment, _, protocol = struct.unpack_from(
            ">BBHHHBB", self.frame, self.l3
        )
        self.l4 = self.l3 + (first & 15) * 4
        # A length of 0 is that of a frame too long for the field ("BIG TCP").
        self.end = self.l3 + length if length else len(self.frame)
        if first >> 4 != 4 or self.l4 < self.l3 + 20 or fragment & 0x3FFF:
            raise MalformedDatagram("segment_header")
        return int(protocol)

    def _parse_ipv6(self) -> int:
        first, length, protocol = struct.unpack_from(">IHB", self.frame, self.l3)
        self.l4 = self.l3 + 40
        self.end = self.l4 + length if length else len(self.frame)
        if first >> 28 != 6:
            raise MalformedDatagram("segment_header")
        return int(protocol)

    def split(self) -> list[bytes]:
        """Return the segments, whole frames with checksums."""
        return [self._with_checksum(header, data) for header, data in self._pieces(self.size)]

    def parts(self, size: int) -> Iterator[tuple[bytes, memoryview]]:
        """Yield (headers, payload) for pieces of ``size`` bytes of TCP, checksums left open.

        The checksum field holds the sum of the pseudo-header, in which only the length changes.
        """
        (pseudo,) = _U16.unpack_from(self.frame, self.l4 + 16)
        for header, data in self._pieces(size):
            shorter = (self.end - self.payload) - len(data)
            _U16.pack_into(header, self.l4 + 16, (pseudo + 0xFFFF - shorter) % 0xFFFF)
            yield bytes(header), data

    def _pieces(self, size: int) -> Iterator[tuple[bytearray, memoryview]]:
        """Yield (headers, payload) for pieces of ``size`` bytes: one buffer of headers, right but
        for the checksum of TCP or UDP."""
        header = bytearray(self.frame[: self.payload])
        (identification,) = _U16.unpack_from(header, self.l3 + 4)
        (sequence,) = _U32.unpack_from(header, self.l4 + 4)
        tcp_flags = header[self.l4 + 13] if self.tcp else 0
        for start in range(self.payload, self.end, size) or [self.end]:
            end = min(start + size, self.end)
            if self.ipv6:
                _U16.pack_into(header, self.l3 + 4, end - start + self.payload - self.l4)
            else:
                self._ipv4(header, identification, end - start)
                identification += -(-(end - start) // self.size)
            if self.tcp:
                flags = tcp_flags
                if start > self.payload:
                    flags &= ~_FIRST_ONLY
                if end < self.end:
                    flags &= ~_LAST_ONLY
                header[self.l4 + 13] = flags
                offset = start - self.payload
                _U32.pack_into(header, self.l4 + 4, (sequence + offset) & 0xFFFFFFFF)
            else:
                _U16.pack_into(header, self.l4 + 4, end - start + 8)
            yield header, self.frame[start:end]

    def _ipv4(self, header: bytearray, identification: int, size: int) -> None:
        l3 = self.l3
        _U16.pack_into(header, l3 + 2, size + self.payload - l3)
        _U16.pack_into(header, l3 + 4, identification & 0xFFFF)
        _U16.pack_into(header, l3 + 10, 0)
        _U16.pack_into(header, l3 + 10, _invert(_sum(header[l3 : self.l4])))

    def _with_checksum(self, header: bytearray, payload: memoryview) -> bytes:
        at = self.l4 + (16 if self.tcp else 6)
        _U16.pack_into(header, at, 0)
        addresses = (
            header[self.l3 + 8 : self.l4] if self.ipv6 else header[self.l3 + 12 : self.l3 + 20]
        )
        pseudo = len(header) - self.l4 + len(payload) + (_TCP if self.tcp else UDP)
        total = pseudo + _sum(addresses) + _sum(header[self.l4 :]) + _sum(payload)
        checksum = _invert(total)
        _U16.pack_into(header, at, checksum if self.tcp else checksum or 0xFFFF)
        return b"".join((header, payload))


def _sum(data: Buffer) -> int:
    """Return the ones' complement sum (RFC 1071) of 16-bit words, modulo 65535, odd length padded.

    2**16 is 1 modulo 65535, so the sum of the words is the remainder of the whole as one number:
    4 us for 1448 bytes (CPython 3.11); sums over struct or array items take twice that and more.
    """
    value = int.from_bytes(data, "big")
    return (value << 8 if len(data) & 1 else value) % 0xFFFF


def _invert(total: int) -> int:
    """Return the checksum for a sum that is not made of zeros only."""
    return 0xFFFF - (total % 0xFFFF or 0xFFFF)
