"""A link's outgoing record: items packed while a wake-up lasts, sealed once, cut into datagrams.

The record always starts at the front of one buffer that lives as long as the link, so that the
gather list (tincan.vector) is built once per datagram size and only its last slot changes.
Encryption is in place: nobody else holds the buffer.

A record may hold several full super-frames of TCP when they wait together: what the interpreter
does for a record, and the system calls' own cost (a super-frame alone takes two), are then shared.
"""

from collections.abc import Iterator
from typing import Final

from tincan.memory import piece
from tincan.session import SealingKey
from tincan.vector import Slots, address_of
from tincan.wire import (
    CHANNEL_SIZE,
    HEADER,
    HEADER_SIZE,
    MAX_RECORD,
    RECORD,
    RECORD_FULL,
    RECORD_FULL_IN_QUEUE,
    TAG_SIZE,
    VERSION,
    ZERO_NONCE,
)

MAX_CUTS: Final = 4  # datagram sizes whose gather lists are kept: path, probed path, relay, spare

_INDICES: Final = bytes(range(256))


class OpenRecord:
    """The buffer of one link. Write items at ``view[fill:]`` and advance ``fill``.

    ``address``: of ``view``, for system calls that we make by ourselves. ``frames``: how many are
    packed. ``full``: the fill at which the record is to be sent, without asking for more.
    Sealed, it lies in the first ``count`` of ``slots``, with ``last`` bytes in the last one.
    """

    __slots__ = (
        "__weakref__",
        "_body",
        "_cuts",
        "_lead",
        "address",
        "count",
        "fill",
        "frames",
        "full",
        "last",
        "slots",
        "view",
    )

    def __init__(self) -> None:
        self.view = piece(self)[:MAX_RECORD]
        self.address = address_of(self.view)
        self.fill = 0
        self.full = RECORD_FULL
        self.frames = 0
        self.slots: Slots
        self.count = 0
        self.last = 0
        self._body = 0  # what ``slots`` was cut for
        self._lead = 0
        self._cuts: dict[tuple[int, int], Slots] = {}

    def append(self, items: bytes) -> None:
        """Add ready-made items."""
        end = self.fill + len(items)
        self.view[self.fill : end] = items
        self.fill = end

    def keep_short(self, short: bool) -> None:
        """Whether a queue stands before the device, so that records must not be long."""
        self.full = RECORD_FULL_IN_QUEUE if short else RECORD_FULL

    def clear(self) -> int:
        """Forget what was packed; return how many frames that were."""
        frames = self.frames
        self.fill = self.frames = 0
        return frames

    def seal(self, key: SealingKey, body: int, channel: int | None) -> int:
        """Encrypt what was packed, for datagrams of ``body`` bytes of record each.

        Return the record's size. The slots are valid until the next frame is packed.
        """
        lead = 0 if channel is None else CHANNEL_SIZE
        if body != self._body or lead != self._lead:
            self._cut(body, lead)
        slots, view, fill = self.slots, self.view, self.fill
        size = fill + TAG_SIZE
        self.count = count = -(-size // body)
        self.last = last = size - (count - 1) * body
        counter = key.counter
        key.counter = counter + 1
        header = HEADER.pack(RECORD, 0, count, VERSION, key.receiver, counter)
        key.aead.encrypt_into(ZERO_NONCE + header[8:], view[:fill], header, view[:size])
        headers = slots.headers
        if channel is None:
            if count == 1:
                headers[:HEADER_SIZE] = header
                return size
            end = count * HEADER_SIZE
            headers[:end] = header * count
            headers[1:end:HEADER_SIZE] = _INDICES[:count]
            return size
        front = channel.to_bytes(2, "big")
        full = front + (HEADER_SIZE + body).to_bytes(2, "big") + header
        short = front + (HEADER_SIZE + last).to_bytes(2, "big") + header
        end = count * slots.stride
        headers[:end] = full * (count - 1) + short
        headers[lead + 1 : end : slots.stride] = _INDICES[:count]
        return size

    def datagrams(self) -> Iterator[bytes]:
        """Yield each datagram of the sealed record as one piece, for those who cannot gather."""
        for slot in range(self.count - 1):
            yield self.slots.datagram(slot, self.slots.size)
        yield self.slots.datagram(self.count - 1, self.last)

    def _cut(self, body: int, lead: int) -> None:
        """Have a gather list for bodies of ``body`` bytes behind ``lead`` + 16 byte headers."""
        found = self._cuts.get((body, lead))
        if found is None:
            if len(self._cuts) >= MAX_CUTS:
                self._cuts.clear()
            stride = lead + HEADER_SIZE
            headers = bytearray(stride * -(-MAX_RECORD // body))
            found = self._cuts[body, lead] = Slots(headers, stride, self.view, body)
        self.slots, self._body, self._lead = found, body, lead
