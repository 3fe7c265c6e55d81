"""A STUN server for the one question that ICE asks: "from which address do you see me?"

``answer`` is pure and follows RFC 8489: binding requests with the magic cookie and correct
lengths get a success response with XOR-MAPPED-ADDRESS (section 14.2); ones with an attribute
that must be understood and is not get error 420 (section 6.3.1); all else gets silence.
Answers are 32 bytes for IPv4 and 44 for IPv6 on requests of at least 20: with their headers at
most 1.5 times what was asked, so forged sources gain nothing.
"""

import asyncio
import ipaddress
import socket
import struct
import zlib
from collections import Counter
from typing import Final, TypeAlias

from controller.node.rates import Buckets
from controller.signal.rendezvous.quota import MAX_SOURCES, source_of

Address: TypeAlias = tuple[str, int]

# header: type 2, length 2, cookie 4, transaction id 12; attribute: type 2, length 2, value
HEADER: Final = struct.Struct(">HHI12s")
ATTRIBUTE: Final = struct.Struct(">HH")
COOKIE: Final = 0x2112A442
BINDING_REQUEST: Final = 0x0001
BINDING_SUCCESS: Final = 0x0101
BINDING_ERROR: Final = 0x0111
ERROR_CODE: Final = 0x0009
UNKNOWN_ATTRIBUTES: Final = 0x000A
XOR_MAPPED_ADDRESS: Final = 0x0020
FINGERPRINT: Final = 0x8028
COMPREHENSION_OPTIONAL: Final = 0x8000
FINGERPRINT_XOR: Final = 0x5354554E
MAX_REQUEST: Final = 548
"""Bytes; what every IPv4 host must take (RFC 8489 section 6.1)."""
MAX_UNKNOWN: Final = 4
"""Attribute types named in an error: it must not outgrow its request."""

REQUESTS_PER_SECOND: Final = 20.0
"""Per address."""
REQUESTS_BURST: Final = 100.0
"""Per address: several nodes behind one NAT gathering at once."""
BATCH: Final = 64
"""Datagrams in one wake-up; the websockets want the loop too."""
IP_PKTINFO: Final = 8
"""Linux/in.h; the socket module has it from Python 3.14 on only."""


def answer(datagram: bytes, source: Address) -> bytes | None:
    """Return the response to ``datagram`` from ``source`` (address text, port), or None."""
    if not HEADER.size <= len(datagram) <= MAX_REQUEST:
        return None
    kind, length, cookie, transaction = HEADER.unpack_from(datagram)
    if kind != BINDING_REQUEST or cookie != COOKIE or length != len(datagram) - HEADER.size:
        return None
    attributes = _attributes(datagram)
    if attributes is None:
        return None
    kinds = [kind for kind, _ in attributes]
    if FINGERPRINT in kinds and not _fingerprint_holds(datagram, attributes):
        return None
    unknown = [kind for kind in kinds if kind < COMPREHENSION_OPTIONAL][:MAX_UNKNOWN]
    if unknown:
        # Error 420: class 4, number 20, no phrase. Types are padded to 4 bytes.
        code = ATTRIBUTE.pack(ERROR_CODE, 4) + bytes((0, 0, 4, 20))
        types = struct.pack(f">{len(unknown)}H", *unknown)
        body = (
            code + ATTRIBUTE.pack(UNKNOWN_ATTRIBUTES, len(types)) + types + bytes(-len(types) % 4)
        )
        return _message(BINDING_ERROR, transaction, body, FINGERPRINT in kinds)
    mapped = _xor_mapped(transaction, source)
    if mapped is None:
        return None
    return _message(BINDING_SUCCESS, transaction, mapped, FINGERPRINT in kinds)


def _attributes(datagram: bytes) -> list[tuple[int, int]] | None:
    """Type and offset of each attribute; None unless they fill the message exactly."""
    found: list[tuple[int, int]] = []
    offset = HEADER.size
    while offset < len(datagram):
        if offset + ATTRIBUTE.size > len(datagram):
            return None
        kind, length = ATTRIBUTE.unpack_from(datagram, offset)
        found.append((kind, offset))
        offset += ATTRIBUTE.size + length + (-length % 4)
    return found if offset == len(datagram) else None


