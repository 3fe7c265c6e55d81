"""The side of the control socket that answers; ``operator.protocol`` has the messages."""

import asyncio
import inspect
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from controller.errors import ControllerError, refused
from controller.operator.protocol import DEADLINE_S, MAX_REQUEST_BYTES, Request, Response
from tincan.control.codec import DecodeError, decode, encode

MAX_CLIENTS: Final = 16
"""Connections at a time; subcommands are short."""

Method = Callable[[dict[str, Any]], object | Awaitable[object]]
"""Takes the request's parameters and returns the answer, anything that ``codec.encode`` takes.

The asker is told the text of a ControllerError or DecodeError.
"""

log = logging.getLogger(__name__)


class ControlServer:
    """The control socket, of mode 0600, inside ``async with``.

        async with ControlServer(config.control_socket, {"status": status, ...}):
            ...

    Hold the socket's directory (``host.directories.hold``) before: a socket that is there already
    is taken for the leftover of a process that was killed.
    """

    def __init__(self, path: Path, methods: Mapping[str, Method]) -> None:
        self._path = path
        self._methods = methods
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "ControlServer":
        """Listen; raise SystemRefusal if that is not possible."""
        with refused(f'cannot listen on "{self._path}"'):
            self._path.unlink(missing_ok=True)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                listener.bind(str(self._path))
                os.chmod(self._path, 0o600)  # nobody can connect before listen()
                self._server = await asyncio.start_unix_server(
                    self._accepted, sock=listener, limit=MAX_REQUEST_BYTES
                )
            except OSError:
                listener.close()
                raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # No coroutine: of one that is cancelled, asyncio 3.11 logs a traceback of its own.
        full = len(self._clients) >= MAX_CLIENTS
        task = asyncio.get_running_loop().create_task(self._client(reader, writer, full))
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _client(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, full: bool
    ) -> None:
        try:
            async with asyncio.timeout(DEADLINE_S):
                writer.write(_refusal("too many are asking") if full else await self._serve(reader))
                await writer.drain()
                writer.close()
                await writer.wait_closed()  # until the asker has read it all
        except (TimeoutError, ConnectionError):
            log.debug("a client of the control socket went away or was too slow")
        finally:
            if writer.get_extra_info("socket").fileno() >= 0:  # not closed in good order
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader) -> bytes:
        """Read one request and return the answer to it."""
        try:
            request = decode(await reader.readline(), Request)
        except ValueError as error:  # DecodeError; a line longer than the limit
            return _refusal(f"not a request: {error}")
        method = self._methods.get(request.method)
        if method is None:
            known = ", ".join(sorted(self._methods))
            return _refusal(f'unknown method "{request.method[:64]}"; known: {known}')
        try:
            result = method(request.params)
            if inspect.isawaitable(result):
                result = await result
            return encode(Response(result=result)) + b"\n"
        except (ControllerError, DecodeError) as error:
            return _refusal(str(error))
        except Exception:  # outermost of this task: a fault in a view must not end the program
            log.exception("the control method %s failed", request.method)
            return _refusal("the controller failed to answer; see its log")


def _refusal(text: str) -> bytes:
    return encode(Response(error=text)) + b"\n"
