"""Everything that the controller and the rendezvous raise on purpose.

    ControllerError
    ├── ConfigError          a file or an option is wrong; fatal at start (exit status 2)
    ├── SystemRefusal        the kernel or the machine said no; fatal (exit status 1)
    ├── NetworkInputError    input from the network; never leaves its reader, raises a counter
    │   ├── MalformedFrame   a captured or relayed ARP or ND frame
    │   ├── RpcError         a message from another controller
    │   ├── SignalError      a message from the rendezvous, or to it
    │   ├── BrokenProtocol   a MetalBond peer broke the protocol; its connection is closed
    │   └── RouteRefused     a route of a MetalBond peer that makes no sense; it is left out
    ├── RouteError           an operation on MetalBond routes that cannot be done
    └── ControlError         a request on the control socket failed; answered, never fatal

Fatal errors are shown to the user as one line and nothing else, so their text is one line.
"""


def one_line(text: str) -> str:
    """Return ``text`` with everything that could break or disturb a line of output escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class ControllerError(Exception):
    """Base of the tree."""


class ConfigError(ControllerError):
    """The user's file or option is wrong: where, what, and what would be right.

    ``path`` is the place as people write it: ``switch.json: turn[0].server``.
    """

    def __init__(self, path: str, problem: str, cure: str) -> None:
        super().__init__(one_line(f"{path}: {problem}; {cure}"))
        self.path = path
        self.problem = problem
        self.cure = cure


class SystemRefusal(ControllerError):
    """The kernel or the machine refused something we cannot live without.

    ``problem`` names the object; ``cure`` says what the user can do about it.
    """

    def __init__(self, problem: str, cure: str = "") -> None:
        super().__init__(one_line(f"{problem}; {cure}" if cure else problem))
        self.problem = problem
        self.cure = cure


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
