"""Everything that tincan raises on purpose.

TincanError
├── SystemRefusal        the kernel or the machine said no; fatal to the process (exit status 1)
├── DatagramError        input from the network; never leaves the pump, raises a counter
│   ├── MalformedDatagram
│   ├── HandshakeFailed
│   └── RecordRefused
├── PathTooSmall         the device or the route takes no packet of this size; link.outgoing learns
├── LinkError            one link failed; fatal to that link only
├── CryptoError          a key that cannot be one
├── DecodeError          bytes that are no valid message of the wanted type
└── ApiError             a request on the unix socket was wrong; answered, never fatal
"""


class TincanError(Exception):
    """Base of the tree."""


class SystemRefusal(TincanError):
    """The kernel refused something we cannot live without. One line: the object and the cure."""


class DatagramError(TincanError):
    """Input from the network that is not acceptable.

    ``reason`` is the name of the counter that it raises.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class MalformedDatagram(DatagramError):
    """It does not parse."""


class HandshakeFailed(DatagramError):
    """A handshake message that does not authenticate or comes out of turn."""


class RecordRefused(DatagramError):
    """A record that is replayed, expired, or does not authenticate."""


class PathTooSmall(TincanError):
    """EMSGSIZE: the device or the route takes no packet of this size."""


class LinkError(TincanError):
    """A link could not be made or kept."""


class ApiError(TincanError):
    """A request on the unix socket that cannot be served. ``code`` is a JSON-RPC error code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class CryptoError(TincanError, ValueError):
    """A key that cannot be one: wrong length, or a public key of low order."""


class DecodeError(TincanError, ValueError):
    """Bytes that are not a valid message of the wanted type. The text names the path."""
