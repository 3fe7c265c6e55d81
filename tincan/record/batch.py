"""A link's outgoing records: items packed while a wake-up lasts, sealed once, cut into datagrams.

1. *Pack.* Egress writes frames behind ``fill``; others append items.
2. *Seal.* What was packed becomes a record, or one more behind those that were sealed before.
3. *Send.* A carrier (path.path) takes the sealed datagrams; ``send_by`` is the only way out.

A batch always starts at the front of one buffer that lives as long as the link, so that the gather
list (record.slots) is built once per datagram size and only its last slot changes. Encryption is in
place: nobody else holds the buffer.

A record may hold several full super-frames of TCP when they wait together: what the interpreter
does for a record, and the system calls' own cost (a super-frame alone takes two), are then shared.
"""

from collections.abc import Iterator
from typing import Final, Protocol

from tincan.device.pinned import Pinned
from tincan.record.keys import SealingKey
from tincan.record.layout import (
    CHANNEL_SIZE,
    FRAME_WORD,
    HEADER,
    HEADER_SIZE,
    ITEM,
    ITEM_SIZE,
    MAX_RECORD,
    RECORD,
    RECORD_FULL,
    RECORD_FULL_IN_QUEUE,
    TAG_SIZE,
    VERSION,
    ZERO_NONCE,
)
from tincan.record.pages import Pool
from tincan.record.parity import parity
from tincan.record.slots import Slots

MAX_CUTS: Final = 4
"""Datagram sizes whose gather lists are kept: path, probed path, relay, and one to spare."""

_INDICES: Final = bytes(range(256))


class Taker(Protocol):
    """What a batch needs of a carrier (path.path)."""

    def send(self, batch: "Batch") -> bool:
        """Send all sealed datagrams; return whether they left."""


