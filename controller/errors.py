"""Everything that the controller and the rendezvous raise on purpose.

    ControllerError
    ├── ConfigError          a file or an option is wrong; fatal at start (exit status 2)
    ├── UnwantedText         a parser met text that is refused; becomes a ConfigError
    ├── SystemRefusal        the kernel or the machine said no; exit status 1 unless it is caught
    │   └── TunnelLost       tincan ended in the middle of a call; it is replaced
    ├── NetworkInputError    input from the network; never leaves its reader, raises a counter
    │   ├── MalformedFrame   a captured or relayed ARP or ND frame
    │   ├── RpcError         a message from another controller
    │   ├── SignalError      a message from the rendezvous, or to it
    │   ├── BrokenProtocol   a MetalBond peer broke the protocol; its connection is closed
    │   └── RouteRefused     a route of a MetalBond peer that makes no sense; it is left out
    ├── ChannelClosed        a websocket ended; its client connects again
    ├── ConnectFailed        no websocket was made; its client tries again
    ├── RouteError           an operation on MetalBond routes that cannot be done
    └── ControlError         a request on the control socket failed; answered, never fatal

Fatal errors are shown to the user as one line and nothing else, so their text is one line.
"""

from collections.abc import Iterator
from contextlib import contextmanager


def one_line(text: str) -> str:
    """Return ``text`` with everything that could break or disturb a line of output escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class ControllerError(Exception):
    """The base of every exception that the controller and the rendezvous raise on purpose."""


class ConfigError(ControllerError):
    """The user's file or option is wrong: where, what, and what would be right.

    ``path`` is the place as people write it: ``switch.json: turn[0].server``.
    """

    def __init__(self, path: str, problem: str, cure: str) -> None:
        super().__init__(one_line(f"{path}: {problem}; {cure}"))
        self.path = path
        self.problem = problem
        self.cure = cure


class UnwantedText(ControllerError):
    """Text of a configuration that parses, but that we do not take.

    Raised from inside a parser; ``config.text.parse`` makes it a ConfigError. ``line`` and
    ``column`` count from 1; 0 is unknown.
    """

    def __init__(self, problem: str, cure: str, line: int = 0, column: int = 0) -> None:
        super().__init__(f"{problem}; {cure}")
        self.problem = problem
        self.cure = cure
        self.line = line
        self.column = column


class SystemRefusal(ControllerError):
    """The kernel or the machine refused something. It ends the program unless it is caught.

    ``problem`` names the object; ``cure`` says what the user can do about it.
    """

    def __init__(self, problem: str, cure: str = "") -> None:
        super().__init__(one_line(f"{problem}; {cure}" if cure else problem))
        self.problem = problem
        self.cure = cure


class TunnelLost(SystemRefusal):
    """tincan ended or closed the socket in the middle of a call."""


class NetworkInputError(ControllerError):
    """Input from the network that is not acceptable.

    ``reason`` is the name of the counter that it raises.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class MalformedFrame(NetworkInputError):
    """An ARP or ND frame that does not parse or contradicts itself."""


class RpcError(NetworkInputError):
    """A message from another controller that does not parse."""


class ChannelClosed(ControllerError):
    """A websocket has ended; the text says how."""


class ConnectFailed(ControllerError):
    """No websocket was made; the text is one line, for people.

    ``refused``: the server is there and does not want us now (an HTTP status).
    """

    def __init__(self, text: str, *, refused: bool = False) -> None:
        super().__init__(one_line(text))
        self.refused = refused


class SignalError(NetworkInputError):
    """A signalling message that does not parse, or is not from whom it claims to be."""


class BrokenProtocol(NetworkInputError):
    """A MetalBond peer sent what the protocol does not allow: its connection is closed."""


class RouteRefused(NetworkInputError):
    """A well-formed UPDATE of a MetalBond peer whose route makes no sense: it is left out."""


class RouteError(ControllerError):
    """A value or an operation on MetalBond routes that is not possible, and why, in one line."""

    def __init__(self, problem: str) -> None:
        super().__init__(one_line(problem))


class ControlError(ControllerError):
    """A request on the control socket that cannot be served. Its text is shown to the user."""


@contextmanager
def refused(what: str) -> Iterator[None]:
    """Turn an OSError inside ``with`` into SystemRefusal that begins with ``what`` was refused."""
    try:
        yield
    except PermissionError as error:
        raise SystemRefusal(f"{what}: {error.strerror}", "run as root (sudo)") from None
    except OSError as error:
        raise SystemRefusal(f"{what}: {error.strerror or error}") from None
