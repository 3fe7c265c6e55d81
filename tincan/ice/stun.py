"""STUN messages and TURN's ChannelData: formats, and telling them from ours. Pure.

STUN message (RFC 8489 section 5), all big-endian::

    type u16 | length u16, of what follows the header | cookie u32 | transaction id 12 bytes
    then attributes: type u16 | length u16 | value, padded to a multiple of 4

ChannelData (RFC 8656 section 12.4): channel u16 | length u16 | datagram, unpadded over UDP.

The first byte tells them apart: STUN 0-3 (the first 1024 message types; all that ICE and TURN
use), ChannelData 64-79, ours 128 and above (RFC 7983).

ICE's agent asks, the rendezvous answers: both use this codec. The library (ice.library) has
another one, which sees a message only after ``is_stun`` has passed it.
"""

import ipaddress
import struct
import zlib
from typing import Final, TypeAlias

Address: TypeAlias = tuple[str, int]
"""An IP address as text, and a port."""
Buffer: TypeAlias = bytes | bytearray | memoryview

COOKIE: Final = 0x2112A442
COOKIE_BYTES: Final = COOKIE.to_bytes(4, "big")
HEADER: Final = struct.Struct(">HHI12s")
"""Type, length, cookie, transaction id."""
ATTRIBUTE: Final = struct.Struct(">HH")
"""Type, length."""
CHANNEL: Final = struct.Struct(">HH")
"""Channel, length."""
FIRST_CHANNEL: Final = 0x4000
LAST_CHANNEL: Final = 0x4FFF
FIRST_OF_OURS: Final = 0x80
"""First byte of our own datagrams, and above."""

BINDING_REQUEST: Final = 0x0001
BINDING_SUCCESS: Final = 0x0101
BINDING_ERROR: Final = 0x0111
ERROR_CODE: Final = 0x0009
UNKNOWN_ATTRIBUTES: Final = 0x000A
XOR_MAPPED_ADDRESS: Final = 0x0020
FINGERPRINT: Final = 0x8028
COMPREHENSION_OPTIONAL: Final = 0x8000
"""Attribute types from here on may be ignored (RFC 8489 section 14)."""
FINGERPRINT_XOR: Final = 0x5354554E
IPV4: Final = 1
IPV6: Final = 2

FIXED_LENGTHS: Final = {
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
"""Attributes whose value has one length only.

A parser that trusts the others' lengths (aioice's raises struct.error on a PRIORITY of no bytes)
never sees a message that breaks this table.
"""


# --- whose datagram it is


def is_stun(datagram: Buffer) -> bool:
    """Return whether ``datagram`` is one well-formed STUN message and nothing else."""
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
    """Return whether the first byte is that of a TURN channel."""
    return len(datagram) >= CHANNEL.size and FIRST_CHANNEL >> 8 <= datagram[0] <= LAST_CHANNEL >> 8


# --- ChannelData


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


# --- messages


def message(
    kind: int, transaction: bytes, body: bytes = b"", *, fingerprint: bool = False
) -> bytes:
    """Return a message with the attributes in ``body``, and with a FINGERPRINT if wanted."""
    length = len(body) + (8 if fingerprint else 0)
    whole = HEADER.pack(kind, length, COOKIE, transaction) + body
    if fingerprint:
        check = zlib.crc32(whole) ^ FINGERPRINT_XOR
        whole += attribute(FINGERPRINT, struct.pack(">I", check))
    return whole


def attribute(kind: int, value: bytes) -> bytes:
    """Return one attribute, padded to a multiple of 4 bytes."""
    return ATTRIBUTE.pack(kind, len(value)) + value + bytes(-len(value) % 4)


def attributes(message: Buffer) -> list[tuple[int, int]] | None:
    """Return type and offset of each attribute; None unless they fill ``message`` exactly."""
    found: list[tuple[int, int]] = []
    at = HEADER.size
    while at < len(message):
        if at + ATTRIBUTE.size > len(message):
            return None
        kind, length = ATTRIBUTE.unpack_from(message, at)
        found.append((kind, at))
        at += ATTRIBUTE.size + length + -length % 4
    return found if at == len(message) else None


def value_at(message: Buffer, at: int) -> bytes:
    """Return the value of the attribute at offset ``at``."""
    _, length = ATTRIBUTE.unpack_from(message, at)
    return bytes(message[at + ATTRIBUTE.size : at + ATTRIBUTE.size + length])


def fingerprint_holds(message: Buffer, found: list[tuple[int, int]]) -> bool:
    """Return whether FINGERPRINT is last of ``found`` and right (RFC 8489 section 14.7).

    ``found``: at least one attribute, as ``attributes`` returns them.
    """
    kind, at = found[-1]
    if kind != FINGERPRINT or len(message) - at != 8:
        return False
    (given,) = struct.unpack_from(">I", message, at + ATTRIBUTE.size)
    return bool(given == zlib.crc32(message[:at]) ^ FINGERPRINT_XOR)


def transaction_of(message: Buffer) -> bytes:
    """Return the 12 bytes that tie a response to its request."""
    return bytes(message[8 : HEADER.size])


# --- the one question that needs no ICE


def binding_request(transaction: bytes) -> bytes:
    """Return the query "which address do you see me at"; ``transaction`` is 12 random bytes."""
    return message(BINDING_REQUEST, transaction)


def mapped_address(message: Buffer) -> Address | None:
    """Return the address that a binding response says its query came from.

    ``message`` passed is_stun. None if it is no success response, or names no usable address.
    """
    if int.from_bytes(message[:2], "big") != BINDING_SUCCESS:
        return None
    for kind, at in attributes(message) or ():
        if kind == XOR_MAPPED_ADDRESS:
            return _unmask(value_at(message, at), bytes(message[4 : HEADER.size]))
    return None


def xor_mapped(transaction: bytes, source: Address) -> bytes | None:
    """Return the XOR-MAPPED-ADDRESS that tells ``source``; None if that is no IP address.

    An IPv4-mapped address is told as IPv4; a scope is left out.
    """
    try:
        address = ipaddress.ip_address(source[0].partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    family = IPV4 if address.version == 4 else IPV6
    port = source[1] ^ COOKIE >> 16
    masked = _xor(address.packed, COOKIE_BYTES + transaction)
    return attribute(XOR_MAPPED_ADDRESS, struct.pack(">BBH", 0, family, port) + masked)


def _unmask(value: bytes, mask: bytes) -> Address | None:
    # RFC 8489 section 14.2: reserved u8, family u8, port ^ cookie's upper half, address ^ mask.
    if len(value) < 4:
        return None
    port = int.from_bytes(value[2:4], "big") ^ COOKIE >> 16
    packed = _xor(value[4:], mask)
    if value[1] == IPV4 and len(value) == 8:
        return str(ipaddress.IPv4Address(packed)), port
    if value[1] == IPV6 and len(value) == 20:
        return str(ipaddress.IPv6Address(packed)), port
    return None


def _xor(data: bytes, mask: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(data, mask, strict=False))
