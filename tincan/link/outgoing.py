"""The outgoing half of a link: seals what was packed for it and sends it, as its path allows.

1. ``flush``: may a large record follow what waits before our device (backlog), and how long may
   records be where datagrams are lost (loss)?
2. ``seal``, ``seal_protected``: the batch (record.batch) encrypts itself.
3. ``_send_sealed``: the carrier takes the batch, or says that it is too large (pmtu).
"""

from collections import Counter
from collections.abc import Callable
from typing import Final

from tincan.errors import PathTooSmall
from tincan.link.backlog import FLOOR, Backlog
from tincan.link.items import mtu_probe
from tincan.link.loss import Loss, cut
from tincan.link.pmtu import BASE, PathMtu
from tincan.path.path import Carrier
from tincan.record.batch import Batch
from tincan.record.keys import SealingKey
from tincan.record.layout import MAX_RECORD, TAG_SIZE
from tincan.session.session import Session

SMALL: Final = BASE - 200
"""Bytes of a record whose only datagram is below BASE for certain."""
TRAFFIC_INTERVAL_S: Final = 0.05
"""Time between two words to path MTU discovery, which asks every 0.5 s."""
LOOK_INTERVAL_S: Final = 0.001
"""Time between two looks at a queue that does not stand."""
LOOK_BYTES: Final = 1 << 20
"""Bytes sent without a look at the most."""


