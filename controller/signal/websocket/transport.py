"""Websockets: the one module that imports the library.

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

from controller.errors import one_line
from controller.signal.websocket.messages import MAX_MESSAGE

OPEN_TIMEOUT: Final = 10.0
"""Seconds for TCP, TLS and the HTTP upgrade together."""
PING_INTERVAL: Final = 5.0
"""In seconds: a dead other side is noticed within interval + timeout."""
PING_TIMEOUT: Final = 7.0
"""Seconds."""
CLOSE_TIMEOUT: Final = 1.0
"""Seconds for a polite end; then the connection is cut."""
QUEUE_BYTES: Final = 1 << 20
"""Waiting for one reader: an offer from each of 255 members, twice."""
QUEUE_MESSAGES: Final = 2048
"""The same, for small ones."""
INCOMING_FRAMES: Final = 16
"""Received and not yet handled; then TCP pushes back."""
WRITE_BUFFER: Final = 32 * 1024
"""Bytes handed to the kernel's queue ahead of time."""
HAPPY_EYEBALLS: Final = 0.25
"""Seconds before the other address family is tried too (RFC 8305)."""

# The library logs a traceback for each peer that misbehaves. What matters of it is counted, and
# our own errors do not pass through it.
_quiet = logging.getLogger("controller.signal.websockets")
_quiet.addHandler(logging.NullHandler())
_quiet.propagate = False


class ChannelClosed(Exception):
    """The connection has ended; the text says how."""


class ConnectFailed(Exception):
    """No connection was made; the text is one line, for people.

    ``refused``: the server is there and does not want us now (an HTTP status).
    """

    def __init__(self, text: str, *, refused: bool = False) -> None:
        super().__init__(one_line(text))
        self.refused = refused


class Channel:
    """One websocket, either side. ``pump`` must run for what is posted to leave."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._wake = asyncio.Event()
        self._ending = False

    def post(self, data: bytes) -> bool:
        """Queue ``data``; False, and nothing queued, if the queue is full or ending."""
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
        """Take no more; ``pump`` closes the connection when the queue is empty."""
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
    close = error.rcvd or error.sent
    if close is None:
        return "connection lost"
    return one_line(close.reason or f"closed with code {close.code}")


# Client side


@asynccontextmanager
async def connect(url: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[Channel]:
    """Connect to ``ws://`` or ``wss://`` ``url``; raise ConnectFailed.

    ``tls`` replaces the system's default context. No proxy is used, whatever the environment
    says: signalling that goes another way than the links tells nothing about them.
    """
    options: dict[str, Any] = {"happy_eyeballs_delay": HAPPY_EYEBALLS}
    try:
        if tls is not None and url.startswith("wss:"):
            options["ssl"] = tls
        connection = await websocket_connect(
            url,
            compression=None,
            user_agent_header=None,
            proxy=None,
            open_timeout=OPEN_TIMEOUT,
            ping_interval=PING_INTERVAL,
            ping_timeout=PING_TIMEOUT,
            close_timeout=CLOSE_TIMEOUT,
            max_size=MAX_MESSAGE,
            max_queue=INCOMING_FRAMES,
            write_limit=WRITE_BUFFER,
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
    if isinstance(error, gaierror):
        return f"cannot resolve the host name: {error.strerror}"
    number = error.errno
    if number is None:
        # asyncio joins the failures of several addresses in one text.
        found = re.search(r"\[Errno (\d+)\]", str(error))
        number = int(found[1]) if found else None
    return os.strerror(number) if number else str(error)


# Server side


class Doorkeeper(Protocol):
    """Decides about connections and meters them, by their address."""

    def enter(self, host: str) -> str | None:
        """A connection was accepted: None welcomes it, text refuses it with that reason.

        Raises ConnectionRefusedError to cut it without a word; then ``leave`` is not called.
        """

    def leave(self, host: str) -> None:
        """A connection that entered has ended."""

    def meter(self, host: str, messages: int, size: int) -> float:
        """Return for how many seconds nothing more should be read from it."""


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
        if self._hold is not None:
            self._hold.cancel()
        if self._entered:
            self._entered = False
            self.every.discard(self)
            self.doorkeeper.leave(self.host)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
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
        super().pause_writing()
        self._regulate()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._regulate()

    def _regulate(self) -> None:
        if self._hold is not None or self.paused:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()


Handler = Callable[[Channel, str], Awaitable[None]]


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
                    open_timeout=OPEN_TIMEOUT,
                    ping_interval=PING_INTERVAL,
                    ping_timeout=PING_TIMEOUT,
                    close_timeout=CLOSE_TIMEOUT,
                    max_size=MAX_MESSAGE,
                    # _Guarded is the only one to pause reading: two would undo each other.
                    max_queue=None,
                    write_limit=WRITE_BUFFER,
                    logger=_quiet,
                    create_connection=Guarded,
                )
            )

    async def close(self) -> None:
        """Say goodbye to all, wait CLOSE_TIMEOUT for it, cut what is left."""
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            if connection.state is not State.OPEN:  # would be waited for, up to OPEN_TIMEOUT
                connection.transport.abort()
        try:
            async with asyncio.timeout(2 * CLOSE_TIMEOUT):
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
    def __init__(self, connection: _Guarded) -> None:
        super().__init__(connection)
        self._guarded = connection

    async def receive(self) -> bytes:
        data = await super().receive()
        guarded = self._guarded
        guarded.hold(guarded.doorkeeper.meter(guarded.host, 1, 0))
        return data


def _admit(connection: ServerConnection, request: Request) -> Response | None:
    assert isinstance(connection, _Guarded)
    if connection.refusal is None:
        return None
    return connection.respond(http.HTTPStatus.TOO_MANY_REQUESTS, connection.refusal + "\n")
