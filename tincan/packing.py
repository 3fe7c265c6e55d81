"""A link's outgoing record: items packed while a wake-up lasts, sealed once, cut into datagrams.

The record always starts at offset 0 of one buffer that lives as long as the link, so that the
gather list for a full-size cut (header, slice, header, slice, ...) is built once per body size
and only the last slice changes. Encryption is in place: nobody else holds the buffer.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from tincan.session import SealingKey
from tincan.vector import Vector
from tincan.wire import (
    HEADER,
    HEADER_SIZE,
    MAX_FRAGMENTS,
    MAX_RECORD,
    RECORD,
    TAG_SIZE,
    VERSION,
    ZERO_NONCE,
)

CHANNEL_SIZE: Final = 4  # TURN ChannelData: u16 channel, u16 length (RFC 8656 section 12.4)
MAX_CUTS: Final = 4  # body sizes whose gather lists are kept: path, probed path, relay, spare

_INDICES: Final = bytes(range(256))


class Cut:
    """The gather list for one body size: ``parts[2*i]`` is header i, ``parts[2*i+1]`` body i.

    In ``vector``, part ``short`` has another length: it was a record's last.
    """

    __slots__ = ("headers", "parts", "short", "vector")

    def __init__(self, headers: bytearray, parts: list[memoryview]) -> None:
        self.headers = headers
        self.parts = parts
        self.vector = Vector(parts)
        self.short = 1


class Datagrams(NamedTuple):
    """A sealed record, ready to send: ``number`` datagrams, two parts of ``cut`` for each.

    The buffers belong to the record and are valid until the next frame is packed. ``size`` is
    that of every datagram but the last, in bytes of UDP payload; ``last`` what the last one has
    of the record.
    """

    cut: Cut
    number: int
    size: int
    last: int

    def joined(self) -> Iterator[bytes]:
        """Yield each datagram as one piece, for those who cannot gather."""
        parts = self.cut.parts
        for i in range(self.number):
            body = parts[2 * i + 1]
            yield b"".join((parts[2 * i], body if i < self.number - 1 else body[: self.last]))


class OpenRecord:
    """The buffer of one link. Write items at ``view[fill:]`` and advance ``fill``."""

    __slots__ = ("_cuts", "fill", "frames", "view")

    def __init__(self) -> None:
        self.view = memoryview(bytearray(MAX_RECORD))
        self.fill = 0  # bytes of items so far
        self.frames = 0
        self._cuts: dict[tuple[int, int], Cut] = {}

    def append(self, items: bytes) -> None:
        """Add ready-made items."""
        end = self.fill + len(items)
        self.view[self.fill : end] = items
        self.fill = end

    def clear(self) -> None:
        """Forget what was packed."""
        self.fill = 0
        self.frames = 0

    def seal(self, key: SealingKey, body: int, channel: int | None) -> Datagrams:
        """Encrypt what was packed and cut it into datagrams of ``body`` bytes of record each."""
        size = self.fill + TAG_SIZE
        count = -(-size // body)
        counter = key.counter
        key.counter = counter + 1
        header = HEADER.pack(RECORD, 0, count, VERSION, key.receiver, counter)
        view = self.view
        key.aead.encrypt_into(ZERO_NONCE + header[8:], view[: self.fill], header, view[:size])
        self.clear()
        lead = 0 if channel is None else CHANNEL_SIZE
        stride = lead + HEADER_SIZE
        cut = self._cuts.get((body, lead)) or self._cut(body, lead)
        headers = cut.headers
        last = size - (count - 1) * body
        if channel is None:
            headers[: stride * count] = header * count
        else:
            front = channel.to_bytes(2, "big")
            full = front + (HEADER_SIZE + body).to_bytes(2, "big") + header
            headers[: stride * count] = full * (count - 1) + (
                front + (HEADER_SIZE + last).to_bytes(2, "big") + header
            )
        headers[lead + 1 : stride * count : stride] = _INDICES[:count]
        if cut.short != 2 * count - 1:
            cut.vector.resize(cut.short, len(cut.parts[cut.short]))
            cut.short = 2 * count - 1
        cut.vector.resize(cut.short, last)
        return Datagrams(cut, count, stride + body, last)

    def _cut(self, body: int, lead: int) -> Cut:
        """Build the gather list for bodies of ``body`` bytes behind ``lead`` + 16 byte headers."""
        if len(self._cuts) >= MAX_CUTS:
            self._cuts.clear()
        count = min(-(-MAX_RECORD // body), MAX_FRAGMENTS)
        stride = lead + HEADER_SIZE
        headers = bytearray(stride * count)
        heads = memoryview(headers)
        parts: list[memoryview] = []
        for i in range(count):
            parts += (heads[i * stride : (i + 1) * stride], self.view[i * body : (i + 1) * body])
        cut = self._cuts[body, lead] = Cut(headers, parts)
        return cut
