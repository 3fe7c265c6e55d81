"""STUN and TURN framing: telling it from ours, and the one query that needs no ICE (pure).

STUN message (RFC 8489 section 5), all big-endian:

    type u16 | length u16, of what follows the header | cookie u32 | transaction id 12 bytes
    then attributes: type u16 | length u16 | value, padded to a multiple of 4

ChannelData (RFC 8656 section 12.4): channel u16 | length u16 | datagram, unpadded over UDP.

The first byte tells them apart: STUN 0-3 (the first 1024 message types; all that ICE and TURN
use), ChannelData 64-79, ours 128 and above.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tincan.device.udp import Address, Buffer

COOKIE = 0x2112A442
COOKIE_BYTES = COOKIE.to_bytes(4, "big")
HEADER = struct.Struct(">HHI12s")
ATTRIBUTE = struct.Struct(">HH")
CHANNEL = struct.Struct(">HH")
FIRST_CHANNEL, LAST_CHANNEL = 0x4000, 0x4FFF
FIRST_OF_OURS = 0x80  # first byte of our own datagrams, and above

BINDING_REQUEST = 0x0001
BINDING_SUCCESS = 0x0101
XOR_MAPPED_ADDRESS = 0x0020
IPV4, IPV6 = 1, 2

# Attributes whose value has one length only. A parser that trusts the others' lengths (aioice's
# raises struct.error on a PRIORITY of no bytes) never sees a message that breaks this table.
FIXED_LENGTHS = {
    0x0003: 4,  # CHANGE-REQUEST
    0x000C: 4,  # CHANNEL-NUMBER
    0x000D: 4,  # LIFETIME
    0x0019: 4,  # REQUESTED-TRANSPORT
    0x0024: 4,  # PRIORITY
    0x0025: 0,  # USE-CANDIDATE
    0x0008: 20,  # MESSAGE-INTEGRITY
    0x8028: 4,  # FINGERPRINT
    0x8029: 8,  # ICE-CONTROLLED
    0x802A: 8,  # ICE-CONTROLLING
}


def is_stun(datagram: Buffer) -> bool:
    """Whether ``datagram`` is one well-formed STUN message and nothing else."""
    size = len(datagram)
    if size < HEADER.size or datagram[0] > 3 or datagram[4:8] != COOKIE_BYTES:
        return False
    if size % 4 or size - HEADER.size != int.from_bytes(datagram[2:4], "big"):
        return False
    at = HEADER.size
    while at < size:
        kind, length = ATTRIBUTE.unpack_from(datagram, at)
        if FIXED_LENGTHS.get(kind, length) != length:
            return False
        at += ATTRIBUTE.size + length + -length % 4
    return at == size


def is_channel_data(datagram: Buffer) -> bool:
    """Whether the first byte is that of a TURN channel."""
    return len(datagram) >= CHANNEL.size and FIRST_CHANNEL >> 8 <= datagram[0] <= LAST_CHANNEL >> 8


def channel_data(channel: int, datagram: Buffer) -> bytes:
    """Return ``datagram`` as the ChannelData that a TURN server passes on to the channel's peer."""
    return CHANNEL.pack(channel, len(datagram)) + datagram


def framed_size(stream: Buffer, at: int) -> int:
    """Return the size of the message at ``at`` in a TCP stream; 0 while its header is incomplete.

    Over a stream ChannelData is padded to a multiple of 4 (RFC 8656 section 12.5).
    """
    if len(stream) - at < CHANNEL.size:
        return 0
    first: int
    length: int
    first, length = CHANNEL.unpack_from(stream, at)
    header = CHANNEL.size if FIRST_CHANNEL <= first <= LAST_CHANNEL else HEADER.size
    return header + length + -length % 4


def binding_request(transaction: bytes) -> bytes:
    """Return the query "which address do you see me at"; ``transaction`` is 12 random bytes."""
    return HEADER.pack(BINDING_REQUEST, 0, COOKIE, transaction)


def transaction_of(message: Buffer) -> bytes:
    """Return the 12 bytes that tie a response to its request."""
    return bytes(message[8 : HEADER.size])


def mapped_address(message: Buffer) -> Address | None:
    """Return the address that a binding response says its query came from.

    ``message`` passed is_stun. None if it is no success response, or names no usable address.
    """
    if int.from_bytes(message[:2], "big") != BINDING_SUCCESS:
        return None
    at = HEADER.size
    while at < len(message):
        kind, length = ATTRIBUTE.unpack_from(message, at)
        value = bytes(message[at + ATTRIBUTE.size : at + ATTRIBUTE.size + length])
        if kind == XOR_MAPPED_ADDRESS:
            return _unmask(value, bytes(message[4 : HEADER.size]))
        at += ATTRIBUTE.size + length + -length % 4
    return None


def _unmask(value: bytes, mask: bytes) -> Address | None:
    # RFC 8489 section 14.2: reserved u8, family u8, port ^ cookie's upper half, address ^ mask.
    if len(value) < 4:
        return None
    port = int.from_bytes(value[2:4], "big") ^ COOKIE >> 16
    packed = bytes(a ^ b for a, b in zip(value[4:], mask, strict=False))
    if value[1] == IPV4 and len(value) == 8:
        return str(IPv4Address(packed)), port
    if value[1] == IPV6 and len(value) == 20:
        return str(IPv6Address(packed)), port
    return None
