"""Allocations on TURN servers (RFC 8656), over UDP on a socket of ours, over TCP or over TLS.

A client speaks with the server; a RelayTransport is the allocation as ICE's checks use it.
Records take neither: they go by channel, on the socket or by ``send_on``.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from tincan.device.udp import Address, UdpSocket
from tincan.ice.library import parse, stun, turn
from tincan.ice.sockets import Spawn
from tincan.ice.stun import channel_data, framed_size, is_channel_data
from tincan.path.description import TurnServer

log = logging.getLogger(__name__)

CHANNEL_REFRESH: Final = 240
"""Seconds; permissions live 300 s, channels 600 s (RFC 8656 sections 9 and 12)."""
FREE_TIMEOUT: Final = 0.5
"""Seconds for telling a TURN server that we are gone."""
MAX_SENDS: Final = 64
"""STUN messages that wait for the server to bind their channel."""
MAX_CHANNELS: Final = 64
"""Per allocation; strangers behind one permitted address could ask for more."""
STREAM_BACKLOG: Final = 1 << 20
"""Bytes unsent in a stream to a TURN server; beyond it datagrams are dropped."""


# --- clients


class _TurnGuard(turn.TurnClientMixin):
    """In front of aioice's TURN clients: what arrives raises nothing, what fails is OSError."""

    transport: asyncio.BaseTransport

    def __init__(self, address: Address, server: TurnServer, counters: Counter[str]) -> None:
        lifetime = turn.DEFAULT_ALLOCATION_LIFETIME
        super().__init__(address, server.user, server.password, lifetime, CHANNEL_REFRESH)
        self.counters = counters

    @property
    def connection(self) -> asyncio.BaseTransport:
        """Return the transport that reaches the server."""
        return self.transport

    def datagram_received(self, data: bytes | str, addr: Address) -> None:
        datagram = cast(bytes, data)
        if is_channel_data(datagram) or parse(datagram, self.counters) is not None:
            super().datagram_received(datagram, addr)

    async def channel_bind(self, channel_number: int, addr: Address) -> None:
        # Known at once: the response and the first ChannelData may arrive in one batch.
        self.channel_to_peer[channel_number] = addr
        await super().channel_bind(channel_number, addr)

    async def request_with_retry(self, request: stun.Message) -> tuple[stun.Message, Address]:
        try:
            return await super().request_with_retry(request)
        except stun.TransactionError as error:
            raise ConnectionError(str(error)) from None


class TurnUdp(_TurnGuard, turn.TurnClientUdpProtocol):
    """A TURN client on a socket of ours."""

    transport: asyncio.DatagramTransport


class TurnStream(_TurnGuard, turn.TurnClientTcpProtocol):
    """A TURN client on a TCP or TLS connection of asyncio's."""

    transport: asyncio.Transport

    def __init__(self, address: Address, server: TurnServer, counters: Counter[str]) -> None:
        super().__init__(address, server, counters)
        self._unread = bytearray()  # less than one message, 64 KiB, between calls

    def data_received(self, data: bytes) -> None:
        """Take what the stream brings. (aioice copies all of the rest for each message.)"""
        self._unread += data
        at = 0
        while (size := framed_size(self._unread, at)) and at + size <= len(self._unread):
            self.datagram_received(bytes(self._unread[at : at + size]), self.server)
            at += size
        del self._unread[:at]


# --- allocations


class TurnClient(Protocol):
    """What a relay needs of aioice's TURN clients. All failures are OSError."""

    channel_to_peer: dict[int, Address]
    peer_to_channel: dict[Address, int]
    refresh_task: "asyncio.Task[None] | None"
    receiver: asyncio.DatagramProtocol | None
    server: Address
    counters: Counter[str]

    @property
    def connection(self) -> asyncio.BaseTransport: ...

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
        stream = cast(asyncio.Transport, self.client.connection)

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
        return self.client.connection.is_closing()

    def close(self) -> None:
        """Drop what reaches the server; that comes back to ICE as connection_lost."""
        if self.sock is None:
            cast(asyncio.Transport, self.client.connection).abort()  # a dead server never lets go
        else:
            self.client.connection.close()

    async def free(self) -> None:
        """Give the allocation back, within FREE_TIMEOUT whether the server answers or not."""
        refreshing = self.client.refresh_task
        with contextlib.suppress(OSError):  # TimeoutError is one
            async with asyncio.timeout(FREE_TIMEOUT):
                await self.client.delete()
        if refreshing is not None:
            await asyncio.wait([refreshing])
