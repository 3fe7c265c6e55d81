"""Many datagrams in one system call: recvmmsg(2) and sendmmsg(2) on a ring of equal slots.

The kernel reads and writes the two arrays below (`struct mmsghdr`, `struct iovec`) directly, so a
received datagram is sent on without one instruction of Python for its own sake; that is what lets
an interpreter carry 100,000 datagrams a second and leave the processors to what is being measured.
"""

import ctypes
import errno
import os
import socket
import sys
from collections.abc import Sequence

_libc = ctypes.CDLL(None, use_errno=True)
if ctypes.sizeof(ctypes.c_void_p) != 8 or sys.byteorder != "little":  # the strides below
    raise ImportError("the bench needs a 64-bit little-endian machine")


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _MsgHdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _MMsgHdr(ctypes.Structure):
    _fields_ = (("header", _MsgHdr), ("length", ctypes.c_uint32))


_HEADER = ctypes.sizeof(_MMsgHdr)
_IOVEC = ctypes.sizeof(_IoVec)


class Ring:
    """`slots` buffers of `size` bytes each (a multiple of 8), filled and emptied in place.

    `memory` is the buffers' bytes, slot after slot. A caller of `send` and `receive` names a run
    of slots that does not wrap.
    """

    def __init__(self, slots: int, size: int) -> None:
        if size % 8:
            raise ValueError("a slot is a multiple of 8 bytes")
        self.slots = slots
        self.size = size
        self._buffer = ctypes.create_string_buffer(slots * size)
        self._iovecs = (_IoVec * slots)()
        self._headers = (_MMsgHdr * slots)()
        base = ctypes.addressof(self._buffer)
        vectors = ctypes.addressof(self._iovecs)
        self._first = ctypes.addressof(self._headers)
        for i in range(slots):
            self._iovecs[i].base = base + i * size
            self._iovecs[i].length = size
            self._headers[i].header.iov = vectors + i * _IOVEC
            self._headers[i].header.iovlen = 1
        self.memory = memoryview(self._buffer).cast("B")
        # iovec.length (its low half) and mmsghdr.length as two strided views of u32: assigning one
        # to the other turns what was received into what will be sent.
        self._room = memoryview(self._iovecs).cast("B").cast("I")[2::4]
        self._filled = memoryview(self._headers).cast("B").cast("I")[14::16]

    def receive(self, sock: socket.socket, first: int, count: int, flags: int = 0) -> Sequence[int]:
        """Receive up to `count` datagrams into the slots from `first`; their lengths in bytes.

        Empty if there is none (never waits with MSG_DONTWAIT). The slots' lengths are set for a
        later `send`; one that was truncated (with MSG_TRUNC in `flags`) reports its full length.
        """
        last = first + count
        self._room[first:last] = _repeated(self.size, count)
        got = _libc.recvmmsg(sock.fileno(), self._at(first), count, flags, None)
        if got < 0:
            code = ctypes.get_errno()
            if code in (errno.EAGAIN, errno.EINTR, errno.ENETDOWN, errno.ECONNREFUSED):
                return ()
            raise OSError(code, os.strerror(code))
        filled = self._filled[first : first + got]
        self._room[first : first + got] = filled
        return filled.tolist()

    def fill(self, first: int, count: int, length: int) -> None:
        """Say that the slots from `first` hold `length` bytes each."""
        self._room[first : first + count] = _repeated(length, count)

    def send(self, sock: socket.socket, first: int, count: int, flags: int = 0) -> int:
        """Send up to `count` slots from `first`; how many the kernel took before it had no room."""
        sent = 0
        while sent < count:
            got = _libc.sendmmsg(sock.fileno(), self._at(first + sent), count - sent, flags)
            if got > 0:
                sent += got
                continue
            code = ctypes.get_errno()
            if code in (errno.ENOBUFS, errno.EAGAIN, errno.ENETDOWN, errno.ECONNREFUSED):
                break
            if code != errno.EINTR:
                raise OSError(code, os.strerror(code))
        return sent

    def _at(self, slot: int) -> ctypes.c_void_p:
        return ctypes.c_void_p(self._first + slot * _HEADER)


def _repeated(value: int, count: int) -> memoryview:
    return memoryview(value.to_bytes(4, "little") * count).cast("I")
