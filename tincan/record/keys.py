"""The keys of a session, as far as sealing and opening records need them. Pure.

A session (session.session) makes them. Only whoever seals counts a SealingKey's counter, and only
whoever opens moves an OpeningKey's window: no key is ever used in two places.
"""

from dataclasses import dataclass
from typing import Protocol

from tincan.crypto.primitives import Aead
from tincan.crypto.window import ReplayWindow
from tincan.device.device import Address
from tincan.record.port import Port


class SealingKey:
    """What the sender of records needs. ``counter``: the next to use, counted by the sender."""

    __slots__ = ("aead", "born", "counter", "receiver")

    def __init__(self, aead: Aead, receiver: int, born: float) -> None:
        self.aead = aead
        self.receiver = receiver
        self.counter = 0
        self.born = born


@dataclass(slots=True)
class Received:
    """What has come from one peer. The pump writes here, its owner reads.

    ``bytes``: of records, tags included. ``heard``: when the last record came, as far as the owner
    was not told of it (Recipient.heard).
    """

    bytes: int = 0
    frames: int = 0
    heard: float = 0.0


class Recipient(Protocol):
    """Who is told of the records that were opened under its keys: a link.

    The pump calls this while it reads a socket; frames it handles by itself.
    """

    @property
    def rx(self) -> Received:
        """Where the pump counts."""

    def heard(self, key: "OpeningKey", port: Port, address: Address | None, now: float) -> None:
        """Take note of the first record from an address.

        The pump calls this unless ``key.last_address`` is the very ``address``, which is for the
        recipient to set; until it does, every record is told. ``address``: None if unknown.
        """

    def missed(self, key: "OpeningKey", now: float) -> None:
        """Take note that ``key.window.gap`` is set, and clear it: records are missing."""

    def control(self, kind: int, payload: bytes, port: Port, now: float) -> None:
        """Act on an item that is no frame."""


class OpeningKey:
    """What the receiver of records needs.

    ``owner``: who is told of what was opened. ``confirmed``: a record has authenticated under the
    key; until then Session.opened() must be told. ``last_address``: where the last record came from
    that the owner has taken note of. It is compared by identity: a socket hands out the same object
    for the same address.
    """

    __slots__ = ("aead", "born", "confirmed", "index", "last_address", "owner", "window")

    def __init__(self, aead: Aead, index: int, born: float, owner: Recipient) -> None:
        self.aead = aead
        self.index = index
        self.window = ReplayWindow()
        self.born = born
        self.owner = owner
        self.confirmed = False
        self.last_address: Address | None = None
