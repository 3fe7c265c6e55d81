"""The port of signalling: how nodes without a link reach each other.

``websocket.client`` implements it with a rendezvous; tests have a twin in memory. A node may use
several at once: each has presence of its own.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from controller.signal.events import Event

Listener: TypeAlias = Callable[[Event], None]
"""Called in the event loop with one Event at a time.

It must not block. What it raises ends ``Signalling.run``.
"""


@dataclass(frozen=True, slots=True)
class SignalState:
    """The state of one way of signalling, as ``status`` shows it."""

    url: str
    connected: bool
    error: str | None
    """Why it is not connected; None if it is, or if nothing is known yet."""


class Signalling(Protocol):
    """One way to reach peers. Its events go to the Listener that it was made with."""

    @property
    def state(self) -> SignalState:
        """The state of now."""

    @property
    def peers(self) -> Mapping[str, str]:
        """Names of the peers believed to be there, by id."""

    async def run(self) -> None:
        """Stay connected until cancelled; raise nothing that a network can cause."""

    def send(self, peer: str, payload: bytes) -> bool:
        """Queue ``payload`` for ``peer`` and return whether that was possible.

        True is no promise that it arrives. After False, send again upon the peer's next Present.
        """

    def network_changed(self, gone: Collection[str] = ()) -> None:
        """Note that addresses or routes of this host changed; ``gone`` are addresses it lost."""
