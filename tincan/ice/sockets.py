"""What ICE sends through: a socket of ours, or an allocation on a TURN server, as a transport.

asyncio's transports read for themselves; here the pump reads, and hands over what is STUN.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeAlias, cast

from tincan.device.udp import Address, UdpSocket
from tincan.ice.stun import channel_data

log = logging.getLogger(__name__)

CHANNEL_REFRESH = 240  # s; permissions live 300 s, channels 600 s (RFC 8656 sections 9 and 12)
FREE_TIMEOUT = 0.5  # s for telling a TURN server that we are gone
MAX_SENDS = 64  # STUN messages that wait for the server to bind their channel
MAX_CHANNELS = 64  # per allocation; strangers behind one permitted address could ask for more
STREAM_BACKLOG = 1 << 20  # bytes unsent in a stream to a TURN server; beyond it datagrams drop

Spawn: TypeAlias = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


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
        try:
            self._sock.sendto(data, addr or cast(Address, self._to))
        except OSError:  # unreachable, filtered, full: to ICE a lost packet, which it repeats
            self._counters["stun_send_failed"] += 1

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        """Forget the protocol. The socket belongs to whoever opened it."""
        if not self._closing:
            self._closing = True
            self._protocol.connection_lost(None)


class TurnClient(Protocol):
    """What a relay needs of aioice's TURN clients. All failures are OSError."""

    channel_to_peer: dict[int, Address]
    peer_to_channel: dict[Address, int]
    refresh_task: "asyncio.Task[None] | None"
    receiver: asyncio.DatagramProtocol | None
    server: Address
    counters: Counter[str]

    @property
    def link(self) -> asyncio.BaseTransport: ...

    async def channel_bind(self, channel_number: int, addr: Address) -> None: ...

    async def send_data(self, data: bytes, addr: Address) -> None: ...

    async def delete(self) -> None: ...


class RelayTransport(asyncio.DatagramTransport):
    """An allocation on a TURN server. ICE's own messages only: records go by channel."""

    def __init__(self, client: TurnClient, sock: UdpSocket | None, spawn: Spawn) -> None:
        super().__init__()
        self.client = client
        self.sock = sock  # None: a stream
        self._spawn = spawn
        self._sends = 0

    def sendto(self, data: Any, addr: Any = None) -> None:
        channels = self.client.peer_to_channel
        if self.is_closing() or self._sends >= MAX_SENDS:
            self.client.counters["stun_send_failed"] += 1
        elif addr not in channels and len(channels) >= MAX_CHANNELS:
            self.client.counters["turn_channels_exhausted"] += 1
        else:
            self._sends += 1
            self._spawn(self._send(data, addr))

    async def _send(self, data: bytes, addr: Address) -> None:
        try:
            await self.client.send_data(data, addr)  # binds the channel first
        except OSError:  # 403 for this peer, or the server is gone
            self.client.counters["turn_bind_failed"] += 1
        finally:
            self._sends -= 1

    def channel_received(self, data: bytes, channel: int) -> None:
        """Take STUN that came as ChannelData, header stripped."""
        peer = self.client.channel_to_peer.get(channel)
        if peer is not None and self.client.receiver is not None:
            self.client.receiver.datagram_received(data, peer)

    def send_on(self, channel: int) -> Callable[[bytes], None]:
        """Return the function that sends a datagram to the peer of ``channel`` by stream."""
        stream = cast(asyncio.Transport, self.client.link)

        def send(datagram: bytes) -> None:
            if stream.is_closing() or stream.get_write_buffer_size() > STREAM_BACKLOG:
                self.client.counters["relay_backlog"] += 1
            else:
                stream.write(channel_data(channel, datagram) + bytes(-len(datagram) % 4))

        return send

    async def keep(self, channel: int, peer: Address) -> None:
        """Refresh the channel, and with it the permission, for as long as this runs."""
        while True:
            await asyncio.sleep(CHANNEL_REFRESH)
            try:
                await self.client.channel_bind(channel, peer)
            except OSError as error:
                self.client.counters["turn_refresh_failed"] += 1
                log.warning(
                    "TURN server %s port %d no longer relays: %s", *self.client.server, error
                )

    def is_closing(self) -> bool:
        return self.client.link.is_closing()

    def close(self) -> None:
        """Drop what reaches the server; that comes back to ICE as connection_lost."""
        if self.sock is None:
            cast(asyncio.Transport, self.client.link).abort()  # a dead server never lets go
        else:
            self.client.link.close()

    async def free(self) -> None:
        """Give the allocation back, within FREE_TIMEOUT whether the server answers or not."""
        refreshing = self.client.refresh_task
        with contextlib.suppress(OSError):  # TimeoutError is one
            async with asyncio.timeout(FREE_TIMEOUT):
                await self.client.delete()
        if refreshing is not None:
            await asyncio.wait([refreshing])
