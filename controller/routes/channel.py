"""What changed among the routes of one VNI, in order, once for all who read it.

A channel is a chain of entries. Each subscriber has a cursor, which points at the last entry that
it has read; what all have read nobody points at any more, and it is gone. So a change costs the
same whoever reads it and however late, and a slow reader costs what it has not read, once.

A cursor also replays the routes that were there when it came. Changes go first, so that an
update is not behind a long replay: a change of a route that the replay has not reached is left
out, because the replay will tell how the route is then.
"""

from collections.abc import Iterator
from typing import Final

from controller.routes.table import Route, Routes, Source
from controller.routes.values import Vni

ENTRY_BYTES: Final = 160
"""The memory of an entry besides its frame (measured: CPython 3.11, rounded up)."""
NOBODY: Final[Source] = -1
"""An entry that is kept from nobody."""


class Entry:
    """One change: the frame that tells it, and the source that is not told."""

    __slots__ = ("frame", "kept_from", "next", "route", "total")

    def __init__(self, frame: bytes, route: Route | None, kept_from: Source, total: int) -> None:
        self.frame = frame
        self.route = route
        self.kept_from = kept_from
        self.total = total
        self.next: Entry | None = None


class Channel:
    """The changes of one VNI, or of what this node announces itself."""

    def __init__(self) -> None:
        self.last = Entry(b"", None, NOBODY, 0)
        self.cursors: dict[Source, Cursor] = {}
        self._waiting: set[Cursor] = set()

    def append(self, frame: bytes, route: Route, kept_from: Source) -> list["Cursor"]:
        """Add a change and return the cursors that had read everything before it."""
        if not self.cursors:
            return []
        entry = Entry(frame, route, kept_from, self.last.total + ENTRY_BYTES + len(frame))
        self.last.next = entry
        self.last = entry
        if not self._waiting:
            return []
        woken = list(self._waiting)
        self._waiting.clear()
        return woken

    def join(self, source: Source, vni: Vni | None, until: int) -> "Cursor":
        """Return the cursor of a new subscriber.

        ``until`` is the last serial of the table now: the cursor replays what is there up to it.
        """
        cursor = Cursor(self, source, vni, until)
        self.cursors[source] = cursor
        return cursor

    def leave(self, source: Source) -> None:
        """Forget the cursor of a subscriber that is there."""
        self._waiting.discard(self.cursors.pop(source))

    def wait(self, cursor: "Cursor") -> None:
        """Note that the cursor has read everything, and is to be woken by the next change."""
        self._waiting.add(cursor)

    @property
    def unread(self) -> int:
        """The bytes that this channel keeps for the slowest of its readers."""
        return max((cursor.unread for cursor in self.cursors.values()), default=0)


class Cursor:
    """How far one subscriber has read, and how far it has been replayed what was there before.

    ``vni`` is None for what this node announces itself, of which ``only`` may choose one VNI's.
    ``reflected`` are the routes of its own that the subscriber was told of nevertheless: it is
    told when they go.
    """

    def __init__(self, channel: Channel, source: Source, vni: Vni | None, until: int) -> None:
        self.source = source
        self.vni = vni
        self.reflected: set[Route] = set()
        self.told = 0
        self.only: Vni | None = None
        self._channel = channel
        self._read = channel.last
        self._until = until

    @property
    def unread(self) -> int:
        """The memory of what it has not read yet, in bytes."""
        return self._channel.last.total - self._read.total

    @property
    def replaying(self) -> bool:
        """Return whether routes that were there before are still to be told."""
        return self.told < self._until

    def changes(self) -> Iterator[Entry]:
        """Yield the changes that this subscriber is to be told of, as it takes them.

        Once they are all taken it waits for the next one.
        """
        while (entry := self._read.next) is not None:
            self._read = entry
            assert entry.route is not None, "only the first entry has none, and it was read"
            if entry.kept_from != self.source and not self.told < entry.route.serial <= self._until:
                yield entry
        self._channel.wait(self)

    def replay(self, routes: Routes | None) -> Iterator[Route]:
        """Yield those of the routes that were there before, as they are taken.

        The changes are all read before. ``routes`` is None if the VNI has none any more.
        """
        for route in routes.after(self.told) if routes is not None else ():
            if route.serial > self._until:
                break
            self.told = route.serial
            yield route
        self.told = self._until
