"""What a link is to those outside, and what they hear of it."""

from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tincan.link.link import Link


class LinkState(Enum):
    """As ``status`` shows it."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    LOST = "lost"


class Events(Protocol):
    """Who hears what happens to a link: the daemon."""

    def link_connected(self, link: "Link") -> None: ...

    def link_disconnected(self, link: "Link", reason: str) -> None: ...

    def link_wanted(self, link: "Link", reason: str) -> None:
        """A new negotiation would help."""

    def icc(self, link: "Link", channel: int, payload: bytes) -> None: ...

    def link_changed(self, link: "Link") -> None:
        """``up``, ``attended`` or ``blocked`` is not what it was."""
