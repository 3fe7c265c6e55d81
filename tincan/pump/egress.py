"""From the TAP to the links: one wake-up packs what waits there, and has it sent.

1. A frame is read straight into the open record of the link that the last frame went to: traffic
   comes in runs, so that is nearly always right.
2. Where it belongs is remembered for each flow (switching.policy.routes), or decided anew.
3. A frame that belongs elsewhere is copied (``Batch.pack``), or held by a link that is not up.
4. A full record is sent at once; all that were begun, before the wake-up ends: nothing waits for
   company that has not arrived yet.
"""

from collections import Counter
from typing import Final, Generic

from tincan.device.device import Device
from tincan.device.vnet import NO_VNET
from tincan.pump.outlet import OutletT
from tincan.record.batch import Batch
from tincan.record.layout import FRAME_WORD, ITEM, ITEM_SIZE, MAX_FRAME, VNET_SIZE
from tincan.record.pages import Pool
from tincan.switching.frame import ETHERNET
from tincan.switching.policy import SUSPECTS, Policy, looks_suspect

TAP_BUDGET: Final = 128
"""Frames in one wake-up; then the sockets have their turn."""
QUIET_S: Final = 0.001
"""Time without a wake-up after which a small first frame is sent alone.

Waiting for a second read would cost a ping 2 us, and there is hardly ever a second frame.
"""
LONE: Final = 2048
"""Bytes of record up to which a first frame counts as small."""
_BUDGET: Final = range(TAP_BUDGET)
_FRAME_AT: Final = ITEM_SIZE + VNET_SIZE
_ROOM: Final = ITEM_SIZE + MAX_FRAME


class Egress(Generic[OutletT]):
    """Reads the device."""

    def __init__(
        self, device: Device, policy: Policy[OutletT], counters: Counter[str], pool: Pool
    ) -> None:
        self._device = device
        self._policy = policy
        self._counters = counters
        self._scratch = Batch(pool)
        self._favourite: OutletT | None = None
        self._woken = 0.0  # when last
        self._lead = ITEM_SIZE if device.offloads.vnet_hdr else _FRAME_AT

    def wake(self, now: float) -> bool:
        """Move what waits at the device, at most TAP_BUDGET frames; return whether anything did."""
        routes = self._policy.routes
        device = self._device
        read, fd = device.read, device.fd
        header, pack = ETHERNET.unpack_from, ITEM.pack_into
        lead = self._lead
        room = _ROOM - lead
        favourite = self._favourite
        record = favourite.record if favourite is not None and favourite.up else self._scratch
        if record.fill:  # whatever went wrong when it was to be sent
            self._counters["frames_dropped.not_sent"] += record.clear()
        view, fill = record.view, 0
        begun: list[OutletT] = []
        quiet = now - self._woken > QUIET_S
        self._woken = now
        for turn in _BUDGET:
            at = fill + lead
            size = read(fd, record.address + at, room)
            if size < 0:
                if device.refused():
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
                link.record.pack(view[fill + ITEM_SIZE : end])
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

    def _decide(self, item: memoryview, begun: list[OutletT], now: float) -> None:
        """Ask the policy about a frame (virtio header first) and do as it says."""
        links = self._policy.route(item[VNET_SIZE:], now)
        for link in links:
            if not link.up:
                link.hold(bytes(item), now)
                continue
            link.record.pack(item)
            if link not in begun:
                begun.append(link)
        for link in links:  # only now: the item may lie in a buffer that sealing overwrites
            if link.record.fill >= link.record.full:
                link.flush(now)
