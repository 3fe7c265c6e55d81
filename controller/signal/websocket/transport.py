"""Websockets: the one module that imports the library of that name.

Both sides see a ``Channel``: messages of bytes, a bounded queue outward, deadlines, pings.
The library's defaults are for browsers and for trusted peers; every limit is set here.
"""

import asyncio
import http
import logging
import os
import re
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from socket import gaierror, socket
from typing import Any, Final, Protocol

from websockets.asyncio.client import connect as websocket_connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    InvalidURI,
)
from websockets.http11 import Request, Response
from websockets.protocol import State

from controller.errors import ChannelClosed, ConnectFailed, one_line
from controller.signal.websocket.messages import MAX_MESSAGE_BYTES

OPEN_TIMEOUT_S: Final = 10.0
"""Time for TCP, TLS and the HTTP upgrade together."""
PING_INTERVAL_S: Final = 5.0
"""Time between pings; a dead other side is noticed within interval and timeout."""
PING_TIMEOUT_S: Final = 7.0
"""Time for the answer to a ping."""
CLOSE_TIMEOUT_S: Final = 1.0
"""Time for the closing handshake; then the connection is cut."""
QUEUE_BYTES: Final = 1 << 20
"""What may wait for one reader: an offer from each of 255 members, twice."""
QUEUE_MESSAGES: Final = 2048
"""Messages that may wait for one reader, when they are small."""
INCOMING_FRAMES: Final = 16
"""Frames that are received and not yet handled; then TCP pushes back."""
WRITE_BUFFER_BYTES: Final = 32 * 1024
"""What is handed to the kernel's queue ahead of time."""
HAPPY_EYEBALLS_S: Final = 0.25
"""Time before the other address family is tried too (RFC 8305)."""

# The library logs a traceback for each peer that misbehaves. What matters of it is counted, and
# our own errors do not pass through it.
_quiet = logging.getLogger("controller.signal.websockets")
_quiet.addHandler(logging.NullHandler())
_quiet.propagate = False


class Channel:
    """One websocket, at either side. Keep ``pump`` running: it sends what ``post`` queues."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._wake = asyncio.Event()
        self._ending = False

    def post(self, data: bytes) -> bool:
        """Queue ``data`` and return True; return False if the queue is full or ending."""
        if (
            self._ending
            or len(self._queue) >= QUEUE_MESSAGES
            or self._queued + len(data) > QUEUE_BYTES
        ):
            return False
        self._queue.append(data)
        self._queued += len(data)
        self._wake.set()
        return True

    def finish(self) -> None:
        """Accept no more; ``pump`` closes the connection when the queue is empty."""
        self._ending = True
        self._wake.set()

    @property
    def local_host(self) -> str:
        """The address on our side, "" if there is none any more."""
        name = self._connection.transport.get_extra_info("sockname")
        return str(name[0]) if name else ""

    def abort(self) -> None:
        """Cut the connection now."""
        self._connection.transport.abort()

    async def receive(self) -> bytes:
        """Return the next message; raise ChannelClosed."""
        try:
            return await self._connection.recv(decode=False)
        except ConnectionClosed as error:
            raise ChannelClosed(_ending(error)) from None

    async def pump(self) -> None:
        """Send what is posted until ``finish``; raise ChannelClosed."""
        try:
            while True:
                while self._queue:
                    data = self._queue.popleft()
                    # Text, since it is JSON: tools that show websockets show it readably.
                    await self._connection.send(data, text=True)
                    self._queued -= len(data)
                if self._ending:
                    await self._connection.close()
                    return
                self._wake.clear()
                await self._wake.wait()
        except ConnectionClosed as error:
            raise ChannelClosed(_ending(error)) from None

    async def probe(self, seconds: float) -> None:
        """Ask for a sign of life; cut the connection if none comes within ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                await (await self._connection.ping())
        except TimeoutError:
            self.abort()
        except ConnectionClosed:
            pass


def _ending(error: ConnectionClosed) -> str:
    """Return how the connection ended, as one line."""
    close = error.rcvd or error.sent
    if close is None:
        return "connection lost"
    return one_line(close.reason or f"closed with code {close.code}")


# --- client side


