"""Classic BPF programs for the capture and netlink sockets, assembled by hand. Pure.

A program is a list of instructions (code, jump if true, jump if false, operand). Blocks are put
together by nesting: ``_when(load, value, block)`` runs ``block`` when the loaded value matches,
and goes on behind it otherwise. So no jump is ever computed by hand, and none is longer than its
block (the limit is 255). A load beyond the end of a frame drops the frame.
``host.packet_socket.attach_filter`` attaches a program to a socket.
Reference: Linux Documentation/networking/filter.rst.
"""

import struct
import sys
from collections.abc import Collection
from typing import Final, TypeAlias

Instruction: TypeAlias = tuple[int, int, int, int]
Block: TypeAlias = list[Instruction]

_PACKET_OUTGOING: Final = 4
_AD_PKTTYPE: Final = 0xFFFFF000 + 4
"""SKF_AD_OFF + SKF_AD_PKTTYPE."""
_AD_RANDOM: Final = 0xFFFFF000 + 56

_LD_W: Final = 32
_LD_H: Final = 40
_LD_B: Final = 48
"""Load word, half word, byte at an absolute offset."""
_JEQ: Final = 21
_JGT: Final = 37
_JGE: Final = 53
_JSET: Final = 69
_RET: Final = 6
_TXA: Final = 135
_LDX_IMMEDIATE: Final = 1

_ACCEPT: Block = [(_RET, 0, 0, 2048)]
"""At most capture.SNAPLEN bytes."""
_ACCEPT_ALL: Block = [(_RET, 0, 0, 0xFFFFFFFF)]
_DROP: Block = [(_RET, 0, 0, 0)]

_KIND: Instruction = (_TXA, 0, 0, 0)

_ARP: Final = 2054
_IP4: Final = 2048
_IP6: Final = 34525
_VLAN: Final = 33024
_ICMP: Final = 1
_UDP: Final = 17
_ICMP6: Final = 58
_FRAGMENT: Final = 44
_HOP_BY_HOP: Final = 0


def _load(code: int, offset: int) -> Instruction:
    return (code, 0, 0, offset)


def _when(load: Instruction, value: int, block: Block) -> Block:
    return [load, (_JEQ, 0, len(block), value), *block]


def _from(source: bytes, block: Block) -> Block:
    """Run the block for frames from this MAC."""
    low, high = int.from_bytes(source[2:], "big"), int.from_bytes(source[:2], "big")
    return _when(_load(_LD_W, 8), low, _when(_load(_LD_H, 6), high, block))


def _nd_type(offset: int, verdict: Block) -> Block:
    """Run the block when the byte at ``offset`` is an ND message's type, 133 to 137."""
    size = len(verdict)
    return [_load(_LD_B, offset), (_JGE, 0, size + 1, 133), (_JGT, size, 0, 137), *verdict]


def _nd(ip: int, verdict: Block) -> Block:
    """Run the block for ND in the IPv6 packet at ``ip``, also behind one 8-byte header.

    That may be a fragment header: ``capture.parse`` refuses and counts it.
    """
    behind = _when(_load(_LD_B, ip + 40), _ICMP6, _nd_type(ip + 48, verdict))
    return [
        *_when(_load(_LD_B, ip + 6), _ICMP6, _nd_type(ip + 40, verdict)),
        *_when(_load(_LD_B, ip + 6), _FRAGMENT, behind),
        *_when(_load(_LD_B, ip + 6), _HOP_BY_HOP, behind),
    ]


def _neighbours(verdict: Block) -> Block:
    """Run the block for ARP and ND, untagged or with one tag in the frame."""
    at14 = [
        *_when(_load(_LD_H, 12), _ARP, verdict),
        *_when(_load(_LD_H, 12), _IP6, _nd(14, verdict)),
    ]
    at18 = [
        *_when(_load(_LD_H, 16), _ARP, verdict),
        *_when(_load(_LD_H, 16), _IP6, _nd(18, verdict)),
    ]
    return [*at14, *_when(_load(_LD_H, 12), _VLAN, at18)]


_OUTGOING_ONLY: Block = [
    _load(_LD_W, _AD_PKTTYPE),
    (_JEQ, len(_DROP), 0, _PACKET_OUTGOING),
    *_DROP,
]


def _echo_request(ip: int, verdict: Block) -> Block:
    """Run the block for an unfragmented ICMP echo request in the IPv4 packet at ``ip``."""
    size = len(verdict)
    whole = [_load(_LD_H, ip + 6), (_JSET, size, 0, 0x3FFF), *verdict]
    request = _when(_load(_LD_B, ip + 9), _ICMP, _when(_load(_LD_B, ip + 20), 8, whole))
    return _when(_load(_LD_B, ip), 0x45, request)


