"""A STUN server for the one question that ICE asks: "from which address do you see me?"

``answer`` is pure and follows RFC 8489: binding requests with the magic cookie and correct
lengths get a success response with XOR-MAPPED-ADDRESS (section 14.2); ones with an attribute
that must be understood and is not get error 420 (section 6.3.1); all else gets silence.
Answers are 32 bytes for IPv4 and 44 for IPv6 on requests of at least 20: with their headers at
most 1.5 times what was asked, so forged sources gain nothing.
"""

import asyncio
import socket
import struct
from collections import Counter
from typing import Final

from controller.node.rates import Buckets
from controller.signal.rendezvous.quota import MAX_SOURCES, source_of
from tincan.ice.stun import (
    BINDING_ERROR,
    BINDING_REQUEST,
    BINDING_SUCCESS,
    COMPREHENSION_OPTIONAL,
    COOKIE,
    ERROR_CODE,
    FINGERPRINT,
    HEADER,
    UNKNOWN_ATTRIBUTES,
    Address,
    attribute,
    attributes,
    fingerprint_holds,
    message,
    xor_mapped,
)

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
    found = attributes(datagram)
    if found is None:
        return None
    kinds = [kind for kind, _ in found]
    if FINGERPRINT in kinds and not fingerprint_holds(datagram, found):
        return None
    unknown = [kind for kind in kinds if kind < COMPREHENSION_OPTIONAL][:MAX_UNKNOWN]
    if unknown:
        code = attribute(ERROR_CODE, bytes((0, 0, 4, 20)))  # class 4, number 20, no phrase
        types = attribute(UNKNOWN_ATTRIBUTES, struct.pack(f">{len(unknown)}H", *unknown))
        return message(BINDING_ERROR, transaction, code + types, fingerprint=FINGERPRINT in kinds)
    mapped = xor_mapped(transaction, source)
    if mapped is None:
        return None
    return message(BINDING_SUCCESS, transaction, mapped, fingerprint=FINGERPRINT in kinds)


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
