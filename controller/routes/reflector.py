"""Who is told what: the rules by which a node passes on what its peers announce.

A change goes to the subscribers of its VNI, but not back to the peer that made it. A route that
another source has announced already is told again; it is withdrawn only when its last source
withdraws it. What the node announces itself goes to every peer.

Whoever was told of a route of its own, by a replay or because another had it too, is told when it
goes. (The Go program does not tell it then, and such a route stays at older subscribers for ever.)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from controller.routes.channel import ENTRY_BYTES, NOBODY, Channel, Cursor, Entry
from controller.routes.table import OWN, Route, Routes, RouteTable, Source
from controller.routes.values import Destination, NextHop, NextHopType, Vni


@dataclass(frozen=True, slots=True)
class Profile:
    """The rules in which versions of the program differ.

    ``unsubscribe``: UNSUBSCRIBE works, and withdraws what the peer announces in that VNI, too.
    ``live``: the types of routes that their own announcer is told of, too.
    ``not_replayed``: the types of routes of its own that a new subscriber is not told of.
    ``once``: a replay has each route once, not once for each source.
    """

    name: str
    unsubscribe: bool
    live: frozenset[int]
    not_replayed: frozenset[int]
    once: bool


V0_5_0: Final = Profile("0.5.0", True, frozenset(), frozenset({NextHopType.NAT}), False)
V0_3_0: Final = Profile(
    "0.3.0", False, frozenset({NextHopType.LOADBALANCER_TARGET}), frozenset(), True
)
PROFILES: Final = {profile.name: profile for profile in (V0_5_0, V0_3_0)}


class Reflector:
    """The routes of a node, and the channels on which subscribers read their changes.

    Methods that change something return the cursors that were waiting and have something to read
    now. ``appended`` is the memory of all entries so far: a measure of when to look at `unread`.
    """

    def __init__(self, profile: Profile = V0_5_0) -> None:
        self.profile = profile
        self.received = RouteTable()
        self.own = Routes()
        self.own_channel = Channel()
        self.channels: dict[Vni, Channel] = {}
        self.appended = 0
        self._own_serial = 0

    # --- what peers announce

    def add(self, route: Route, source: Source) -> list[Cursor]:
        """Note that the source announces the route, which it did not before."""
        self.received.hold(route, source)
        channel = self.channels.get(route.vni)
        if channel is None:
            return []
        kept_from = source
        if route.hop.type in self.profile.live:
            kept_from = NOBODY
            if source in channel.cursors:
                channel.cursors[source].reflected.add(route)
        return self._append(channel, route.frame, route, kept_from)

    def remove(self, route: Route, source: Source) -> list[Cursor]:
        """Note that the source announces the route no longer, which it did until now."""
        self.received.release(route, source)
        channel = self.channels.get(route.vni)
        if channel is None:
            return []
        cursor = channel.cursors.get(source)
        reflected = cursor is not None and route in cursor.reflected
        if cursor is not None:
            cursor.reflected.discard(route)
        if route.sources:
            self._keep_reflected(channel, route)
            return []
        if self.own.find(route.vni, route.destination, route.hop) is not None:
            return []
        return self._append(channel, route.removal, route, NOBODY if reflected else source)

    # --- what this node announces

    def announce(self, vni: Vni, destination: Destination, hop: NextHop) -> list[Cursor]:
        """Announce a route that this node does not announce yet."""
        self._own_serial += 1
        route = Route(vni, destination, hop, self._own_serial)
        route.sources = (OWN,)
        self.own.insert(route)
        return self._append(self.own_channel, route.frame, route, NOBODY)

    def withdraw(self, route: Route) -> list[Cursor]:
        """Announce a route of this node no longer."""
        route.sources = ()
        self.own.discard(route)
        return self._append(self.own_channel, route.removal, route, NOBODY)

    # --- who listens

    def greet(self, source: Source) -> Cursor:
        """Return the cursor with which a new peer is told what this node announces."""
        return self.own_channel.join(source, None, self._own_serial)

    def repeat(self, source: Source, vni: Vni) -> Cursor:
        """Return a cursor that replays what this node announces in one VNI, and nothing else."""
        cursor = Cursor(self.own_channel, source, None, self._own_serial)
        cursor.only = vni
        return cursor

    def dismiss(self, source: Source) -> None:
        """Forget a peer that was greeted, except for what it announces."""
        self.own_channel.leave(source)

    def subscribe(self, source: Source, vni: Vni) -> Cursor:
        """Return the cursor of a new subscriber of the VNI."""
        channel = self.channels.setdefault(vni, Channel())
        return channel.join(source, vni, self.received.serial)

    def unsubscribe(self, source: Source, vni: Vni) -> None:
        """Forget a subscriber of the VNI that is there."""
        channel = self.channels[vni]
        channel.leave(source)
        if not channel.cursors:
            del self.channels[vni]

    # --- what a listener is told

    def changes(self, cursor: Cursor) -> Iterator[bytes]:
        """Yield the frames of the changes that the listener has not read yet.

        A route that this node withdraws while the listener is told of the same one by another
        peer is not withdrawn there.
        """
        for entry in cursor.changes():
            if cursor.vni is None and self._told_by_others(cursor.source, entry):
                continue
            yield entry.frame

    def replay(self, cursor: Cursor) -> Iterator[bytes]:
        """Yield the frames of the routes that were there when the listener came."""
        if cursor.vni is None:
            for route in cursor.replay(self.own):
                if cursor.only in (None, route.vni):
                    yield route.frame
            return
        for route in cursor.replay(self.received.vnis.get(cursor.vni)):
            times = len(route.sources)
            if cursor.source in route.sources:
                if route.hop.type in self.profile.not_replayed:
                    times -= 1
                else:
                    cursor.reflected.add(route)
            for _ in range(min(times, 1) if self.profile.once else times):
                yield route.frame

    def unread(self) -> int:
        """Return the memory of all changes that somebody has not read yet, in bytes."""
        unread = sum(channel.unread for channel in self.channels.values())
        return unread + self.own_channel.unread

    # --- inside

    def _append(
        self, channel: Channel, frame: bytes, route: Route, kept_from: Source
    ) -> list[Cursor]:
        self.appended += ENTRY_BYTES + len(frame)
        return channel.append(frame, route, kept_from)

    def _keep_reflected(self, channel: Channel, route: Route) -> None:
        """If only one announces the route any more, another has told it: it is told the end."""
        if len(route.sources) == 1 and route.sources[0] in channel.cursors:
            channel.cursors[route.sources[0]].reflected.add(route)

    def _told_by_others(self, source: Source, entry: Entry) -> bool:
        """Return whether the entry withdraws what others tell the listener that there is."""
        route = entry.route
        assert route is not None
        channel = self.channels.get(route.vni)
        cursor = channel.cursors.get(source) if channel is not None else None
        same = self.received.find(route.vni, route.destination, route.hop)
        if cursor is None or same is None or entry.frame is route.frame:
            return False
        return same in cursor.reflected or any(each != source for each in same.sources)
