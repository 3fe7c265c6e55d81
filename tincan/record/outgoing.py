"""A link's outgoing record: items packed while a wake-up lasts, sealed once, cut into datagrams.

The record always starts at the front of one buffer that lives as long as the link, so that the
gather list (tincan.record.slots) is built once per datagram size and only its last slot changes.
Encryption is in place: nobody else holds the buffer.

A record may hold several full super-frames of TCP when they wait together: what the interpreter
does for a record, and the system calls' own cost (a super-frame alone takes two), are then shared.
"""

from collections.abc import Iterator
from typing import Final

from tincan.record.keys import SealingKey
from tincan.record.layout import (
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
from tincan.record.pages import piece
from tincan.record.parity import parity
from tincan.record.slots import Slots, address_of

MAX_CUTS: Final = 4  # datagram sizes whose gather lists are kept: path, probed path, relay, spare

_INDICES: Final = bytes(range(256))


class OpenRecord:
    """The buffer of one link. Write items at ``view[fill:]`` and advance ``fill``.

    ``address``: of ``view``, for system calls that we make by ourselves. ``frames``: how many are
    packed. ``full``: the fill at which the record is to be sent, without asking for more.
    Sealed, it lies in the first ``count`` of ``slots``, with ``last`` bytes in the last one. Short
    records may follow each other there, to be sent together, each with its parity if it is to have
    one.
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
        "records",
        "slots",
        "view",
    )

    def __init__(self) -> None:
        self.view = piece(self)[:MAX_RECORD]
        self.address = address_of(self.view)
        self.fill = 0
        self.full = RECORD_FULL
        self.frames = 0
        self.records = 0  # sealed
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
        self.fill = self.frames = self.records = self.count = 0
        return frames

    def seal(self, key: SealingKey, body: int, channel: int | None) -> None:
        """Encrypt what was packed, for datagrams of ``body`` bytes of record each.

        What is packed next, before ``clear``, becomes another record behind this one, to be sent
        with it: this one must then have filled its last datagram.
        """
        lead = 0 if channel is None else CHANNEL_SIZE
        if body != self._body or lead != self._lead:
            self._cut(body, lead)
        slots, view, fill, first = self.slots, self.view, self.fill, self.count
        start = first * body
        size = fill + TAG_SIZE - start
        count = -(-size // body)
        self.last = last = size - (count - 1) * body
        counter = key.counter
        key.counter = counter + 1
        header = HEADER.pack(RECORD, 0, count, VERSION, key.receiver, counter)
        plain, sealed = view[start:fill], view[start : start + size]
        key.aead.encrypt_into(ZERO_NONCE + header[8:], plain, header, sealed)
        after = first + count
        self.count, self.fill = after, after * body
        self.records += 1
        headers, stride = slots.headers, slots.stride
        at, end = first * stride, after * stride
        if channel is None:
            headers[at:end] = header * count if count > 1 else header
        else:
            front = channel.to_bytes(2, "big")
            full = front + (HEADER_SIZE + body).to_bytes(2, "big") + header
            short = front + (HEADER_SIZE + last).to_bytes(2, "big") + header
            headers[at:end] = full * (count - 1) + short
        if count > 1:
            headers[at + lead + 1 : end : stride] = _INDICES[:count]

    def seal_protected(self, key: SealingKey, body: int, channel: int | None) -> None:
        """The same; but if that takes several datagrams, all are filled, and a parity follows."""
        first = self.count
        size = self.fill + TAG_SIZE - first * body
        if size <= body:
            self.seal(key, body, channel)
            return
        self.append(bytes(-size % body))
        self.seal(key, body, channel)
        stride, headers, after = self.slots.stride, self.slots.headers, self.count
        end = after * body
        self.view[end : end + body] = parity(self.view[first * body : end], body)
        at = after * stride
        headers[at : at + stride] = headers[first * stride : (first + 1) * stride]
        headers[at + self._lead + 1] = after - first
        self.count = after + 1
        self.fill = end + body

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
