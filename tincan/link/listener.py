"""What is told of a link to those outside, in plain values."""

from enum import Enum
from typing import Protocol

from tincan.path.path import Path


class LinkState(Enum):
    """The state of a link, as ``status`` shows it."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    LOST = "lost"


class Events(Protocol):
    """Hears what happens to links: the daemon. ``peer`` is a node id."""

    def link_connected(self, peer: str, path: Path) -> None:
        """Frames can be sent to ``peer`` from now on, by ``path``."""

    def link_disconnected(self, peer: str, reason: str) -> None:
        """Frames for ``peer`` are held from now on."""

    def link_wanted(self, peer: str, reason: str) -> None:
        """A new negotiation with ``peer`` would help."""

    def icc(self, peer: str, channel: int, payload: bytes) -> None:
        """The controller of ``peer`` has sent a message."""

    def link_changed(self, peer: str, blocked: bool) -> None:
        """The link came up or went down, or the peer said something new of itself.

        ``blocked``: the peer's TAP is.
        """
