"""What a path loses, and how long records may be there. Pure.

A record is lost with any one of its datagrams. At 1 % of them, one in three records of 45 is: a
flow of bbr that has 910 Mbit/s with single frames has 140. So each side tells the other what it
misses (the counters of records have no gaps but those), and a sender whose path loses gives each
record a parity (record.parity), and keeps it so short that two of its datagrams are seldom lost.
Super-frames are cut for that (device.segment): what TCP sent as one is then several. Without
losses there are no reports, and silence means that the path is clean again.
"""

import math
import struct
from collections.abc import Iterator
from typing import Final

from tincan.crypto.window import ReplayWindow
from tincan.device.segment import split
from tincan.errors import MalformedDatagram
from tincan.record.layout import ITEM, ITEM_SIZE, LENGTH_MASK, MAX_FRAGMENTS, TAG_SIZE, Item, item

REPORT = struct.Struct(">III")  # records since the last report: sent, lost, restored
REPORT_INTERVAL: Final = 0.1  # s between two reports
ENOUGH: Final = 32  # records that a report must be about
CLEAN: Final = 0.0003  # share of datagrams; below that, records need no parity
ACCEPTED: Final = 0.01  # share of records in which two datagrams may be lost, for longer ones
SHORTEST: Final = 8  # datagrams; more than an eighth of the path is not for parities
HALVED_AFTER: Final = 5.0  # s without a report in which the estimate is halved


class Loss:
    """Both ends of one link: what we miss, and what the peer says that it does."""

    __slots__ = ("_at", "_datagrams", "_records", "_reported", "_seen", "_window", "share")

    def __init__(self) -> None:
        self.share = 0.0  # of our datagrams, lost on the way
        self._at = 0.0  # of the last report from the peer, or when its estimate was halved
        self._records = self._datagrams = 0  # sent, until then
        self._reported = 0.0  # when we reported
        self._window: ReplayWindow | None = None
        self._seen = (0, 0, 0)  # what should have come, came, and was restored, until then

    # -- the receiver's side

    def gap(self, window: ReplayWindow, now: float) -> bytes:
        """Note that ``window`` has missed something; return a report to send, or nothing."""
        seen = window.top + 1, window.count, window.restored
        if window is not self._window:
            self._window, self._seen = window, seen
            return b""
        expected, came, restored = (new - old for new, old in zip(seen, self._seen, strict=True))
        if now < self._reported + REPORT_INTERVAL or expected < ENOUGH:
            return b""
        self._reported, self._seen = now, seen
        # Late ones may have come for earlier reports.
        return item(Item.LOSS, REPORT.pack(expected, max(expected - came, 0), max(restored, 0)))

    # -- the sender's side

    def reported(self, payload: bytes, records: int, datagrams: int, now: float) -> None:
        """Take the peer's report; ``records`` and ``datagrams``: how many we have sent by now.

        Raise struct.error if it is none.
        """
        expected, lost, restored = REPORT.unpack(payload)
        self._fade(now)
        sent = records - self._records
        per_record = (datagrams - self._datagrams) / sent if sent > 0 else 1.0
        self._records, self._datagrams, self._at = records, datagrams, now
        # A queue that overflows loses datagrams in a row, which no parity makes good. Were those
        # counted, too, parities would make it overflow all the more.
        hit = restored if self.share >= CLEAN else lost
        if ENOUGH <= expected >= hit:
            sample = hit / expected / max(per_record, 1.0)
            self.share = (self.share + sample) / 2 if self.share else sample

    def longest(self, now: float) -> int | None:
        """How many datagrams a record may have now, parity aside; None: it needs no parity."""
        self._fade(now)
        if self.share < CLEAN:
            return None
        # Of n + 1 datagrams two are lost with a probability of about (n share)^2 / 2.
        longest = int(math.sqrt(2 * ACCEPTED) / self.share)
        return min(max(SHORTEST, longest), MAX_FRAGMENTS - 1)

    def _fade(self, now: float) -> None:
        while self.share and now >= self._at + HALVED_AFTER:
            self._at += HALVED_AFTER
            self.share = self.share / 2 if self.share >= CLEAN else 0.0


def cut(items: bytes, limit: int) -> Iterator[tuple[bytes, int]]:
    """Yield the plaintexts of records of up to ``limit`` bytes, tag included, that say the same as
    ``items``, each with the number of its frames. A frame that cannot be split stays whole."""
    room = limit - TAG_SIZE
    pieces: list[bytes] = []
    filled = at = 0
    while at < len(items):
        at += ITEM_SIZE
        size = ITEM.unpack_from(items, at - ITEM_SIZE)[0] & LENGTH_MASK
        packet = items[at : at + size]
        at += size
        for part in _split(packet, room - ITEM_SIZE) if size > room else (packet,):
            if pieces and filled + ITEM_SIZE + len(part) > room:
                yield b"".join(pieces), len(pieces)
                pieces, filled = [], 0
            pieces.append(item(Item.FRAME, part))
            filled += ITEM_SIZE + len(part)
    if pieces:
        yield b"".join(pieces), len(pieces)


def _split(packet: bytes, limit: int) -> list[bytes]:
    try:
        return split(packet, limit)
    except MalformedDatagram:  # the receiver will say so
        return [packet]