class Batch:
    """The buffer of one link.

    Packing: write an item at ``view[fill:]``, advance ``fill``, count it in ``frames``; when
    ``fill`` reaches ``full``, the batch is to be sent without asking for more. ``address``: of
    ``view``, for system calls that we make by ourselves.

    Sealed: ``records`` lie behind each other, each with its parity if it is to have one. All their
    datagrams but the last have the same size.
    """

    __slots__ = (
        "__weakref__",
        "_body",
        "_count",
        "_cuts",
        "_last",
        "_lead",
        "_pinned",
        "_slots",
        "address",
        "fill",
        "frames",
        "full",
        "records",
        "view",
    )

    def __init__(self, pool: Pool) -> None:
        self.view = pool.take(self)[:MAX_RECORD]
        self._pinned = Pinned(self.view)
        self.address = self._pinned.address
        self.fill = 0
        self.full = RECORD_FULL
        self.frames = 0
        self.records = 0
        self._count = 0  # sealed datagrams
        self._last = 0  # bytes of body in the last datagram
        self._slots: Slots
        self._body = 0  # what ``_slots`` was cut for
        self._lead = 0
        self._cuts: dict[tuple[int, int], Slots] = {}

    # --- packing

    def pack(self, packet: memoryview) -> None:
        """Copy a frame, virtio header first, into the record.

        Where it was read may be the very place that it is copied to.
        """
        start = self.fill + ITEM_SIZE
        end = start + len(packet)
        self.view[start:end] = packet
        ITEM.pack_into(self.view, self.fill, FRAME_WORD | len(packet))
        self.fill = end
        self.frames += 1

    def append(self, items: bytes, frames: int = 0) -> None:
        """Add ready-made items, ``frames`` of which are frames."""
        end = self.fill + len(items)
        self.view[self.fill : end] = items
        self.fill = end
        self.frames += frames

    def limit(self, in_queue: bool) -> None:
        """Keep records short from now on while a queue stands before the device."""
        self.full = RECORD_FULL_IN_QUEUE if in_queue else RECORD_FULL

    def clear(self) -> int:
        """Forget all that was packed or sealed; return how many frames that were."""
        frames = self.frames
        self.fill = self.frames = self.records = self._count = 0
        return frames

    def take(self) -> bytes:
        """Return the items that were packed, and forget them."""
        items = bytes(self.view[: self.fill])
        self.clear()
        return items

    # --- sealing

    def seal(self, key: SealingKey, body: int, channel: int | None) -> None:
        """Encrypt what was packed, for datagrams of ``body`` bytes of record each.

        Each datagram gets a ChannelData header if ``channel`` is a number. What is packed next,
        before ``clear`` or ``send_by``, becomes another record behind this one, to be sent with it:
        this one must then have filled its last datagram (see ``open_ended``).
        """
        lead = 0 if channel is None else CHANNEL_SIZE
        if body != self._body or lead != self._lead:
            self._cut(body, lead)
        slots, view, fill, first = self._slots, self.view, self.fill, self._count
        start = first * body
        size = fill + TAG_SIZE - start
        count = -(-size // body)
        self._last = last = size - (count - 1) * body
        counter = key.counter
        key.counter = counter + 1
        header = HEADER.pack(RECORD, 0, count, VERSION, key.receiver, counter)
        plain, sealed = view[start:fill], view[start : start + size]
        key.aead.encrypt_into(ZERO_NONCE + header[8:], plain, header, sealed)
        after = first + count
        self._count, self.fill = after, after * body
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
        """Do the same; but if that takes several datagrams, fill all, and let a parity follow."""
        first = self._count
        size = self.fill + TAG_SIZE - first * body
        if size <= body:
            self.seal(key, body, channel)
            return
        self.append(bytes(-size % body))
        self.seal(key, body, channel)
        stride, headers, after = self._slots.stride, self._slots.headers, self._count
        end = after * body
        self.view[end : end + body] = parity(self.view[first * body : end], body)
        at = after * stride
        headers[at : at + stride] = headers[first * stride : (first + 1) * stride]
        headers[at + self._lead + 1] = after - first
        self._count = after + 1
        self.fill = end + body

    def _cut(self, body: int, lead: int) -> None:
        """Have a gather list for bodies of ``body`` bytes behind ``lead`` + 16 byte headers."""
        found = self._cuts.get((body, lead))
        if found is None:
            if len(self._cuts) >= MAX_CUTS:
                self._cuts.clear()
            stride = lead + HEADER_SIZE
            headers = bytearray(stride * -(-MAX_RECORD // body))
            found = self._cuts[body, lead] = Slots(headers, stride, self.view, body)
        self._slots, self._body, self._lead = found, body, lead

    @property
    def open_ended(self) -> bool:
        """Whether another record may follow what is sealed: its last datagram is full."""
        return bool(self.records) and self._last == self._body

    def fits(self, size: int, body: int) -> bool:
        """Return whether ``size`` bytes of items, their tag and a parity fit behind all that is.

        ``body``: bytes of record in one datagram, of which the last may have to be filled.
        """
        return self.fill + size + 2 * body <= MAX_RECORD

    # --- sending

    def send_by(self, carrier: Taker) -> tuple[int, int, int, int] | None:
        """Send what is sealed, and forget it once it has left.

        Return its bytes of record, datagrams, records and frames; None if not all of it left. Then,
        or after an exception of the carrier's, the caller must ``clear``.
        """
        datagrams, records, last = self._count, self.records, self._last
        self._slots.end_at(datagrams - 1, last)
        if not carrier.send(self):
            return None
        return (datagrams - 1) * self._body + last, datagrams, records, self.clear()

    def calls(self, segmented: bool) -> list[tuple[bytes, int]]:
        """Return the calls that send what is sealed: see Slots.calls. For carriers."""
        return self._slots.calls(self._count, segmented)

    def rest(self, sent: int) -> list[tuple[bytes, int]]:
        """Return the calls, a datagram each, for what ``sent`` segmented calls have left."""
        return self._slots.calls(self._count, segmented=False)[sent * self._slots.batch :]

    def datagrams(self) -> Iterator[bytes]:
        """Yield each sealed datagram as one piece. For carriers that cannot gather."""
        for slot in range(self._count - 1):
            yield self._slots.datagram(slot, self._slots.size)
        yield self._slots.datagram(self._count - 1, self._last)