def _fingerprint_holds(datagram: bytes, attributes: list[tuple[int, int]]) -> bool:
    """Whether FINGERPRINT is last and right (RFC 8489 section 14.7)."""
    kind, offset = attributes[-1]
    if kind != FINGERPRINT or len(datagram) - offset != 8:
        return False
    (given,) = struct.unpack_from(">I", datagram, offset + ATTRIBUTE.size)
    return bool(given == zlib.crc32(datagram[:offset]) ^ FINGERPRINT_XOR)


def _xor_mapped(transaction: bytes, source: Address) -> bytes | None:
    try:
        address = ipaddress.ip_address(source[0].partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    mask = COOKIE.to_bytes(4, "big") + transaction
    value = bytes(a ^ b for a, b in zip(address.packed, mask, strict=False))
    family = 1 if address.version == 4 else 2
    port = source[1] ^ (COOKIE >> 16)
    head = ATTRIBUTE.pack(XOR_MAPPED_ADDRESS, 4 + len(value))
    return head + struct.pack(">BBH", 0, family, port) + value


def _message(kind: int, transaction: bytes, body: bytes, fingerprint: bool) -> bytes:
    length = len(body) + (8 if fingerprint else 0)
    message = HEADER.pack(kind, length, COOKIE, transaction) + body
    if fingerprint:
        check = zlib.crc32(message) ^ FINGERPRINT_XOR
        message += ATTRIBUTE.pack(FINGERPRINT, 4) + struct.pack(">I", check)
    return message


class StunServer:
    """Answers on bound UDP sockets, which it owns, from now until ``close``."""

    def __init__(
        self,
        sockets: list[socket.socket],
        *,
        counters: Counter[str] | None = None,
        rate: float = REQUESTS_PER_SECOND,
        burst: float = REQUESTS_BURST,
    ) -> None:
        self.counters: Counter[str] = Counter() if counters is None else counters
        self._buckets = Buckets[str](rate, burst, MAX_SOURCES)
        self._loop = asyncio.get_running_loop()
        self._sockets = sockets
        for sock in sockets:
            # The answer must come from the address that was asked (RFC 8489 section 6.3.1.1),
            # which on a machine with several only the request itself tells.
            if sock.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            else:
                sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
            self._loop.add_reader(sock.fileno(), self._readable, sock)

    def close(self) -> None:
        for sock in self._sockets:
            self._loop.remove_reader(sock.fileno())
            sock.close()
        self._sockets = []

    def _readable(self, sock: socket.socket) -> None:
        for _ in range(BATCH):
            try:
                datagram, control, _, source = sock.recvmsg(MAX_REQUEST + 1, 128)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error about an earlier answer
                self.counters["stun_errors"] += 1
                continue
            self._answer(sock, datagram, control, source)

    def _answer(
        self,
        sock: socket.socket,
        datagram: bytes,
        control: list[tuple[int, int, bytes]],
        source: tuple[str, int] | tuple[str, int, int, int],
    ) -> None:
        if not self._buckets.take(source_of(source[0]), self._loop.time()):
            self.counters["stun_dropped.quota"] += 1
            return
        response = answer(datagram, source[:2])
        if response is None:
            self.counters["stun_dropped.malformed"] += 1
            return
        try:
            sock.sendmsg([response], _reply_from(control), 0, source)
        except OSError:  # full buffer, or no route back
            self.counters["stun_errors"] += 1
        else:
            self.counters["stun_answered"] += 1


def _reply_from(control: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """Turn the packet info of a request into that of its answer.

    The source address is kept; the interface is left to routing (zero), or a host with two
    uplinks could answer on the one that has no way back. Link-local addresses carry their
    interface in the destination's scope.
    """
    for level, kind, data in control:
        if level == socket.IPPROTO_IP and kind == IP_PKTINFO and len(data) >= 12:
            # struct in_pktinfo: interface, local address to answer from, header's destination
            return [(level, kind, bytes(4) + data[4:8] + bytes(4))]
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO and len(data) >= 20:
            return [(level, kind, data[:16] + bytes(4))]
    return []
