"""The two keys of a direction: one seals records here, its twin opens them at the peer. Pure.

A session (session.session) makes them and forgets them.

Only what sends records counts ``SealingKey.counter`` up, and only what opens records moves
``OpeningKey.window``: the two objects share nothing.
"""

from typing import Any

from tincan.crypto.primitives import Aead
from tincan.crypto.window import ReplayWindow


class SealingKey:
    """A key that seals records for the peer.

    ``receiver``: the peer's index for it, as every header says. ``counter``: the next to use;
    the sender of records takes it and adds one before it seals. ``born``: seconds, monotonic.
    """

    __slots__ = ("aead", "born", "counter", "receiver")

    def __init__(self, aead: Aead, receiver: int, born: float) -> None:
        self.aead = aead
        self.receiver = receiver
        self.counter = 0
        self.born = born


class OpeningKey:
    """A key that opens records of the peer's.

    ``index``: ours, as the peer's headers say. ``owner``: whose records these are, as the session
    was told. ``confirmed``: a record has authenticated under it; until then call Session.opened()
    for each that does. ``last_address``: where the last record came from, None when the next
    one must be looked at again; the hot path compares it by identity, since udp.receive hands
    out the same tuple for the same address.
    """

    __slots__ = ("aead", "born", "confirmed", "index", "last_address", "owner", "window")

    def __init__(self, aead: Aead, index: int, born: float, owner: object) -> None:
        self.aead = aead
        self.index = index
        self.window = ReplayWindow()
        self.born = born
        self.owner = owner
        self.confirmed = False
        self.last_address: tuple[Any, ...] | None = None
