"""What becomes of a frame: to which links it goes, or why it goes nowhere. Pure.

Both directions ask here once per flow and remember the answers that they may keep in ``routes`` and
``admissions``, which are emptied when one of them may no longer hold.
Every refusal raises ``frames_dropped.REASON``; what is left to the controller is not a drop and
raises ``frames_left_to_controller``.

Split horizon: what came in by a link goes to the TAP and never to another link.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from tincan.switching.bucket import TokenBucket
from tincan.switching.frame import (
    BROADCAST,
    ETHERNET_SIZE,
    UDP,
    Frame,
    Kind,
    NeverForward,
    classify,
    vlan_and_type,
)
from tincan.switching.table import LOCAL, Entry, Forwarding, Learned, Local

FLOOD_RATE: Final = 1000.0  # frames/s of one kind that one TAP floods, or one peer may send us
FLOOD_BURST: Final = 200.0

REMEMBERED_TYPES: Final = {0x0800: 23, 0x86DD: 20}  # EtherType -> offset of the L4 protocol
# L4 protocols that a remembered flow must look at again: UDP (DHCP), ICMPv6 (ND), and the IPv6
# headers that could hide them. Read as a set of byte values at the offset above.
SUSPECTS: Final = frozenset({17, 58, 0, 43, 44, 60})
SHORTEST: Final = {23: 38, 20: 58}  # bytes of a frame that looks_suspect may read
MAX_REMEMBERED: Final = 8192  # answers for each direction; more are forgotten all at once


class Peer(Hashable, Protocol):
    """What policy must know of a link."""

    @property
    def attended(self) -> bool:
        """Whether a controller is attached to the tincan at the other end."""

    @property
    def up(self) -> bool:
        """Whether frames can be sent to it now."""

    @property
    def blocked(self) -> bool:
        """Whether the other end has blocked its TAP: another node serves its segment."""


PeerT = TypeVar("PeerT", bound=Peer)


class Route(NamedTuple, Generic[PeerT]):
    """Frames with this header go to one link.

    ``source``: the table's entry, to keep fresh. ``protocol``: where a frame tells its L4 protocol.
    """

    link: PeerT
    source: Entry[PeerT] | None
    protocol: int


Deliver: TypeAlias = Callable[[memoryview], int | None]
"""Takes a frame, virtio header first, where it is to go; None: there is no room. Raises OSError."""


class Admission(NamedTuple, Generic[PeerT]):
    """Frames with this header go to ``deliver`` if ``link`` delivers them, with ``shortest`` bytes
    at least."""

    link: PeerT
    source: Entry[PeerT] | None
    protocol: int
    shortest: int
    deliver: Deliver


@dataclass(slots=True)
class Refused:
    """Frames of one kind that one peer sent and should not have."""

    count: int = 0
    last: float = 0.0


class Policy(Generic[PeerT]):
    """The decisions of one overlay. ``claimed`` hears of frames that contradict a pin.

    ``routes``, ``admissions``: what may be done with a frame without asking, by its first 14 bytes.
    """

    def __init__(
        self, counters: Counter[str], claimed: Callable[[bytes, int, PeerT | Local], None]
    ) -> None:
        self.table: Forwarding[PeerT] = Forwarding(self.changed)
        self.routes: dict[bytes, Route[PeerT]] = {}
        self.admissions: dict[bytes, Admission[PeerT]] = {}
        self.links: list[PeerT] = []  # all that exist, up or not
        self.never = NeverForward()
        self.attached = False  # a controller is attached here
        self.blocked = False  # our TAP is: another node serves the same segment
        self.deliver: Deliver = len  # to our TAP, once there is one: see ``deliver_by``
        self._counters = counters
        self._claimed = claimed
        self._out: dict[str, TokenBucket] = {}
        self._in: dict[tuple[PeerT, str], TokenBucket] = {}
        self._refused: dict[tuple[PeerT, Kind], Refused] = {}

    def changed(self) -> None:
        """Something has changed that decides about frames: forget all answers."""
        self.routes.clear()
        self.admissions.clear()

    def deliver_by(self, deliver: Deliver) -> None:
        """Have frames for our TAP go to ``deliver`` from now on."""
        self.deliver = deliver
        self.changed()

    def set_never(self, never: NeverForward) -> None:
        """Replace the never-forward set; beacons, malformed and gateway frames stay in it."""
        always = {Kind.MALFORMED, Kind.GATEWAY, Kind.BEACON}
        self.never = replace(never, kinds=never.kinds | always)
        self.changed()

    def set_attached(self, attached: bool) -> None:
        """Note that a controller came or went."""
        if attached != self.attached:
            self.attached = attached
            self.changed()

    def set_blocked(self, blocked: bool) -> None:
        """Let nothing pass in either direction, or again what the other rules let pass."""
        if blocked != self.blocked:
            self.blocked = blocked
            self.changed()

    def remove(self, link: PeerT) -> None:
        """Forget a link."""
        self.links.remove(link)
        self.table.forget(link)
        for key in [key for key in self._in if key[0] is link]:
            del self._in[key]
        for kind in Kind:
            self._refused.pop((link, kind), None)
        self.changed()

    def refused(self, link: PeerT) -> dict[str, Refused]:
        """What ``link`` has delivered that stays on its host, by kind."""
        found = {kind.value: self._refused.get((link, kind)) for kind in Kind}
        return {kind: refused for kind, refused in found.items() if refused is not None}

    # -- from the TAP to the links

    def route(self, frame: Frame, now: float) -> Sequence[PeerT]:
        """Return the links that a frame from our TAP goes to; if to none, that was counted."""
        if self.blocked:
            self._drop("loop_blocked")
            return ()
        kind = classify(frame, self.never)
        if kind in self.never.kinds:
            self._drop(kind.value)
            return ()
        destination, source = bytes(frame[:6]), bytes(frame[6:12])
        vlan, ethertype, payload = vlan_and_type(frame)
        learned = self.table.learn(source, vlan, LOCAL, now)
        if learned is Learned.CLAIMED:
            self._claimed(source, vlan, LOCAL)
        if destination[0] & 1:
            return self._flood(kind, "broadcast" if destination == BROADCAST else "multicast", now)
        entry = self.table.lookup(destination, vlan)
        if kind is Kind.NEIGHBOUR:
            return self._reply(entry)
        if entry is None:
            return self._flood(kind, "unknown_unicast", now)
        port = entry.port
        if isinstance(port, Local):
            self._drop("local_destination")
            return ()
        if (
            kind is Kind.PLAIN
            and payload == ETHERNET_SIZE  # not even a tag that says no more than a priority
            and ethertype in REMEMBERED_TYPES
            and learned is not Learned.CLAIMED
        ):
            if len(self.routes) >= MAX_REMEMBERED:
                self.routes.clear()
            protocol = REMEMBERED_TYPES[ethertype]
            known = self.table.lookup(source, vlan)
            self.routes[bytes(frame[:ETHERNET_SIZE])] = Route(port, known, protocol)
        return (port,)

    def _reply(self, entry: Entry[PeerT] | None) -> Sequence[PeerT]:
        """Decide about a unicast ARP reply or advertisement: the controllers' business, if any."""
        if entry is None:
            if self.attached:
                self._left()
            else:
                self._drop("reply_to_unknown")
            return ()
        port = entry.port
        if isinstance(port, Local):
            self._drop("local_destination")
            return ()
        if self.attached and port.attended:
            self._left()
            return ()
        return (port,)

    def _flood(self, kind: Kind, reason: str, now: float) -> Sequence[PeerT]:
        links = [link for link in self.links if link.up and not link.blocked]
        if kind is Kind.NEIGHBOUR and self.attached:
            links = [link for link in links if not link.attended]
            if not links:
                self._left()
                return ()
        bucket = self._out.get(reason)
        if bucket is None:
            bucket = self._out[reason] = TokenBucket(FLOOD_RATE, FLOOD_BURST)
        if not bucket.allow(now):
            self._drop(f"{reason}_policed")
            return ()
        self._counters["frames_flooded"] += 1
        return links

    # -- from a link to the TAP

    def admit(self, link: PeerT, frame: Frame, now: float) -> Deliver | None:
        """Return where a frame that ``link`` delivered goes; if nowhere, that was counted."""
        if self.blocked:
            self._drop("loop_blocked")
            return None
        kind = classify(frame, self.never)
        if kind in self.never.kinds:
            self._drop(f"{kind.value}_from_peer")
            refused = self._refused.setdefault((link, kind), Refused())
            refused.count += 1
            refused.last = now
            return None
        if kind is Kind.NEIGHBOUR and self.attached and link.attended:
            self._drop("neighbour_from_peer")  # two controllers speak for it: no frames
            return None
        destination, source = bytes(frame[:6]), bytes(frame[6:12])
        vlan, ethertype, payload = vlan_and_type(frame)
        learned = self.table.learn(source, vlan, link, now)
        if learned is Learned.CLAIMED:
            self._claimed(source, vlan, link)
            self._drop("source_claimed")
            return None
        if learned is Learned.FULL:
            self._counters["macs_not_learned"] += 1
        if destination[0] & 1:
            reason = "broadcast" if destination == BROADCAST else "multicast"
            bucket = self._in.get((link, reason))
            if bucket is None:
                bucket = self._in[link, reason] = TokenBucket(FLOOD_RATE, FLOOD_BURST)
            if not bucket.allow(now):
                self._drop(f"{reason}_policed_from_peer")
                return None
            return self.deliver
        entry = self.table.lookup(destination, vlan)
        if entry is not None and entry.port is not LOCAL:
            self._drop("not_ours")  # split horizon: we are not on its way
            return None
        if kind is Kind.PLAIN and payload == ETHERNET_SIZE and ethertype in REMEMBERED_TYPES:
            if len(self.admissions) >= MAX_REMEMBERED:
                self.admissions.clear()
            protocol = REMEMBERED_TYPES[ethertype]
            self.admissions[bytes(frame[:ETHERNET_SIZE])] = Admission(
                link, self.table.lookup(source, vlan), protocol, SHORTEST[protocol], self.deliver
            )
        return self.deliver

    def _drop(self, reason: str) -> None:
        self._counters[f"frames_dropped.{reason}"] += 1

    def _left(self) -> None:
        self._counters["frames_left_to_controller"] += 1


def looks_suspect(view: memoryview, start: int, protocol: int) -> bool:
    """Whether a frame of a remembered flow needs the policy again.

    UDP without IPv4 options, the bulk of what comes here, is let go by its destination port: 67
    and 68 are DHCP, 546 and 547 (0x222, 0x223) DHCPv6.
    """
    if view[start + protocol] != UDP:
        return protocol == 20 or view[start + 14] != 0x45
    if protocol == 20:
        return view[start + 56] == 2 and view[start + 57] in (0x22, 0x23)
    return view[start + 14] != 0x45 or (view[start + 36] == 0 and view[start + 37] in (67, 68))
