"""The listening end of the unix socket: one controller at a time, the newest."""

import asyncio
import contextlib
import inspect
import logging
import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from tincan.control.codec import DecodeError, Raw, decode, encode
from tincan.control.messages import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    MAX_MESSAGE,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    REFUSED,
    Failure,
    Request,
    Response,
)
from tincan.errors import ApiError, LinkError, SystemRefusal

logger = logging.getLogger(__name__)

MAX_WAITING: Final = 4096  # messages for a controller that does not read; then it counts as gone
MAX_PER_WAKE: Final = 32

#: (result, descriptor to pass along or None)
Outcome = tuple[Any, int | None]
#: (parameters) -> its outcome. A plain function is done before the next message is looked at: a
#: task costs one more turn of the loop, which every frame that is injected would wait for.
Handler = Callable[[Any], Outcome | Awaitable[Outcome]]


class ApiServer:
    """Serves ``methods`` (name -> parameter type and handler) on a SEQPACKET socket at ``path``."""

    def __init__(
        self,
        path: Path,
        methods: dict[str, tuple[type[Any] | None, Handler]],
        tasks: asyncio.TaskGroup,
        gone: Callable[[], None],
    ) -> None:
        self._methods = methods
        self._tasks = tasks
        self._gone = gone
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[bytes, int | None]] = deque()
        self._client: socket.socket | None = None
        self._descriptor: int | None = None
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        old = os.umask(0o177)
        try:
            self._socket.bind(str(path))
        except OSError as error:
            raise SystemRefusal(f"{path}: {error.strerror}; is 'run_dir' writable?") from None
        finally:
            os.umask(old)
        self._socket.listen(4)
        self._loop.add_reader(self._socket.fileno(), self._accept)

    def close(self) -> None:
        """Stop serving and remove the socket."""
        self._drop()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    def notify(self, method: str, params: object) -> None:
        """Send an event to the controller, if there is one."""
        if self._client is not None:
            self._send(encode(Request(method, Raw(encode(params)))), None)

    def take_descriptor(self) -> int | None:
        """Return the descriptor that came with the newest message, now the caller's."""
        descriptor, self._descriptor = self._descriptor, None
        return descriptor

    def _keep(self, descriptors: list[int]) -> None:
        for descriptor in descriptors:
            if self._descriptor is not None:
                os.close(self._descriptor)
            self._descriptor = descriptor

    def _accept(self) -> None:
        try:
            client, _ = self._socket.accept()
        except OSError:
            return
        client.setblocking(False)
        self._drop()
        self._client = client
        self._loop.add_reader(client.fileno(), self._readable, client)

    def _drop(self) -> None:
        """Forget the controller that we had: it is gone, hangs, or another one has come."""
        client, self._client = self._client, None
        if client is None:
            return
        self._loop.remove_reader(client.fileno())
        self._loop.remove_writer(client.fileno())
        client.close()
        self._waiting.clear()
        self._gone()

    def _readable(self, client: socket.socket) -> None:
        for _ in range(MAX_PER_WAKE):
            if client is not self._client:
                return
            try:
                message, descriptors, _, _ = socket.recv_fds(client, MAX_MESSAGE + 1, 1)
            except BlockingIOError:
                return
            except OSError:
                message, descriptors = b"", []
            self._keep(descriptors)
            if not message:
                self._drop()
                return
            self._serve(client, message)

    def _serve(self, client: socket.socket, message: bytes) -> None:
        if len(message) > MAX_MESSAGE:
            self._fail(None, INVALID_REQUEST, f"over {MAX_MESSAGE} bytes")
            return
        try:
            request = decode(message, Request)
        except DecodeError as error:
            self._fail(None, PARSE_ERROR, str(error))
            return
        entry = self._methods.get(request.method)
        if entry is None:
            self._fail(request.id, METHOD_NOT_FOUND, f"no method {request.method[:64]!r}")
            return
        kind, handler = entry
        try:
            params = decode(bytes(request.params), kind) if kind is not None else None
        except DecodeError as error:
            self._fail(request.id, INVALID_PARAMS, str(error))
            return
        running = self._run(client, request.id, handler, params)
        if inspect.iscoroutinefunction(handler):
            self._tasks.create_task(running)
        else:
            with contextlib.suppress(StopIteration):  # it has nothing to wait for
                running.send(None)

    async def _run(
        self, client: socket.socket, number: int | None, handler: Handler, params: Any
    ) -> None:
        refusal = None
        try:
            outcome = handler(params)
            result, descriptor = outcome if isinstance(outcome, tuple) else await outcome
        except ApiError as error:
            refusal = error.code, str(error)
        except (SystemRefusal, LinkError) as error:
            refusal = REFUSED, str(error)
        except Exception:
            # The outermost frame of this task: one wrong request must not end the data plane.
            logger.exception("a request failed")
            refusal = REFUSED, "internal error; see tincan.log"
        if client is not self._client:
            return  # who asked is gone; its successor counts its own requests from 1
        if refusal is not None:
            self._fail(number, *refusal)
        elif number is not None:
            reply = encode(Response(number, Raw(encode(result))))
            if len(reply) > MAX_MESSAGE:
                self._fail(number, REFUSED, "the result is too large")
            else:
                self._send(reply, descriptor)

    def _fail(self, number: int | None, code: int, message: str) -> None:
        self._send(encode(Response(number, error=Failure(code, message[:512]))), None)

    def _send(self, message: bytes, descriptor: int | None) -> None:
        client = self._client
        if client is None:
            return
        if self._waiting:
            self._waiting.append((message, descriptor))
            if len(self._waiting) > MAX_WAITING:
                logger.warning("the controller does not read its socket; taking it for gone")
                self._drop()
            return
        if not self._try(client, message, descriptor):
            self._waiting.append((message, descriptor))
            self._loop.add_writer(client.fileno(), self._writable, client)

    def _writable(self, client: socket.socket) -> None:
        while self._waiting and client is self._client:
            if not self._try(client, *self._waiting[0]):
                return
            if self._waiting:
                self._waiting.popleft()
        if client is self._client:
            self._loop.remove_writer(client.fileno())

    def _try(self, client: socket.socket, message: bytes, descriptor: int | None) -> bool:
        """Send one message; False: the socket is full."""
        try:
            if descriptor is None:
                client.send(message)
            else:
                socket.send_fds(client, [message], [descriptor])
        except BlockingIOError:
            return False
        except OSError:
            self._drop()
        return True
