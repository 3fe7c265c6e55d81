"""The loop beacon: a frame on our own bridge that no overlay carries. Who hears another node's
shares a segment with it outside the overlay. Pure.

     0  destination   03:73:6d:00:00:01, a group that is nobody's; bridges pass it on
     6  source        the probe MAC of the sending node
    12  EtherType     0x88B5, IEEE 802 local experimental
    14  magic         "smlb", then version (1) and the number of echoes
    20  node          32 bytes
    52  number        u64, greater with each beacon of the node, also after a restart
    60  echoes        each: 8 bytes of a node's id, and the last number heard from it
        MAC           16 bytes of HMAC-SHA256 over all from 14 on, keyed by the network's secret

An echo proves that its sender heard that very beacon: the idea is UDLD's (RFC 5171 section 2).
"""

import struct
from dataclasses import dataclass
from typing import Final

from controller.errors import MalformedFrame
from controller.packets.addresses import Mac, NodeId
from tincan.crypto.primitives import hmac_sha256, same

DESTINATION: Final = bytes.fromhex("03736d000001")
"""Switching.frame.BEACON: never forwarded."""
ETHERTYPE: Final = 0x88B5
MAX_ECHOES: Final = 64
"""1,100 bytes in all: it passes wherever a container's frame does."""

_ETHERNET: Final = struct.Struct(">6s6sH")
_HEAD: Final = struct.Struct(">4sBB32sQ")
_ECHO: Final = struct.Struct(">8sQ")
_MAGIC: Final = b"smlb"
_VERSION: Final = 1
_MAC_SIZE: Final = 16


@dataclass(frozen=True, slots=True)
class Beacon:
    """``echoes``: what the sender heard of late, as (first 16 digits of a node's id, number)."""

    node: NodeId
    number: int
    echoes: tuple[tuple[str, int], ...] = ()


def build(beacon: Beacon, source: Mac, key: bytes) -> bytes:
    """Return the Ethernet frame of ``beacon``; at most MAX_ECHOES echoes are taken along."""
    echoes = beacon.echoes[:MAX_ECHOES]
    body = _HEAD.pack(_MAGIC, _VERSION, len(echoes), bytes.fromhex(beacon.node), beacon.number)
    body += b"".join(_ECHO.pack(bytes.fromhex(node), number) for node, number in echoes)
    header = _ETHERNET.pack(DESTINATION, bytes.fromhex(source.replace(":", "")), ETHERTYPE)
    return header + body + hmac_sha256(key, body)[:_MAC_SIZE]


def parse(frame: bytes, key: bytes) -> Beacon:
    """Return the beacon in ``frame``, which may be padded; raise MalformedFrame."""
    start = _ETHERNET.size
    if len(frame) < start + _HEAD.size:
        raise MalformedFrame("malformed")
    magic, version, count, node, number = _HEAD.unpack_from(frame, start)
    end = start + _HEAD.size + count * _ECHO.size
    if (magic, version) != (_MAGIC, _VERSION) or count > MAX_ECHOES:
        raise MalformedFrame("malformed")
    if len(frame) < end + _MAC_SIZE:
        raise MalformedFrame("malformed")
    if not same(hmac_sha256(key, frame[start:end])[:_MAC_SIZE], frame[end : end + _MAC_SIZE]):
        raise MalformedFrame("forged")  # or of another network on the same wire
    echoes = _ECHO.iter_unpack(frame[start + _HEAD.size : end])
    return Beacon(node.hex(), number, tuple((echo.hex(), heard) for echo, heard in echoes))
