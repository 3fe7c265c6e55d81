"""The controller's end of the unix socket: one tincan, started by us or found running.

    tunnel = Tunnel(run_dir, level, on_event, counters)
    welcome = await tunnel.connect()            # starts tincan if none answers
    info = await tunnel.open_tap(OpenTap(...))  # keeps a duplicate of the descriptor
    offer = await tunnel.call("create_link", NewLink(...), Offer)
    tunnel.notify("inject", Frame(...))         # no answer wanted
    await tunnel.lost.wait()                    # it died: connect() again

The duplicate of the TAP's descriptor outlives tincan: the next one is given it back, so that the
device and its place in the bridge survive.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import select
import signal
import socket
import struct
import subprocess
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from controller.dataplane.process import start_tincan
from controller.errors import SystemRefusal, TunnelLost
from tincan.control import messages as api
from tincan.control.codec import DecodeError, Raw, Struct, decode, encode

log = logging.getLogger(__name__)

START_WITHIN: Final = 10.0
"""Seconds for a tincan that we start to answer."""
ANSWER_WITHIN: Final = 10.0
"""Seconds for an answer; gathering candidates takes 2 s at worst."""
HUNG_AFTER: Final = 5.0
"""Seconds without an answer to ``alive``; a link's own silence is 6.5 s."""
STOP_WITHIN: Final = 3.0
"""Seconds for a tincan to leave when asked; then it is killed."""
RETRY: Final = 0.02
"""Seconds between attempts to connect to a tincan that is starting."""
MAX_PER_WAKE: Final = 64
MAX_BACKLOG: Final = 4096
"""Messages that wait for room in the socket; pins have 500 MACs each."""

# A later one does as well, or the sender asks again. All others are said once, and must arrive.
REPEATED: Final = frozenset({"inject", "icc", "heartbeat"})

T = TypeVar("T")


class _AnyResponse(Struct):
    """A response or an event: whichever has its fields."""

    id: int | None = None
    method: str | None = None
    params: Raw = Raw(b"null")
    result: Raw = Raw(b"null")
    error: api.Failure | None = None


