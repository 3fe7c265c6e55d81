"""Limits on what one address may ask of a public server: token buckets and admission. Pure.

Time is an argument, in monotonic seconds. Nothing here grows beyond its named bound.
"""

import enum
import ipaddress
from collections import Counter
from dataclasses import dataclass
from typing import Final

from controller.node.rates import Buckets

MAX_SOURCES: Final = 4096
"""Addresses remembered by one table of buckets; the least recent is forgotten."""
IPV6_SITE_BITS: Final = 64
"""One customer has at least a /64: counting single addresses counts nothing."""


def source_of(host: str) -> str:
    """Return what to count ``host`` under: the IPv4 address, or the /64 of an IPv6 address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), IPV6_SITE_BITS), strict=False))


@dataclass(frozen=True, slots=True)
class Limits:
    """What one rendezvous will carry. Every number is a bound on what strangers can make it do."""

    connections: int = 1024
    """Connections in all; each may hold QUEUE_BYTES (transport.py)."""
    connections_per_address: int = 64
    """Connections from one address: many nodes may share one NAT."""
    connects_per_second: float = 2.0
    """New connections from one address: 120 a minute."""
    connects_burst: float = 120.0
    """New connections at once from one address: a full NAT that comes back after a restart."""
    tokens_per_second: float = 200.0
    """Tokens for one address; a message costs one, and each KiB costs one."""
    tokens_burst: float = 1000.0
    """Tokens at once: an offer to each of 255 members; less than QUEUE_BYTES."""
    members: int = 256
    """Members of one network; a join is told to all of them."""
    networks: int = 256
    """Names pinned at once."""
    pin_grace: float = 120.0
    """Seconds that a name stays pinned while its members are away."""


class Admission(enum.Enum):
    """The decision about a new connection."""

    WELCOME = enum.auto()
    REFUSE = enum.auto()
    """Say why (HTTP 429), then close."""
    DROP = enum.auto()
    """Close without an answer."""


class Gate:
    """Admits connections by address, and meters what arrives on them."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._open: Counter[str] = Counter()
        self._connects = Buckets[str](
            limits.connects_per_second, limits.connects_burst, MAX_SOURCES
        )
        self._tokens = Buckets[str](limits.tokens_per_second, limits.tokens_burst, MAX_SOURCES)

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return self._open.total()

    def enter(self, source: str, now: float) -> Admission:
        """Count a new connection of ``source``; ``leave`` must follow unless it is DROP."""
        limits = self._limits
        mine = self._open[source]
        if self.connections >= limits.connections or mine >= 2 * limits.connections_per_address:
            if not mine:
                del self._open[source]
            return Admission.DROP
        self._open[source] += 1
        if mine >= limits.connections_per_address or not self._connects.take(source, now):
            return Admission.REFUSE
        return Admission.WELCOME

    def leave(self, source: str) -> None:
        """Note that a connection of ``source`` that entered has ended."""
        self._open[source] -= 1
        if self._open[source] <= 0:
            del self._open[source]

    def meter(self, source: str, messages: int, size: int, now: float) -> float:
        """Charge what was read from ``source``; return for how many seconds to stop reading."""
        return self._tokens.charge(source, messages + size / 1024, now)