def _echo_requests(verdict: Block) -> Block:
    """The same wherever an IPv4 packet may be."""
    at18 = _when(_load(_LD_H, 16), _IP4, _echo_request(18, verdict))
    return [
        *_when(_load(_LD_H, 12), _IP4, _echo_request(14, verdict)),
        *_when(_load(_LD_H, 12), _VLAN, at18),
    ]


def _lease_request(ip: int, verdict: Block) -> Block:
    """Run the block for an unfragmented datagram to a DHCP server in the IPv4 packet at ``ip``."""
    to_server = _when(_load(_LD_H, ip + 22), 67, verdict)
    whole = [_load(_LD_H, ip + 6), (_JSET, len(to_server), 0, 0x3FFF), *to_server]
    return _when(_load(_LD_B, ip), 0x45, _when(_load(_LD_B, ip + 9), _UDP, whole))


def _lease_requests(verdict: Block) -> Block:
    """The same for broadcasts, wherever an IPv4 packet may be."""
    at18 = _when(_load(_LD_H, 16), _IP4, _lease_request(18, verdict))
    found = [
        *_when(_load(_LD_H, 12), _IP4, _lease_request(14, verdict)),
        *_when(_load(_LD_H, 12), _VLAN, at18),
    ]
    return _when(_load(_LD_W, 0), 0xFFFFFFFF, found)


def resolution(
    loud: Collection[bytes],
    regulars: Collection[bytes] | None = None,
    gateways: Collection[bytes] = (),
) -> bytes:
    """ARP, ND and what is broadcast to DHCP servers, untagged or with one tag in the frame, and
    echo requests from ``gateways``.

    Of ``loud`` MACs one frame of 64; with ``regulars``, one of 64 of everybody but these.
    """
    sample = [_load(_LD_W, _AD_RANDOM), (_JSET, 0, len(_DROP), 63), *_DROP]
    hush = [step for source in loud for step in _from(source, [*sample, *_ACCEPT])]
    favour = [step for source in regulars or () for step in _from(source, _ACCEPT)]
    return _assemble(
        [
            *_OUTGOING_ONLY,
            # X tells what it is: a verdict of a few hundred steps is too long to be jumped over.
            (_LDX_IMMEDIATE, 0, 0, 0),
            *_echo_requests([(_LDX_IMMEDIATE, 0, 0, 2)]),
            *_lease_requests([(_LDX_IMMEDIATE, 0, 0, 1)]),
            *_neighbours([(_LDX_IMMEDIATE, 0, 0, 1)]),
            *_when(_KIND, 0, _DROP),
            *_when(_KIND, 2, [*(s for g in gateways for s in _from(g, _ACCEPT)), *_DROP]),
            *hush,
            *(favour + sample if regulars is not None else []),
            *_ACCEPT,
        ]
    )


def frames_from(sources: Collection[bytes]) -> bytes:
    """Unicast frames from one of the MACs, except what ``resolution`` accepts."""
    unicast_only: Block = [_load(_LD_B, 0), (_JSET, 0, len(_DROP), 1), *_DROP]
    chosen = [step for source in sources for step in _from(source, _ACCEPT)]
    others = [*_neighbours(_DROP), *_echo_requests(_DROP)]
    return _assemble([*_OUTGOING_ONLY, *unicast_only, *others, *chosen, *_DROP])


def frames_to(destination: bytes) -> bytes:
    """Frames to one MAC."""
    low, high = int.from_bytes(destination[2:], "big"), int.from_bytes(destination[:2], "big")
    matching = _when(_load(_LD_W, 2), low, _when(_load(_LD_H, 0), high, _ACCEPT))
    return _assemble([*_OUTGOING_ONLY, *matching, *_DROP])


def deleted_bridge_entries_only() -> bytes:
    """For a netlink socket: of all neighbour messages only RTM_DELNEIGH about a bridge entry.

    A bridge that learns a storm of addresses says so with a message each.
    """
    new, deleted = _native(28), _native(29)
    about_bridge = [*_when(_load(_LD_B, 16), 7, _ACCEPT_ALL), *_DROP]  # ndm_family, AF_BRIDGE
    return _assemble(
        [
            *_when(_load(_LD_H, 4), new, _DROP),
            *_when(_load(_LD_H, 4), deleted, about_bridge),
            *_ACCEPT_ALL,
        ]
    )


def _native(value: int) -> int:
    """What a load, which is big-endian, makes of a half word in this machine's order."""
    return int.from_bytes(value.to_bytes(2, sys.byteorder), "big")


def _assemble(program: Block) -> bytes:
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
