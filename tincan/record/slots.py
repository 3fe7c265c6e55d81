"""Gather and scatter lists for the kernel, built once: arrays of struct iovec over our buffers.

All our lists have one shape, for what is sent as for what is received::

    list     [header 0][body 0][header 1][body 1] ...     a slot holds one datagram
    headers  [header 0][header 1] ...                     one small buffer
    bodies   [body 0][body 1] ...                         one large buffer: a record in one piece
"""

import ctypes
import struct
from typing import Final

from tincan.record.layout import HEADER_SIZE

_IOV = struct.Struct("@PN")  # of a struct msghdr: iov, iovlen
_SLOT = struct.Struct("@PNPN")  # two struct iovec: base and length of the header, of the body
MAX_SEGMENTS: Final = 64  # UDP_MAX_SEGMENTS of kernels before 6.6
MAX_BATCH: Final = 65507  # bytes of UDP payload in one call
_LENGTH = struct.Struct("@N")
_BODY_LENGTH: Final = _SLOT.size - _LENGTH.size
SLOT_SIZE: Final = _SLOT.size
ALIKE: Final = HEADER_SIZE - 2  # bytes of a header behind type and index


def address_of(buffer: bytearray | memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


class Slots:
    """A list over ``headers`` of ``stride`` bytes and ``bodies`` of ``size`` bytes.

    As many as there are bodies, of which the last may be shorter. The buffers stay where they are
    as long as it lives. ``full``: bytes of a slot; ``address``: of the list; ``batch``: how many
    slots the kernel takes as datagrams in one call. ``places[slot]``: the place of all that the
    kernel may deliver in one call, from that slot on, at most from ``last_start`` on.
    """

    __slots__ = (
        "_array",
        "_calls",
        "_singles",
        "address",
        "batch",
        "bodies",
        "count",
        "full",
        "headers",
        "last_start",
        "places",
        "size",
        "stride",
    )

    def __init__(self, headers: bytearray, stride: int, bodies: memoryview, size: int) -> None:
        self.headers = headers
        self.stride = stride
        self.bodies = bodies
        self.size = size
        self.full = stride + size
        self.count = -(-len(bodies) // size)
        room = min(self.count, MAX_BATCH // self.full + 1)
        self.last_start = self.count - room
        short = len(bodies) - (self.count - 1) * size  # of the last slot
        if self.last_start and (room - 1) * self.full + stride + short < MAX_BATCH:
            self.last_start -= 1
        self.batch = max(1, min(MAX_SEGMENTS, MAX_BATCH // self.full))
        self._array = bytearray(SLOT_SIZE * self.count)
        self.address = address_of(self._array)
        head, body = address_of(headers), address_of(bodies)
        for i in range(self.count):
            _SLOT.pack_into(
                self._array, i * SLOT_SIZE, head + i * stride, stride, body + i * size, size
            )
        self.shorten(self.count - 1, short)
        self.places = [self.place(first, room) for first in range(self.last_start + 1)]
        self._calls: dict[int, list[tuple[bytes, int]]] = {}
        self._singles: list[tuple[bytes, int]] = []

    def place(self, first: int, count: int) -> bytes:
        """Return what a message header says (iov, iovlen) of ``count`` slots from ``first`` on."""
        return _IOV.pack(self.address + first * SLOT_SIZE, 2 * count)

    def calls(self, count: int, segmented: bool) -> list[tuple[bytes, int]]:
        """Return the calls that send the first ``count`` slots: places, and the size of the
        datagrams in each, 0 for one alone. ``segmented``: whether the kernel takes several."""
        if not segmented:
            for slot in range(len(self._singles), count):
                self._singles.append((self.place(slot, 1), 0))
            return self._singles[:count]
        found = self._calls.get(count)
        if found is None:
            found = self._calls[count] = []
            for first in range(0, count, self.batch):
                number = min(self.batch, count - first)
                found.append((self.place(first, number), self.full if number > 1 else 0))
        return found

    def shorten(self, slot: int, size: int) -> None:
        """Let the body of ``slot`` count with its first ``size`` bytes."""
        _LENGTH.pack_into(self._array, slot * SLOT_SIZE + _BODY_LENGTH, size)

    def alike(self, one: int, first: int, after: int) -> bool:
        """Whether the datagrams in the slots from ``first`` up to ``after`` are of the same record
        as the one in slot ``one``: their headers end alike."""
        headers, stride = self.headers, self.stride
        end = headers[(one + 1) * stride - ALIKE : (one + 1) * stride]
        return headers.count(end, first * stride, after * stride) == after - first

    def datagram(self, slot: int, size: int) -> bytes:
        """Return what lies in ``slot``, ``size`` bytes of body with its header, as one piece."""
        at = slot * self.stride
        start = slot * self.size
        return b"".join((self.headers[at : at + self.stride], self.bodies[start : start + size]))
