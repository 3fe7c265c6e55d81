"""A record that nobody sends: the pump's way of staying warm between frames near each other.

What a frame's way needs of the processor's caches (some 1,500 lines of 64 bytes) is gone 3 ms later
where other machines use the same processor, and a first frame takes ten times as long as a second
one: 0.2 ms instead of 0.02, at either end, which is what an idle ping shows. So a small record is
sealed and opened with a key of its own, as far as nobody sees it.
"""

from types import SimpleNamespace
from typing import Any, Final, cast

from tincan.crypto.primitives import KEY_SIZE, Aead, random_bytes
from tincan.device.udp import Address
from tincan.pump.ingress import Ingress, Source
from tincan.record.keys import OpeningKey, SealingKey
from tincan.record.landing import FIRST_SLOT
from tincan.record.layout import HEADER_SIZE
from tincan.record.outgoing import OpenRecord

INDEX: Final = 0  # of the receiver: no session's index is 0
ITEMS: Final = bytes(98)  # padding, of an echo request's size
NOWHERE: Final[Address] = ("", 0)


class Rehearsal:
    """Goes through sealing and ``ingress``."""

    def __init__(self, ingress: Ingress) -> None:
        nobody = SimpleNamespace(rx_bytes=0, liveness=SimpleNamespace(heard=0.0))
        aead = Aead(random_bytes(KEY_SIZE))
        self._record = OpenRecord()
        self._sealing = SealingKey(aead, INDEX, 0.0)
        self._ingress = ingress
        self._source = Source(*cast(Any, (None, nobody, None)))
        self._opening = OpeningKey(aead, INDEX, 0.0, nobody)
        self._opening.last_address = NOWHERE

    def go(self, now: float) -> None:
        """Once through."""
        record = self._record
        record.append(ITEMS)
        record.seal(self._sealing, FIRST_SLOT, None)
        size = record.last
        record.clear()
        header = record.slots.headers[:HEADER_SIZE]
        keys = self._ingress.keys
        keys[INDEX] = self._opening  # for now only: strangers know this index
        try:
            self._ingress.land(self._source, header, record.view[:size], NOWHERE, now)
        finally:
            del keys[INDEX]