class Outgoing:
    """What one link sends. ``batch``: where frames are packed for it.

    ``carrier``: where records go, None while there is no path; ``begin`` and ``follow`` set it.
    ``arm`` is called with the time at which ``probe_mtu`` must be called, or earlier.
    """

    def __init__(
        self,
        batch: Batch,
        session: Session,
        counters: Counter[str],
        arm: Callable[[float], None],
        now: float,
    ) -> None:
        self.batch = batch
        self.carrier: Carrier | None = None
        self.body = 0  # bytes of record in one datagram
        self.tx_bytes = 0  # of records: tags, padding and parities included
        self.tx_frames = self.tx_records = self.tx_datagrams = 0
        self.loss = Loss()
        self._session = session
        self._counters = counters
        self._arm = arm
        self._backlog = Backlog(now)
        self._look_at = 0.0  # when flush has to look about it
        self._look_after = 0  # or with so many bytes sent
        self._pmtu: PathMtu | None = None
        self._traffic_due = 0.0

    # --- the path

    def begin(self, carrier: Carrier, mtu_probing: bool, now: float) -> None:
        """Send by ``carrier`` from now on; nothing is known of its path yet."""
        self.carrier = carrier
        self._pmtu = PathMtu(carrier.overhead, now) if mtu_probing else None
        self._traffic_due = 0.0
        self._backlog = Backlog(now, self.tx_bytes)
        self._look_at = now
        self.loss = Loss()
        self._resize()

    def follow(self, carrier: Carrier) -> None:
        """Send by ``carrier``, whose path is the same but for the peer's address."""
        self.carrier = carrier

    def end(self) -> None:
        """Send nothing any more."""
        self.carrier = None

    @property
    def mtu(self) -> int | None:
        """The path MTU in use, as the size of an IP packet; None: there is no path."""
        if self._pmtu is not None:
            return self._pmtu.mtu
        return BASE if self.carrier is not None else None

    def _resize(self) -> None:
        """Take over what path MTU discovery found."""
        carrier, mtu = self.carrier, self.mtu
        if mtu is not None and carrier is not None:
            self.body = carrier.body(mtu)

    # --- frames

    def flush(self, now: float) -> None:
        """Seal and send what was packed, or drop it: too much waits before the device."""
        batch, carrier, key = self.batch, self.carrier, self._session.sealing
        if carrier is None or key is None:
            self._drop()
            return
        large = batch.fill > self.body - TAG_SIZE
        if large and (now >= self._look_at or self.tx_bytes >= self._look_after):
            if not self._device_has_room(carrier, now):
                self._counters["frames_dropped.device_backlog"] += batch.clear()
                return
            longest = self.loss.longest(now) if self.loss.share else None
            if longest is not None:
                self._send_protected(carrier, key, now, longest)
                return
        batch.seal(key, self.body, carrier.channel)
        self._send_sealed(carrier, now)

    def _device_has_room(self, carrier: Carrier, now: float) -> bool:
        """Return whether a large record may follow what waits before our device.

        That is asked once in LOOK_INTERVAL_S, but for every record while a queue stands (or while
        datagrams are lost: ``longest`` is asked at the same time).
        """
        self._look_at, self._look_after = now + LOOK_INTERVAL_S, self.tx_bytes + LOOK_BYTES
        queued = carrier.unsent()
        self.batch.limit(in_queue=queued > FLOOR)
        if queued > FLOOR or self.loss.share:
            self._look_at = now
        return self._backlog.has_room(self.tx_bytes, queued, now)

    def _send_protected(self, carrier: Carrier, key: SealingKey, now: float, longest: int) -> None:
        """Send what was packed in records of up to ``longest`` datagrams, each with its parity."""
        batch, body, channel = self.batch, self.body, carrier.channel
        longest = min(longest, MAX_RECORD // body - 1)
        if batch.fill + TAG_SIZE <= longest * body:
            batch.seal_protected(key, body, channel)
            self._send_sealed(carrier, now)
            return
        for part, frames in cut(batch.take(), longest * body):
            if not batch.fits(len(part), body):
                self._send_sealed(carrier, now)
            batch.append(part, frames)
            batch.seal_protected(key, body, channel)
            if not batch.open_ended:
                self._send_sealed(carrier, now)
        if batch.records:
            self._send_sealed(carrier, now)

    # --- other items

    def send(self, items: bytes, now: float, *, by: Carrier | None = None, body: int = 0) -> bool:
        """Seal ``items`` with what was packed and send them; return whether they left.

        ``by``: another carrier than the link's. ``body``: another datagram size than the link's, as
        for a path that is being tried.
        """
        batch, carrier, key = self.batch, by or self.carrier, self._session.sealing
        batch.append(items)
        if key is None or carrier is None:
            return self._drop()
        batch.seal(key, body or self.body, carrier.channel)
        return self._send_sealed(carrier, now, body)

    # --- sealed records

    def _send_sealed(self, carrier: Carrier, now: float, body: int = 0) -> bool:
        """Send what is sealed; return whether all of it left. ``body``: as for ``send``."""
        try:
            sent = self.batch.send_by(carrier)
        except PathTooSmall:
            self._too_small(carrier, now, body)
            sent = None
        if sent is None:
            return self._drop()
        size, datagrams, records, frames = sent
        self.tx_bytes += size
        self.tx_records += records
        self.tx_datagrams += datagrams
        self.tx_frames += frames
        if now >= self._traffic_due and (datagrams > 1 or size > SMALL) and not body:
            self._note_traffic(datagrams, size, now)
        return True

    def _drop(self) -> bool:
        """Drop all that was packed or sealed; return False."""
        frames = self.batch.clear()
        if frames:
            self._counters["frames_dropped.not_sent"] += frames
        return False

    # --- path MTU discovery

    def _too_small(self, carrier: Carrier, now: float, body: int) -> None:
        """Note that the kernel says that the path takes less than we sent."""
        if not body:
            self._counters["records_dropped.too_big"] += self.batch.records
        if self._pmtu is not None:
            overhead = BASE - carrier.body(BASE)
            self._pmtu.too_big((body or self.body) + overhead, now)
            self._resize()

    def _note_traffic(self, datagrams: int, size: int, now: float) -> None:
        """Tell path MTU discovery that its size is in use; not at every record."""
        self._traffic_due = now + TRAFFIC_INTERVAL_S
        pmtu = self._pmtu
        if pmtu is not None:
            pmtu.sent(pmtu.mtu if datagrams > 1 else pmtu.mtu - self.body + size, now)
            self._arm(pmtu.deadline)

    def mtu_answered(self, size: int, now: float) -> None:
        """Note that a packet of ``size`` bytes has arrived at the peer."""
        if self._pmtu is not None:
            self._pmtu.acknowledged(size, now)
            self._resize()

    def probe_mtu(self, now: float) -> None:
        """Send the probes that are due. Call this at ``deadline``."""
        carrier = self.carrier
        if self._pmtu is None or carrier is None or self._session.sealing is None:
            return
        for mtu in self._pmtu.tick(now):
            body = carrier.body(mtu)
            self.send(mtu_probe(mtu, body - TAG_SIZE), now, body=body)
        self._resize()

    @property
    def deadline(self) -> float:
        """When ``probe_mtu`` must be called."""
        return float("inf") if self._pmtu is None else self._pmtu.deadline
