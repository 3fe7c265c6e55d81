"""A record that nobody sends: the pump's way of staying warm between frames close together.

What a frame's way needs of the processor's caches (some 1,500 lines of 64 bytes) is gone 3 ms later
where other machines use the same processor, and a first frame takes ten times as long as a second
one: 0.2 ms instead of 0.02, at either end, which is what an idle ping shows. So a small record is
sealed and opened with a key of its own, as far as nobody sees it.
"""

from typing import Final

from tincan.crypto.primitives import KEY_SIZE, Aead, random_bytes
from tincan.device.device import Address
from tincan.pump.ingress import NOWHERE, Ingress
from tincan.record.batch import Batch
from tincan.record.keys import OpeningKey, Received, SealingKey
from tincan.record.landing import FIRST_SLOT
from tincan.record.layout import HEADER_SIZE
from tincan.record.pages import Pool
from tincan.record.port import Port

INDEX: Final = 0
"""Our receiver index: no session's index is 0."""
ITEMS: Final = bytes(98)
"""Padding, of an echo request's size."""


class _Nobody:
    """A recipient that is told nothing: padding from the last address is nobody's business."""

    def __init__(self) -> None:
        self.rx = Received()

    def heard(self, key: OpeningKey, port: Port, address: Address | None, now: float) -> None:
        """Do nothing."""

    def missed(self, key: OpeningKey, now: float) -> None:
        """Do nothing."""

    def control(self, kind: int, payload: bytes, port: Port, now: float) -> None:
        """Do nothing."""


class Rehearsal:
    """Goes through sealing and ``ingress``."""

    def __init__(self, ingress: Ingress, pool: Pool) -> None:
        aead = Aead(random_bytes(KEY_SIZE))
        self._batch = Batch(pool)
        self._sealing = SealingKey(aead, INDEX, 0.0)
        self._ingress = ingress
        self._port = Port(None, self, lambda *_: None)
        self._opening = OpeningKey(aead, INDEX, 0.0, _Nobody())
        self._opening.last_address = NOWHERE

    def run_once(self, now: float) -> None:
        """Seal one record and open it."""
        batch = self._batch
        batch.append(ITEMS)
        batch.seal(self._sealing, FIRST_SLOT, None)
        datagram = next(batch.datagrams())
        batch.clear()
        header, body = datagram[:HEADER_SIZE], memoryview(datagram)[HEADER_SIZE:]
        keys = self._ingress.keys
        keys[INDEX] = self._opening  # for now only: strangers know this index
        try:
            self._ingress.land(self._port, header, body, NOWHERE, now)
        finally:
            del keys[INDEX]
