"""The connection to one peer: a TCP socket, read as it comes, written in whole frames.

The Go program takes every piece that it reads for whole frames. So what is sent at once is whole
frames in one segment, which the kernel neither joins with others nor cuts (MSG_EOR).
"""

import asyncio
import errno
import fcntl
import socket
import struct
import termios
from collections.abc import Callable
from typing import Final

from controller.routes.pacing import Pacer

READ_BYTES: Final = 16 << 10
"""What is taken at once from one peer: a few hundred routes, so that others have their turn."""
MAX_SEGMENT_BYTES: Final = 8 << 10
SEND_BUFFER_BYTES: Final = 256 << 10
"""More than is ever under way, so that no frame is cut because the buffer is full."""
USER_TIMEOUT_MS: Final = 30_000
"""A connection is gone if what was sent is not acknowledged for so long."""
_SND_WND: Final = struct.Struct("=I")
_SND_WND_AT: Final = 228
"""Where struct tcp_info has tcpi_snd_wnd (linux/tcp.h, since Linux 5.4)."""
_NO_WINDOW: Final = 0
_FLAGS: Final = socket.MSG_EOR | socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT


def prepare(sock: socket.socket) -> None:
    """Set the options of a connected socket. Raises OSError."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)


class Connection:
    """One connected socket, which it closes.

    ``take`` is called with what the peer sent, and ``lose`` once with the reason when it is gone
    by itself, and closed; ``pull`` returns up to so many bytes of whole frames to send, and for 0
    those that keep to no pace. Call `flush` whenever there is something to pull.
    """

    def __init__(
        self,
        sock: socket.socket,
        take: Callable[[bytes], None],
        lose: Callable[[str], None],
        pull: Callable[[int], bytes],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = sock
        self._take = take
        self._lose = lose
        self._pull = pull
        self._pacer = Pacer()
        self._segment = self._segment_bytes()
        self._rest = b""
        self._writing = False
        self._later: asyncio.TimerHandle | None = None
        self._closed = False
        self._loop.add_reader(sock.fileno(), self._readable)

    def close(self) -> None:
        """Close the socket. Nothing is called any more."""
        if self._closed:
            return
        self._closed = True
        if self._later is not None:
            self._later.cancel()
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()

    def flush(self) -> None:
        """Send what there is, as far as the peer's pace allows, and the rest later."""
        while not (self._closed or self._writing):
            room = self._pacer.blind
            if self._later is not None:
                room = 0
            elif not room:
                now = self._loop.time()
                room = self._pacer.room(now, self._unacknowledged(), self._window())
            if not room and self._later is None:
                self._later = self._loop.call_later(self._pacer.wait_s, self._resume)
            data = self._pull(min(room, self._segment))
            if not data:
                return
            self._pacer.sent(len(data))
            self._write(data)

    def _resume(self) -> None:
        self._later = None
        self.flush()

    def _write(self, data: bytes) -> None:
        try:
            sent = self._socket.send(data, _FLAGS)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self._gone(error)
            return
        self._rest = data[sent:]
        if self._rest and not self._writing:
            self._writing = True
            self._loop.add_writer(self._socket.fileno(), self._writable)

    def _writable(self) -> None:
        self._write(self._rest)
        if not self._rest and not self._closed:
            self._writing = False
            self._loop.remove_writer(self._socket.fileno())
            self.flush()

    def _readable(self) -> None:
        try:
            data = self._socket.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._gone(error)
            return
        if data:
            self._pacer.heard()
            self._take(data)
        else:
            self._end("closed_by_peer")

    def _gone(self, error: OSError) -> None:
        self._end("timed_out" if error.errno == errno.ETIMEDOUT else "connection_reset")

    def _end(self, reason: str) -> None:
        if not self._closed:
            self.close()
            self._lose(reason)

    # --- what the kernel knows

    def _segment_bytes(self) -> int:
        mss = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
        return min(mss, MAX_SEGMENT_BYTES)

    def _unacknowledged(self) -> int:
        raw = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        return int.from_bytes(raw, "little" if struct.pack("=H", 1)[0] else "big")

    def _window(self) -> int:
        info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SND_WND_AT + 4)
        if len(info) < _SND_WND_AT + 4:
            return _NO_WINDOW
        window: int = _SND_WND.unpack_from(info, _SND_WND_AT)[0]
        return window
