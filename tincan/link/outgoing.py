"""The outgoing half of a link: seals its record and sends it, as its path allows.

How large datagrams may be (pmtu), how much may wait before the device (backlog) and
how long records may be where datagrams are lost (loss) is decided here.
"""

from collections import Counter
from typing import Final

from tincan.link.backlog import FLOOR, Backlog
from tincan.link.loss import Loss, cut
from tincan.link.pmtu import BASE, PathMtu
from tincan.path.direct import PathTooSmall, transmit
from tincan.path.path import Path
from tincan.record.keys import SealingKey
from tincan.record.layout import SIZE, TAG_SIZE, Item, item
from tincan.record.outgoing import OpenRecord
from tincan.session.session import Session

SMALL: Final = BASE - 200  # bytes of a record whose only datagram is below BASE for certain
TRAFFIC_INTERVAL: Final = 0.05  # s between two words to path MTU discovery: it asks every 0.5 s
LOOK_INTERVAL: Final = 0.001  # s between two looks at a queue that does not stand
LOOK_BYTES: Final = 1 << 20  # sent without a look at the most


class Sender:
    """What a link does to send. ``record``: where frames are packed for it."""

    session: Session  # set by the daemon: it owns this link in return

    def __init__(self, counters: Counter[str], now: float) -> None:
        self.record = OpenRecord()
        self.body = 0  # bytes of record in one datagram
        self.tx_bytes = 0  # of records: tags, padding and parities included
        self.tx_frames = self.tx_records = self.tx_datagrams = 0
        self.loss = Loss()
        self._counters = counters
        self._backlog = Backlog(now)
        self._look_at = 0.0  # when flush has to look about it
        self._look_after = 0  # or with so many bytes sent
        self._pmtu: PathMtu | None = None
        self._traffic_due = 0.0

    @property
    def path(self) -> Path | None:
        """Where frames go now."""
        raise NotImplementedError

    def _arm(self, at: float) -> None:
        """Have ``_probe_mtu`` called at ``at``, or earlier."""
        raise NotImplementedError

    def _begin(self, pmtu: PathMtu | None, now: float) -> None:
        """Know nothing yet of a new path."""
        self._pmtu = pmtu
        self._traffic_due = 0.0
        self._backlog = Backlog(now, self.tx_bytes)
        self._look_at = now
        self.loss = Loss()
        self._resize()

    @property
    def mtu(self) -> int | None:
        """The path MTU in use, as the size of an IP packet."""
        if self._pmtu is not None:
            return self._pmtu.mtu
        return BASE if self.path is not None else None

    def flush(self, now: float) -> None:
        """Seal and send what was packed, or drop it: too much waits before the device."""
        record, path, key = self.record, self.path, self.session.sealing
        if path is None or key is None:
            self._not_sent()
            return
        large = record.fill > self.body - TAG_SIZE
        if large and (now >= self._look_at or self.tx_bytes >= self._look_after):
            if not self._device_has_room(path, now):
                self._counters["frames_dropped.device_backlog"] += record.clear()
                return
            longest = self.loss.longest(now) if self.loss.share else None
            if longest is not None:
                self._send_protected(path, key, now, longest)
                return
        record.seal(key, self.body, path.channel)
        self._transmit(path, now)

    def _device_has_room(self, path: Path, now: float) -> bool:
        """Whether a large record may follow what waits before our device.

        That is asked once in LOOK_INTERVAL, but for every record while a queue stands (or datagrams
        are lost, for the sake of who asks that).
        """
        self._look_at, self._look_after = now + LOOK_INTERVAL, self.tx_bytes + LOOK_BYTES
        queued = path.socket.unsent() if path.socket is not None else 0
        self.record.keep_short(queued > FLOOR)
        if queued > FLOOR or self.loss.share:
            self._look_at = now
        return self._backlog.has_room(self.tx_bytes, queued, now)

    def _send(self, path: Path | None, now: float, body: int = 0, items: bytes = b"") -> bool:
        """Seal the record, with ``items`` if any, and send it by ``path``; return whether it left.

        ``body``: another datagram size than the link's, as for a path that is being tried.
        """
        record = self.record
        record.append(items)
        key = self.session.sealing
        if key is None or path is None:
            return self._not_sent()
        record.seal(key, body or self.body, path.channel)
        return self._transmit(path, now, body)

    def _send_protected(self, path: Path, key: SealingKey, now: float, longest: int) -> None:
        """Send what was packed in records of up to ``longest`` datagrams, each with its parity."""
        record = self.record
        longest = min(longest, len(record.view) // self.body - 1)
        if record.fill + TAG_SIZE <= longest * self.body:
            record.seal_protected(key, self.body, path.channel)
            self._transmit(path, now)
            return
        items = bytes(record.view[: record.fill])
        record.clear()
        for part, frames in cut(items, longest * self.body):
            if record.fill + len(part) + 2 * self.body > len(record.view):
                self._transmit(path, now)
            record.append(part)
            record.frames += frames
            record.seal_protected(key, self.body, path.channel)
            if record.last < self.body:  # nothing can follow
                self._transmit(path, now)
        if record.count:
            self._transmit(path, now)

    def _transmit(self, path: Path, now: float, body: int = 0) -> bool:
        """Send what is sealed; return whether all of it left."""
        record = self.record
        try:
            sent = transmit(path, record, self._counters)
        except PathTooSmall:
            self._too_small(path, now, body)
            sent = False
        if not sent:
            return self._not_sent()
        datagrams = record.count
        size = (datagrams - 1) * record.slots.size + record.last
        self.tx_bytes += size
        self.tx_records += record.records
        self.tx_datagrams += datagrams
        self.tx_frames += record.clear()
        if now >= self._traffic_due and (datagrams > 1 or size > SMALL) and not body:
            self._note_traffic(datagrams, size, now)
        return True

    def _not_sent(self) -> bool:
        frames = self.record.clear()
        if frames:
            self._counters["frames_dropped.not_sent"] += frames
        return False

    def _too_small(self, path: Path, now: float, body: int) -> None:
        """The kernel says that the path takes less than we sent."""
        if not body:
            self._counters["records_dropped.too_big"] += self.record.records
        if self._pmtu is not None:
            overhead = BASE - path.body(BASE)
            self._pmtu.too_big((body or self.body) + overhead, now)
            self._resize()

    def _note_traffic(self, datagrams: int, size: int, now: float) -> None:
        """Tell path MTU discovery that its size is in use; not at every record."""
        self._traffic_due = now + TRAFFIC_INTERVAL
        pmtu = self._pmtu
        if pmtu is not None:
            pmtu.sent(pmtu.mtu if datagrams > 1 else pmtu.mtu - self.body + size, now)
            self._arm(pmtu.deadline)

    def _resize(self) -> None:
        """Take over what path MTU discovery found."""
        path, mtu = self.path, self.mtu
        if mtu is not None and path is not None:
            self.body = path.body(mtu)

    def _probe_mtu(self, now: float) -> None:
        path = self.path
        if self._pmtu is None or path is None or self.session.sealing is None:
            return
        for mtu in self._pmtu.tick(now):
            body = path.body(mtu)
            probe = item(Item.MTU_PROBE, SIZE.pack(mtu))
            self._send(path, now, body, probe.ljust(body - TAG_SIZE, b"\0"))
        self._resize()
