"""The events of signalling, whatever carries it.

Node ids are 64 lowercase hexadecimal digits. Presence is a hint: the rendezvous can withhold
or delay it, and after its restart members come back one by one. Links must not depend on it.
"""

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class SignalConnected:
    """Joined. A Present for every member follows at once."""


@dataclass(frozen=True, slots=True)
class SignalLost:
    """The connection ended; the client keeps trying. Members are still believed to be there."""


@dataclass(frozen=True, slots=True)
class Present:
    """A member is there.

    It comes again, with another session, when the member has connected anew: whatever was sent to
    its former session and not answered will not be.
    """

    id: str
    name: str
    session: bytes


@dataclass(frozen=True, slots=True)
class Absent:
    """A member's connection to the rendezvous has ended."""

    id: str


@dataclass(frozen=True, slots=True)
class Received:
    """Bytes from a member: authentic, meant for this connection of ours, and not seen before."""

    sender: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """The rendezvous does not want us: ``wrong secret``, ``replaced``, ... (messages.Reason)."""

    reason: str


Event: TypeAlias = SignalConnected | SignalLost | Present | Absent | Received | Refused
