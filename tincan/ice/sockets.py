"""A UDP socket of ours as the transport that ICE sends by, and where such sockets come from.

asyncio's transports read for themselves; here the pump reads, and hands over what is STUN.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeAlias, cast

from tincan.device.udp import Address, UdpSocket

Spawn: TypeAlias = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]
"""Starts a task that its owner ends, and hears of when it fails."""


class Sockets(Protocol):
    """Who opens sockets for an agent and has them read: path.attempt."""

    def open(self, host: str, port: int = 0) -> UdpSocket:
        """Bind a socket and start reading it; raise SystemRefusal."""

    def close(self, sock: UdpSocket) -> None:
        """Stop reading and close."""


class SocketTransport(asyncio.DatagramTransport):
    """A UDP socket of ours. ``to`` is where everything goes, when that is one place."""

    def __init__(
        self,
        sock: UdpSocket,
        protocol: asyncio.DatagramProtocol,
        counters: Counter[str],
        to: Address | None = None,
    ) -> None:
        super().__init__({"sockname": sock.address})
        self._sock = sock
        self._protocol = protocol
        self._counters = counters
        self._to = to
        self._closing = False
        protocol.connection_made(self)

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Send one datagram; what the kernel refuses is counted and lost."""
        try:
            self._sock.sendto(data, addr or cast(Address, self._to))
        except OSError:  # unreachable, filtered, full: to ICE a lost packet, which it repeats
            self._counters["stun_send_failed"] += 1

    def is_closing(self) -> bool:
        """Return whether ``close`` was called."""
        return self._closing

    def close(self) -> None:
        """Forget the protocol. The socket belongs to whoever opened it."""
        if not self._closing:
            self._closing = True
            self._protocol.connection_lost(None)
