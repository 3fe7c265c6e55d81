"""What crosses between two tincans: datagrams, records, items.

A *datagram* starts with 16 bytes, big-endian::

     0      1       2       3         4               8                         16
    +------+-------+-------+---------+---------------+-------------------------+--------
    | type | index | count | version |  receiver     |        counter          | body
    +------+-------+-------+---------+---------------+-------------------------+--------

    type      >= 0x80, so that STUN (0..3) and TURN ChannelData (64..79) stay apart (RFC 7983)
    index     this fragment of the record, from 0;  count: fragments in all, 1..255
              index = count: the record's parity
    receiver  the receiver's own index for the session (survives a change of address)
    counter   of the record, never repeated under one key; also the AEAD nonce

A *record* is one AEAD ciphertext, tag last, cut over the bodies of ``count`` datagrams, all of
the same size but the last. Associated data: the header with index 0.

Where datagrams are lost, a *parity* may follow a record whose bodies all have one size: their sum
modulo 2, which stands in for any one of them. It needs no tag: what is made of it has one.

The plaintext of a record is a run of *items*, each behind one big-endian word::

    kind (4 bits) | hops (4 bits) | length (24 bits)

A FRAME item is a virtio_net_hdr (10 bytes) and the Ethernet frame as the TAP gave it.
"""

import struct
from enum import IntEnum, IntFlag
from typing import Final

VERSION: Final = 1
RECORD: Final = 0x80
HANDSHAKE_INIT: Final = 0x81
HANDSHAKE_RESPONSE: Final = 0x82

HEADER = struct.Struct(">BBBBIQ")
HEADER_SIZE: Final = HEADER.size
TAG_SIZE: Final = 16
CHANNEL = struct.Struct(">HH")
"""TURN ChannelData before a datagram: channel, length (RFC 8656 section 12.4)."""
CHANNEL_SIZE: Final = CHANNEL.size
MAX_FRAGMENTS: Final = 255

ITEM = struct.Struct(">I")
ITEM_SIZE: Final = ITEM.size
LENGTH_MASK: Final = 0xFFFFFF

VNET_SIZE: Final = 10
"""Bytes of a struct virtio_net_hdr without num_buffers (device.vnet)."""
MAX_FRAME: Final = VNET_SIZE + 18 + 65535
"""Bytes that one read of the TAP can return: virtio header, Ethernet and a VLAN tag, IP."""
RECORD_FULL: Final = 192 << 10
"""Bytes of a record that is sent without asking the TAP for more: three super-frames.

They fit 255 datagrams of the least size.
"""
RECORD_FULL_IN_QUEUE: Final = 48 << 10
"""The same while a queue stands before the device.

What waits behind a record, a ping or another flow, waits for all of it.
"""
MAX_PLAIN: Final = RECORD_FULL + ITEM_SIZE + MAX_FRAME
MAX_RECORD: Final = MAX_PLAIN + TAG_SIZE

ZERO_NONCE: Final = bytes(4)
"""The first bytes of a nonce; the other 8 are the counter, as it stands in the header."""


class Item(IntEnum):
    """Kinds of items in a record. The payloads are those of link.items."""

    PADDING = 0  # the rest of the record means nothing
    FRAME = 1
    PROBE = 2  # payload comes back as PROBE_REPLY by the way it came
    PROBE_REPLY = 3
    ICC = 4  # a u16 channel, then a controller's message
    MTU_PROBE = 5  # u16 size of the IP packet that carries it
    MTU_REPLY = 6  # u16 size that arrived
    CLOSE = 7  # the sender leaves: do not wait for silence
    LOSS = 8  # what of the receiver's records did not come (link.loss)


class Flags(IntFlag):
    """What the sender of a PROBE or PROBE_REPLY says of itself."""

    ATTENDED = 1  # a controller is attached
    BLOCKED = 2  # its TAP is blocked


ECHO = struct.Struct(">IBI")
"""PROBE and PROBE_REPLY: number, Flags, the sender's smoothed round trip in us.

The round trip is 0 while there is none; the side that does not probe measures nothing.
"""
SIZE = struct.Struct(">H")
"""Payload of MTU_PROBE and MTU_REPLY, and the channel of ICC."""

FRAME_WORD: Final = Item.FRAME << 28


def item(kind: Item, payload: bytes) -> bytes:
    """Return ``payload`` as one item."""
    return ITEM.pack(kind << 28 | len(payload)) + payload
