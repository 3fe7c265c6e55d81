"""The frames of MetalBond on a TCP stream (README, "Packet Format").

 0                   1                   2                   3
 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
+---------------+-------------------------------+---------------+
|  version: 1   |    length of the payload      |     kind      |
+---------------+-------------------------------+---------------+
|  payload: a protobuf message, at most 1188 bytes              |
+---------------------------------------------------------------+
"""

from collections.abc import Iterator
from enum import IntEnum
from typing import Final

from controller.errors import BrokenProtocol

VERSION: Final = 1
HEADER_BYTES: Final = 4
MAX_PAYLOAD_BYTES: Final = 1188
"""The README's limit, for a frame in one packet of the smallest IPv6 MTU. The Go program keeps it
when it sends, so whoever sends more is not one."""


class Kind(IntEnum):
    """The kinds of messages, by their number in the header."""

    HELLO = 1
    KEEPALIVE = 2
    SUBSCRIBE = 3
    UNSUBSCRIBE = 4
    UPDATE = 5


_KINDS: Final = {int(kind): kind for kind in Kind}


def frame(kind: Kind, payload: bytes = b"") -> bytes:
    """Return the frame of a message. The payload has at most MAX_PAYLOAD_BYTES."""
    assert len(payload) <= MAX_PAYLOAD_BYTES, "no message of ours is that long"
    return b"%c%c%c%c%b" % (VERSION, len(payload) >> 8, len(payload) & 0xFF, kind, payload)


class Frames:
    """The frames in one direction of a stream, whatever the pieces in which it arrives.

    It keeps at most one incomplete frame. After BrokenProtocol it is of no more use: where the
    next frame begins is not known.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[Kind, bytes]]:
        """Yield the kind and the payload of each frame that ``data`` completes.

        The caller takes all of them before it feeds more. Raises BrokenProtocol for another
        version, an unknown kind and a payload that is too long, as soon as the header shows it.
        """
        if self._rest:
            data = self._rest + data
        here, end = 0, len(data)
        while here < end:
            if data[here] != VERSION:
                raise BrokenProtocol("wrong_version")
            if end - here < HEADER_BYTES:
                break
            length = data[here + 1] << 8 | data[here + 2]
            kind = _KINDS.get(data[here + 3])
            if kind is None:
                raise BrokenProtocol("unknown_kind")
            if length > MAX_PAYLOAD_BYTES:
                raise BrokenProtocol("too_long")
            after = here + HEADER_BYTES + length
            if after > end:
                break
            yield kind, data[here + HEADER_BYTES : after]
            here = after
        self._rest = data[here:]
