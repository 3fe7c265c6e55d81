"""The outgoing half of a link: seals its record and sends it, as its path allows.

How large datagrams may be (tincan.pmtu), how much may wait before the device (tincan.backlog) and
how long records may be where datagrams are lost (tincan.loss) is decided here.
"""

from collections import Counter
from typing import Final

from tincan.backlog import FLOOR, Backlog
from tincan.loss import Loss, cut
from tincan.packing import OpenRecord
from tincan.path import Path
from tincan.pmtu import BASE, PathMtu
from tincan.session import Session
from tincan.transmit import PathTooSmall, transmit
from tincan.wire import SIZE, TAG_SIZE, Item, item

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
        self.tx_bytes = 0  # of records, tags included
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
        if (now >= self._look_at or self.tx_bytes >= self._look_after) and self._look(now):
            return
        path, key = self.path, self.session.sealing
        if path is None or key is None:
            self._not_sent()
            return
        self.record.seal(key, self.body, path.channel)
        self._transmit(path, now, 1)

    def _look(self, now: float) -> bool:
        """See to what not every record need ask for; return whether that was the record's end.

        While a queue stands or datagrams are lost, every record does ask.
        """
        self._look_at, self._look_after = now + LOOK_INTERVAL, self.tx_bytes + LOOK_BYTES
        record, path = self.record, self.path
        if path is None or path.socket is None:
            return False
        queued = path.socket.unsent()
        record.keep_short(queued > FLOOR)
        if queued > FLOOR or self.loss.share:
            self._look_at = now
        large = record.fill > self.body
        if not self._backlog.has_room(self.tx_bytes, queued, now) and large:
            self._counters["frames_dropped.device_backlog"] += record.clear()
            return True
        if now >= self._traffic_due and record.fill > SMALL:
            self._note_traffic(record.fill + TAG_SIZE, now)
        longest = self.loss.longest(now) if large and self.loss.share else None
        if longest is None:
            return False
        self._send_protected(path, now, longest)
        return True

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
        return self._transmit(path, now, 1, body)

    def _send_protected(self, path: Path, now: float, longest: int) -> None:
        """Send what was packed in records of up to ``longest`` datagrams, each with its parity."""
        record, key, body = self.record, self.session.sealing, self.body
        if key is None:
            self._not_sent()
            return
        items = bytes(record.view[: record.fill])
        record.clear()
        records = 0
        longest = min(longest, len(record.view) // body - 1)
        for part, frames in cut(items, longest * body):
            datagrams = -(-(len(part) + TAG_SIZE) // body)
            if record.fill + (datagrams + 1) * body > len(record.view):
                self._transmit(path, now, records)
                records = 0
            if datagrams > 1:  # all bodies of one size: the rest is padding
                part = part.ljust(datagrams * body - TAG_SIZE, b"\0")
            record.append(part)
            record.frames += frames
            record.seal(key, body, path.channel)
            records += 1
            if datagrams > 1:
                record.protect()
            elif record.last < body:
                self._transmit(path, now, records)
                records = 0
        if records:
            self._transmit(path, now, records)

    def _transmit(self, path: Path, now: float, records: int, body: int = 0) -> bool:
        """Send what is sealed, so many records; return whether all of it left."""
        record = self.record
        try:
            sent = transmit(path, record, self._counters)
        except PathTooSmall:
            self._too_small(path, now, body)
            sent = False
        if not sent:
            return self._not_sent()
        datagrams = record.count
        self.tx_bytes += (datagrams - 1) * record.slots.size + record.last
        self.tx_records += records
        self.tx_datagrams += datagrams
        self.tx_frames += record.clear()
        return True

    def _not_sent(self) -> bool:
        frames = self.record.clear()
        if frames:
            self._counters["frames_dropped.not_sent"] += frames
        return False

    def _too_small(self, path: Path, now: float, body: int) -> None:
        """The kernel says that the path takes less than we sent."""
        if not body:
            self._counters["records_dropped.too_big"] += 1
        if self._pmtu is not None:
            overhead = BASE - path.body(BASE)
            self._pmtu.too_big((body or self.body) + overhead, now)
            self._resize()

    def _note_traffic(self, size: int, now: float) -> None:
        """Tell path MTU discovery that its size is in use; not at every record."""
        self._traffic_due = now + TRAFFIC_INTERVAL
        pmtu = self._pmtu
        if pmtu is not None:
            pmtu.sent(pmtu.mtu - max(self.body - size, 0), now)
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
