"""From the TAP to the links: one wake-up packs what waits there, seals, and sends.

Frames are read straight into the open record of the link that the last frame went to: traffic
comes in runs, so that is nearly always right, and a frame that belongs elsewhere is copied.
Every record begun in a wake-up is sent before it ends: nothing waits for company that has not
arrived yet. What is decided about a flow (destination, source, EtherType) is remembered until
the policy changes.
"""

from collections import Counter
from typing import Final, NamedTuple

from tincan.forwarding import Entry
from tincan.frame import ETHERNET_SIZE
from tincan.link import Link
from tincan.packing import OpenRecord
from tincan.policy import REMEMBERED_TYPES, SUSPECTS, Flood, Policy, Unicast, looks_suspect
from tincan.tap import Tap
from tincan.wire import (
    FRAME_WORD,
    ITEM,
    ITEM_SIZE,
    MAX_FRAME,
    RECORD_FULL,
    VNET_SIZE,
)

TAP_BUDGET: Final = 128  # frames per wake-up; then the sockets have their turn
MAX_FLOWS: Final = 8192  # remembered; more than that are forgotten all at once
NO_VNET: Final = bytes(VNET_SIZE)


class Flow(NamedTuple):
    """A remembered decision. ``protocol`` is where the frame tells its L4 protocol."""

    link: Link
    source: Entry[Link] | None
    protocol: int


class Egress:
    """Reads the TAP."""

    def __init__(self, tap: Tap, policy: Policy[Link], counters: Counter[str]) -> None:
        self._tap = tap
        self._policy = policy
        self._counters = counters
        self._flows: dict[bytes, Flow] = {}
        self._generation = -1
        self._scratch = OpenRecord()
        self._favourite: Link | None = None
        self._lead = ITEM_SIZE if tap.offloads.vnet_hdr else ITEM_SIZE + VNET_SIZE

    def wake(self, now: float) -> bool:
        """Move what waits at the TAP, at most TAP_BUDGET frames; return whether anything did."""
        policy = self._policy
        flows = self._flows
        if self._generation != policy.generation:
            flows.clear()
            self._generation = policy.generation
        readinto = self._tap.readinto
        lead = self._lead
        begun: list[Link] = []
        favourite = self._favourite
        record = favourite.record if favourite is not None and favourite.up else self._scratch
        for _ in range(TAP_BUDGET):
            fill = record.fill
            view = record.view
            try:
                size = readinto(view[fill + lead : fill + ITEM_SIZE + MAX_FRAME])
            except OSError:
                self._counters["tap_read_errors"] += 1  # EBADFD: the device is down or gone
                break
            if size is None:
                break
            start = fill + ITEM_SIZE + VNET_SIZE
            end = fill + lead + size
            flow = flows.get(bytes(view[start : start + ETHERNET_SIZE]))
            if flow is None or (
                view[start + flow.protocol] in SUSPECTS
                and looks_suspect(view, start, flow.protocol)
            ):
                if lead != ITEM_SIZE:
                    view[fill + ITEM_SIZE : start] = NO_VNET
                self._decide(view[fill + ITEM_SIZE : end], begun, now)
                if self._generation != policy.generation:
                    flows.clear()
                    self._generation = policy.generation
                continue
            link = flow.link
            if flow.source is not None:
                flow.source.seen = now
            if lead != ITEM_SIZE:
                view[fill + ITEM_SIZE : start] = NO_VNET
            if link.record is not record:
                if not link.up:
                    link.hold(bytes(view[fill + ITEM_SIZE : end]), now)
                    continue
                _pack(link, view[fill + ITEM_SIZE : end])
                favourite, record = link, link.record
            else:
                ITEM.pack_into(view, fill, FRAME_WORD | end - fill - ITEM_SIZE)
                record.fill = end
                record.frames += 1
            if link not in begun:
                begun.append(link)
            if record.fill >= RECORD_FULL:
                link.flush(now)
        self._favourite = favourite
        for link in begun:
            if link.record.fill:
                link.flush(now)
        return bool(begun)

    def _decide(self, item: memoryview, begun: list[Link], now: float) -> None:
        """Ask the policy about a frame (virtio header first) and do as it says."""
        frame = item[VNET_SIZE:]
        decision = self._policy.route(frame, now)
        if decision is None:
            return
        if isinstance(decision, Flood):
            self._counters["frames_flooded"] += 1
            links = decision.links
        else:
            links = [decision.link]
            if decision.remember:
                self._remember(frame, decision)
        for link in links:
            if not link.up:
                link.hold(bytes(item), now)
                continue
            _pack(link, item)
            if link not in begun:
                begun.append(link)
        for link in links:  # only now: the item may lie in a buffer that sealing overwrites
            if link.record.fill >= RECORD_FULL:
                link.flush(now)

    def _remember(self, frame: memoryview, decision: Unicast[Link]) -> None:
        if len(self._flows) >= MAX_FLOWS:
            self._flows.clear()
        key = bytes(frame[:ETHERNET_SIZE])
        protocol = REMEMBERED_TYPES[int.from_bytes(key[12:], "big")]
        self._flows[key] = Flow(decision.link, decision.source, protocol)


def _pack(link: Link, item: memoryview) -> None:
    """Copy a frame into the link's record. Where it was read may be that very place."""
    record = link.record
    start = record.fill + ITEM_SIZE
    end = start + len(item)
    record.view[start:end] = item
    ITEM.pack_into(record.view, record.fill, FRAME_WORD | len(item))
    record.fill = end
    record.frames += 1
