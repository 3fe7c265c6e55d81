"""From the TAP to the links: one wake-up packs what waits there, seals, and sends.

Frames are read straight into the open record of the link that the last frame went to: traffic
comes in runs, so that is nearly always right, and a frame that belongs elsewhere is copied.
Every record begun in a wake-up is sent before it ends: nothing waits for company that has not
arrived yet. What the policy has said about a flow (destination, source, EtherType) it remembers
until something changes.
"""

from collections import Counter
from typing import Final

from tincan.device.tap import Tap
from tincan.link.link import Link
from tincan.record.layout import FRAME_WORD, ITEM, ITEM_SIZE, MAX_FRAME, VNET_SIZE
from tincan.record.outgoing import OpenRecord
from tincan.switching.frame import ETHERNET
from tincan.switching.policy import SUSPECTS, Policy, looks_suspect

TAP_BUDGET: Final = 128  # frames per wake-up; then the sockets have their turn
QUIET: Final = 0.001  # s without a wake-up; the first frame after that is alone, in all likelihood
LONE: Final = 2048  # bytes; then a frame below that goes at once, before we ask for a second
NO_VNET: Final = bytes(VNET_SIZE)
_BUDGET: Final = range(TAP_BUDGET)
_FRAME_AT: Final = ITEM_SIZE + VNET_SIZE
_ROOM: Final = ITEM_SIZE + MAX_FRAME


class Egress:
    """Reads the TAP."""

    def __init__(self, tap: Tap, policy: Policy[Link], counters: Counter[str]) -> None:
        self._tap = tap
        self._policy = policy
        self._counters = counters
        self._scratch = OpenRecord()
        self._favourite: Link | None = None
        self._woken = 0.0  # when last
        self._lead = ITEM_SIZE if tap.offloads.vnet_hdr else _FRAME_AT

    def wake(self, now: float) -> bool:
        """Move what waits at the TAP, at most TAP_BUDGET frames; return whether anything did."""
        routes = self._policy.routes
        read, fd = self._tap.read, self._tap.fd
        header, pack = ETHERNET.unpack_from, ITEM.pack_into
        lead = self._lead
        room = _ROOM - lead
        favourite = self._favourite
        record = favourite.record if favourite is not None and favourite.up else self._scratch
        if record.fill:  # whatever went wrong when it was to be sent
            self._counters["frames_dropped.not_sent"] += record.clear()
        view, fill = record.view, 0
        begun: list[Link] = []
        quiet = now - self._woken > QUIET
        self._woken = now
        for turn in _BUDGET:
            at = fill + lead
            size = read(fd, record.address + at, room)
            if size < 0:
                if self._tap.refused():
                    self._counters["tap_read_errors"] += 1  # EBADFD: the device is down or gone
                break
            start = fill + _FRAME_AT
            end = at + size
            if lead == _FRAME_AT:
                view[fill + ITEM_SIZE : start] = NO_VNET
            route = routes.get(header(view, start)[0])
            if route is not None:
                link, source, protocol = route
                if view[start + protocol] in SUSPECTS and looks_suspect(view, start, protocol):
                    route = None
            if route is None:
                self._decide(view[fill + ITEM_SIZE : end], begun, now)
                fill = record.fill
                continue
            if source is not None:
                source.seen = now
            if link.record is record:
                pack(view, fill, FRAME_WORD | end - fill - ITEM_SIZE)
                record.fill = fill = end
                record.frames += 1
            elif link.up:
                _pack(link, view[fill + ITEM_SIZE : end])
                favourite, record = link, link.record
                view, fill = record.view, record.fill
            else:
                link.hold(bytes(view[fill + ITEM_SIZE : end]), now)
                continue
            if fill >= record.full or (quiet and not turn and fill < LONE):
                link.flush(now)
                fill = 0
            if link not in begun:
                begun.append(link)
        self._favourite = favourite
        for link in begun:
            if link.record.fill:
                link.flush(now)
        return bool(begun)

    def _decide(self, item: memoryview, begun: list[Link], now: float) -> None:
        """Ask the policy about a frame (virtio header first) and do as it says."""
        links = self._policy.route(item[VNET_SIZE:], now)
        for link in links:
            if not link.up:
                link.hold(bytes(item), now)
                continue
            _pack(link, item)
            if link not in begun:
                begun.append(link)
        for link in links:  # only now: the item may lie in a buffer that sealing overwrites
            if link.record.fill >= link.record.full:
                link.flush(now)


def _pack(link: Link, item: memoryview) -> None:
    """Copy a frame into the link's record. Where it was read may be that very place."""
    record = link.record
    start = record.fill + ITEM_SIZE
    end = start + len(item)
    record.view[start:end] = item
    ITEM.pack_into(record.view, record.fill, FRAME_WORD | len(item))
    record.fill = end
    record.frames += 1