class Tunnel:
    """See the module's text. ``on_event`` gets the event Structs of tincan.control.messages."""

    def __init__(
        self,
        run_dir: Path,
        level: str,
        version: str,
        on_event: Callable[[Any], None],
        counters: Counter[str],
        started: "subprocess.Popen[bytes] | None" = None,
    ) -> None:
        self.lost = asyncio.Event()
        self._run_dir = run_dir
        self._level = level
        self._version = version
        self._on_event = on_event
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[_AnyResponse]] = {}
        self._socket: socket.socket | None = None
        self._process = started
        self._pidfd: int | None = None  # of the tincan behind the socket, whoever started it
        self._tap: int | None = None
        self._received: list[int] = []
        self._backlog: deque[bytes] = deque()

    # --- life

    async def connect(self) -> api.Welcome:
        """Take over the tincan that runs in ``run_dir``, or start one. Raise SystemRefusal."""
        welcome = None
        if self._try_connect():
            try:
                welcome = await self._greet()
            except TunnelLost as error:
                log.warning("replacing the tincan that was running: %s", error)
                self._kill()
                await self._ended()
        if welcome is None:
            await self._start()
            welcome = await self._greet()
            if welcome is None:
                raise SystemRefusal("tincan speaks another API version", "reinstall Switchmode")
        return welcome

    async def replace(self) -> api.Welcome:
        """Stop the tincan that we have and start another."""
        await self.stop()
        return await self.connect()

    def _try_connect(self) -> bool:
        # Not blocking: one that hangs accepts nobody, and its queue may be full.
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            sock.connect(str(self._run_dir / api.SOCKET_NAME))
        except OSError:
            sock.close()
            return False
        self._socket = sock
        self._forget_process()
        self._pidfd = _process_behind(sock)
        self.lost.clear()
        self._loop.add_reader(sock.fileno(), self._readable, sock)
        return True

    async def _greet(self) -> api.Welcome | None:
        """Exchange versions; None: incompatible, and told to leave."""
        hello = api.Hello(api.API_VERSION, self._version)
        welcome = await self.call("hello", hello, api.Welcome, within=HUNG_AFTER)
        if welcome.api == api.API_VERSION:
            return welcome
        log.warning("replacing a tincan of API version %d", welcome.api)
        await self.stop()
        return None

    async def _start(self) -> None:
        """Start tincan, unless one is starting, and wait until it answers."""
        if self._process is None or self._process.poll() is not None:
            self._process = start_tincan(self._run_dir, self._level)
        deadline = self._loop.time() + START_WITHIN
        while not self._try_connect():
            if self._process.poll() is not None:
                raise SystemRefusal(
                    f"tincan ended with status {self._process.returncode}: {self._last_words()}"
                )
            if self._loop.time() > deadline:
                raise SystemRefusal("tincan does not answer", f"see {self._run_dir}/tincan.log")
            await asyncio.sleep(RETRY)

    def _last_words(self) -> str:
        """The end of tincan's log, which does not outlive us."""
        try:
            lines = (self._run_dir / "tincan.log").read_text(errors="replace").splitlines()
        except OSError:
            return "it has left no log"
        return lines[-1][:400] if lines else "its log is empty"

    async def alive(self, capture: bool) -> None:
        """A heartbeat that must be answered; a tincan that hangs is killed. Raise TunnelLost."""
        try:
            await self.call("heartbeat", api.Heartbeat(capture), type(None), within=HUNG_AFTER)
        except TunnelLost:
            self._kill()
            self._disconnect()
            raise

    def discard(self) -> None:
        """Kill a tincan that is of no use any more: ``lost`` will be set."""
        self.release_tap()
        self._kill()
        self._disconnect()

    async def stop(self) -> None:
        """Have tincan give everything back and end; kill it if it does not."""
        if self._socket is not None:
            self.notify("shutdown", None)
        elif self._process is not None:
            self._process.kill()  # not yet listening: it has nothing to give back
        try:
            async with asyncio.timeout(STOP_WITHIN):
                await self._ended()
        except TimeoutError:
            log.warning("tincan does not end; killing it")
            self._kill()
            await self._ended()
        self._process = None
        self._disconnect()

    async def _ended(self) -> None:
        """Wait for the end of the process, ours or the one that we took over."""
        while not self._is_over():  # noqa: ASYNC110 - a pidfd or a poll, whichever there is
            await asyncio.sleep(RETRY)

    def _is_over(self) -> bool:
        if self._process is not None and self._process.poll() is None:
            return False
        return self._pidfd is None or bool(select.select([self._pidfd], [], [], 0)[0])

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _forget_process(self) -> None:
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def release_tap(self) -> None:
        """Give up the duplicate of the TAP: with tincan's own gone too, the device vanishes."""
        if self._tap is not None:
            os.close(self._tap)
            self._tap = None

    def close(self) -> None:
        """Leave tincan running, and forget it."""
        self._disconnect()
        self._forget_process()
        self.release_tap()

    # --- talking

    async def open_tap(self, wish: api.OpenTap) -> api.TapInfo:
        """Have the TAP created, or taken over from the descriptor that we kept."""
        self._received.clear()
        info = await self.call("open_tap", wish, api.TapInfo, descriptor=self._tap)
        received = self._received.pop() if self._received else None
        if self._tap is None:
            self._tap = received
        elif received is not None:
            os.close(received)
        return info

    async def call(
        self,
        method: str,
        params: object,
        kind: type[T],
        descriptor: int | None = None,
        within: float = ANSWER_WITHIN,
    ) -> T:
        """Return tincan's answer; raise SystemRefusal with what it says, or TunnelLost."""
        number = next(self._numbers)
        future = self._loop.create_future()
        self._waiting[number] = future
        try:
            message = encode(api.Request(method, Raw(encode(params)), number))
            async with asyncio.timeout(within):
                while self._backlog or not self._send(message, descriptor):  # noqa: ASYNC110
                    await asyncio.sleep(RETRY)  # a burst fills the socket: that is no silence
                response = await future
        except TimeoutError:
            raise TunnelLost(f"tincan does not answer {method}") from None
        finally:
            self._waiting.pop(number, None)
            if future.done() and not future.cancelled():
                future.exception()  # seen: it need not be logged when we never came to wait for it
        if response.error is not None:
            raise SystemRefusal(response.error.message)
        try:
            return decode(bytes(response.result), kind)
        except DecodeError as error:
            raise SystemRefusal(f"tincan's answer to {method}: {error}") from None

    def notify(self, method: str, params: object) -> None:
        """Ask for something without wanting to know what became of it."""
        message = encode(api.Request(method, Raw(encode(params))))
        with contextlib.suppress(TunnelLost):
            if not self._backlog and self._send(message, None):
                return
            if method in REPEATED:
                self._counters["tunnel_messages_dropped.socket_full"] += 1
            elif len(self._backlog) < MAX_BACKLOG:
                self._wait_for_room(message)
            else:
                log.warning("tincan takes nothing any more: killing it")
                self._kill()
                self._disconnect()  # the next one is told everything

    def _wait_for_room(self, message: bytes) -> None:
        if not self._backlog and self._socket is not None:
            self._loop.add_writer(self._socket.fileno(), self._writable)
        self._backlog.append(message)

    def _writable(self) -> None:
        with contextlib.suppress(TunnelLost):
            while self._backlog and self._send(self._backlog[0], None):
                self._backlog.popleft()
            if not self._backlog and self._socket is not None:
                self._loop.remove_writer(self._socket.fileno())

    def _send(self, message: bytes, descriptor: int | None) -> bool:
        """Return whether there was room for it; raise TunnelLost."""
        sock = self._socket
        if sock is None:
            raise TunnelLost("tincan is not connected")
        try:
            if descriptor is None:
                sock.send(message)
            else:
                socket.send_fds(sock, [message], [descriptor])
        except BlockingIOError:
            return False
        except OSError as error:
            self._disconnect()
            raise TunnelLost(f"tincan: {error.strerror}") from None
        return True

    def _readable(self, sock: socket.socket) -> None:
        for _ in range(MAX_PER_WAKE):
            if sock is not self._socket:
                return
            try:
                message, descriptors, _, _ = socket.recv_fds(sock, api.MAX_MESSAGE + 1, 1)
            except BlockingIOError:
                return
            except OSError:
                message, descriptors = b"", []
            self._received += descriptors
            if not message:
                self._disconnect()
                return
            self._take(message)

    def _take(self, message: bytes) -> None:
        try:
            response = decode(message, _AnyResponse)
            if response.method is not None:
                kind = api.EVENTS.get(response.method)
                if kind is not None:
                    self._on_event(decode(bytes(response.params), kind))
                return
        except DecodeError as error:
            log.warning("a message of tincan cannot be read: %s", error)
            return
        future = self._waiting.get(response.id) if response.id is not None else None
        if future is not None and not future.done():
            future.set_result(response)

    def _disconnect(self) -> None:
        sock, self._socket = self._socket, None
        if sock is not None:
            self._loop.remove_reader(sock.fileno())
            self._loop.remove_writer(sock.fileno())
            sock.close()
        self._backlog.clear()
        self.lost.set()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(TunnelLost("tincan ended"))


def _process_behind(sock: socket.socket) -> int | None:
    """Return a pidfd of the process that listens behind ``sock``; None if it cannot be had."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid = struct.unpack("=iII", credentials)[0]  # struct ucred
    try:
        return os.pidfd_open(pid) if pid else None
    except OSError:
        return None