@asynccontextmanager
async def connect(url: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[Channel]:
    """Connect to ``ws://`` or ``wss://`` ``url``; raise ConnectFailed.

    ``tls`` replaces the system's default context. No proxy is used, whatever the environment
    says: signalling that goes another way than the links tells nothing about them.
    """
    options: dict[str, Any] = {"happy_eyeballs_delay": HAPPY_EYEBALLS_S}
    try:
        if tls is not None and url.startswith("wss:"):
            options["ssl"] = tls
        connection = await websocket_connect(
            url,
            compression=None,
            user_agent_header=None,
            proxy=None,
            open_timeout=OPEN_TIMEOUT_S,
            ping_interval=PING_INTERVAL_S,
            ping_timeout=PING_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            max_size=MAX_MESSAGE_BYTES,
            max_queue=INCOMING_FRAMES,
            write_limit=WRITE_BUFFER_BYTES,
            logger=_quiet,
            **options,
        )
    except InvalidURI:
        raise ConnectFailed("not a ws:// or wss:// URL") from None
    except InvalidStatus as error:
        status, body = error.response.status_code, error.response.body or b""
        text = body[:200].decode("utf-8", "replace").strip()
        raise ConnectFailed(f"HTTP {status} {text}".strip(), refused=True) from None
    except InvalidHandshake as error:
        raise ConnectFailed(f"not a rendezvous: {error}") from None
    except TimeoutError:
        raise ConnectFailed("no answer") from None
    except ssl.SSLError as error:
        verdict = getattr(error, "verify_message", "") or error.reason or error
        raise ConnectFailed(f"TLS: {verdict}") from None
    except OSError as error:
        raise ConnectFailed(_system_reason(error)) from None
    except (ValueError, EOFError) as error:  # a URL or an answer that the library chokes on
        raise ConnectFailed(str(error) or "connection lost") from None
    try:
        yield Channel(connection)
    finally:
        await connection.close()


def _system_reason(error: OSError) -> str:
    """Return why the system made no connection, as one line."""
    if isinstance(error, gaierror):
        return f"cannot resolve the host name: {error.strerror}"
    number = error.errno
    if number is None:
        # asyncio joins the failures of several addresses in one text.
        found = re.search(r"\[Errno (\d+)\]", str(error))
        number = int(found[1]) if found else None
    return os.strerror(number) if number else str(error)


# --- server side


class Doorkeeper(Protocol):
    """Decides about connections and meters them, by their address."""

    def enter(self, host: str) -> str | None:
        """Decide about a connection that was accepted: return None, or why it is refused.

        Raises ConnectionRefusedError to cut it without an answer; then ``leave`` is not called.
        """

    def leave(self, host: str) -> None:
        """Note that a connection that entered has ended."""

    def meter(self, host: str, messages: int, size: int) -> float:
        """Charge what was read from ``host``; return for how many seconds to read nothing more."""


class _Guarded(ServerConnection):
    """A server connection that asks the doorkeeper, and reads no faster than it may.

    Reading pauses while too much waits to be written (a stream of pings from somebody who
    reads no pongs would otherwise grow the buffer) and while the address is over its rate.
    """

    doorkeeper: Doorkeeper
    every: set["_Guarded"]

    host = ""
    refusal: str | None = None
    _entered = False
    _held = False
    _hold: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask the doorkeeper."""
        super().connection_made(transport)
        self.host = (self.remote_address or ("",))[0]
        try:
            self.refusal = self.doorkeeper.enter(self.host)
        except ConnectionRefusedError:
            self.transport.abort()
            return
        self._entered = True
        self.every.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the doorkeeper."""
        if self._hold is not None:
            self._hold.cancel()
        if self._entered:
            self._entered = False
            self.every.discard(self)
            self.doorkeeper.leave(self.host)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Meter ``data`` and hand it on."""
        self.hold(self.doorkeeper.meter(self.host, 0, len(data)))
        super().data_received(data)

    def hold(self, seconds: float) -> None:
        """Read nothing for ``seconds``."""
        if seconds <= 0.0 or self._hold is not None:
            return
        self._hold = self.loop.call_later(seconds, self._release)
        self._regulate()

    def _release(self) -> None:
        self._hold = None
        self._regulate()

    def pause_writing(self) -> None:
        """Stop reading, too."""
        super().pause_writing()
        self._regulate()

    def resume_writing(self) -> None:
        """Read again, unless the address is over its rate."""
        super().resume_writing()
        self._regulate()

    def _regulate(self) -> None:
        if self._hold is not None or self.paused:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()


Handler = Callable[[Channel, str], Awaitable[None]]
"""Serves one connection, given its channel and the address of the other side."""


class Listener:
    """Websocket servers on some sockets, with one handler."""

    def __init__(self, handler: Handler, doorkeeper: Doorkeeper) -> None:
        self._handler = handler
        self._doorkeeper = doorkeeper
        self._servers: list[Server] = []
        self._connections: set[_Guarded] = set()

    async def start(self, sockets: list[socket]) -> None:
        """Listen on bound ``sockets``, which belong to the listener from now on."""

        class Guarded(_Guarded):
            doorkeeper = self._doorkeeper
            every = self._connections

        for sock in sockets:
            self._servers.append(
                await serve(
                    self._serve,
                    sock=sock,
                    # A browser names the page it comes from; a node has none.
                    origins=[None],
                    compression=None,
                    server_header=None,
                    process_request=_admit,
                    open_timeout=OPEN_TIMEOUT_S,
                    ping_interval=PING_INTERVAL_S,
                    ping_timeout=PING_TIMEOUT_S,
                    close_timeout=CLOSE_TIMEOUT_S,
                    max_size=MAX_MESSAGE_BYTES,
                    # _Guarded is the only one to pause reading: two would undo each other.
                    max_queue=None,
                    write_limit=WRITE_BUFFER_BYTES,
                    logger=_quiet,
                    create_connection=Guarded,
                )
            )

    async def close(self) -> None:
        """Close all connections, wait CLOSE_TIMEOUT_S for it, cut what is left."""
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            if connection.state is not State.OPEN:  # would be waited for, up to OPEN_TIMEOUT_S
                connection.transport.abort()
        try:
            async with asyncio.timeout(2 * CLOSE_TIMEOUT_S):
                await self._closed()
        except TimeoutError:
            for connection in list(self._connections):
                connection.transport.abort()
            await self._closed()

    async def _closed(self) -> None:
        for server in self._servers:
            await server.wait_closed()

    async def _serve(self, connection: ServerConnection) -> None:
        assert isinstance(connection, _Guarded)
        await self._handler(_MeteredChannel(connection), connection.host)


class _MeteredChannel(Channel):
    """A channel whose messages are charged to its address."""

    def __init__(self, connection: _Guarded) -> None:
        super().__init__(connection)
        self._guarded = connection

    async def receive(self) -> bytes:
        data = await super().receive()
        guarded = self._guarded
        guarded.hold(guarded.doorkeeper.meter(guarded.host, 1, 0))
        return data


def _admit(connection: ServerConnection, request: Request) -> Response | None:
    """Return the HTTP answer that refuses a connection, None for one that is welcome."""
    assert isinstance(connection, _Guarded)
    if connection.refusal is None:
        return None
    return connection.respond(http.HTTPStatus.TOO_MANY_REQUESTS, connection.refusal + "\n")
