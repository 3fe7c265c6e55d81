"""Gather and scatter lists for the kernel, built once: arrays of struct iovec over our buffers.

All our lists have one shape, for what is sent as for what is received::

    list     [header 0][body 0][header 1][body 1] ...     a slot holds one datagram
    headers  [header 0][header 1] ...                     one small buffer
    bodies   [body 0][body 1] ...                         one large buffer: a record in one piece
"""

import struct
from typing import Final

from tincan.device.pinned import Pinned
from tincan.record.layout import HEADER_SIZE

MAX_SEGMENTS: Final = 64
"""Datagrams in one call: UDP_MAX_SEGMENTS of kernels before 6.6."""
MAX_BATCH: Final = 65507
"""Bytes of UDP payload in one call."""

_IOV = struct.Struct("@PN")
"""Of a struct msghdr: iov, iovlen."""
_SLOT = struct.Struct("@PNPN")
"""Two struct iovec: base and length of the header, of the body."""
_LENGTH = struct.Struct("@N")
_BODY_LENGTH: Final = _SLOT.size - _LENGTH.size
SLOT_SIZE: Final = _SLOT.size
_ALIKE: Final = HEADER_SIZE - 2
"""Bytes of a header behind type and index."""


class Slots:
    """A list over ``headers`` of ``stride`` bytes and ``bodies`` of ``size`` bytes.

    There are as many slots as there are bodies, of which the last may be shorter. Both buffers stay
    where they are for as long as this object lives: resizing one raises BufferError.

    ``full``: bytes of a slot. ``batch``: how many slots the kernel takes as datagrams in one call.
    ``iovs[slot]``: the iov of all that the kernel may deliver in one call from that slot on, which
    is at most ``last_start``.
    """

    __slots__ = (
        "_array",
        "_calls",
        "_end",
        "_list",
        "_pins",
        "_singles",
        "batch",
        "bodies",
        "count",
        "full",
        "headers",
        "iovs",
        "last_start",
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
        self._pins = Pinned(self._array), Pinned(headers), Pinned(bodies)
        self._list, head, body = (pinned.address for pinned in self._pins)
        for i in range(self.count):
            _SLOT.pack_into(
                self._array, i * SLOT_SIZE, head + i * stride, stride, body + i * size, size
            )
        self._end = self.count - 1, short
        self.shorten(*self._end)
        self.iovs = [self.iov(first, room) for first in range(self.last_start + 1)]
        self._calls: dict[int, list[tuple[bytes, int]]] = {}
        self._singles: list[tuple[bytes, int]] = []

    def iov(self, first: int, count: int) -> bytes:
        """Return what a message header says (iov, iovlen) of ``count`` slots from ``first`` on."""
        return _IOV.pack(self._list + first * SLOT_SIZE, 2 * count)

    def calls(self, count: int, segmented: bool) -> list[tuple[bytes, int]]:
        """Return the calls that send the first ``count`` slots: (iov, bytes of each datagram).

        The bytes are 0 for a datagram alone. ``segmented``: whether the kernel takes several.
        """
        if not segmented:
            for slot in range(len(self._singles), count):
                self._singles.append((self.iov(slot, 1), 0))
            return self._singles[:count]
        found = self._calls.get(count)
        if found is None:
            found = self._calls[count] = []
            for first in range(0, count, self.batch):
                number = min(self.batch, count - first)
                found.append((self.iov(first, number), self.full if number > 1 else 0))
        return found

    def shorten(self, slot: int, size: int) -> None:
        """Let the body of ``slot`` count with its first ``size`` bytes."""
        _LENGTH.pack_into(self._array, slot * SLOT_SIZE + _BODY_LENGTH, size)

    def end_at(self, slot: int, size: int) -> None:
        """Let the list end in ``slot``, with ``size`` bytes of body; the slots before are full.

        For a list that is sent. Most records of a flow end alike: then there is nothing to do.
        """
        if self._end != (slot, size):
            before = self._end[0]
            self.shorten(before, min(self.size, len(self.bodies) - before * self.size))
            self.shorten(slot, size)
            self._end = slot, size

    def all_of_record(self, of: int, first: int, after: int) -> bool:
        """Return whether the slots from ``first`` up to ``after`` hold the record of slot ``of``.

        They do if their headers end as its header does.
        """
        headers, stride = self.headers, self.stride
        end = headers[(of + 1) * stride - _ALIKE : (of + 1) * stride]
        return headers.count(end, first * stride, after * stride) == after - first

    def datagram(self, slot: int, size: int) -> bytes:
        """Return what lies in ``slot``, ``size`` bytes of body with its header, as one piece."""
        at = slot * self.stride
        start = slot * self.size
        return b"".join((self.headers[at : at + self.stride], self.bodies[start : start + size]))
