"""One peer of this node: its state, what it sends, what it listens to and is still to be sent."""

from collections import deque
from collections.abc import Iterator
from typing import Final

from controller.routes.channel import Cursor
from controller.routes.machine import Direction, Machine, State
from controller.routes.reflector import Reflector
from controller.routes.table import Source
from controller.routes.values import Vni
from controller.routes.wire import Frames

MAX_CONTROL_FRAMES: Final = 1024
"""So many HELLOs, KEEPALIVEs and subscriptions may wait for a peer that does not read."""

URGENT_BYTES: Final = 512
"""What is sent at once of frames that keep to no pace."""


class Peer:
    """One peer, incoming for one connection, outgoing until it is removed.

    ``source`` numbers this life of the connection: what the peer announces is known by it.
    ``control`` is sent before any route. ``unsubscribed`` are VNIs whose updates may still arrive
    after our UNSUBSCRIBE, and ``paused`` those in which nothing is to be sent before a time.
    """

    def __init__(self, name: str, machine: Machine) -> None:
        self.name = name
        self.machine = machine
        self.frames = Frames()
        self.source: Source = 0
        self.control: deque[bytes] = deque()
        self.cursors: dict[Vni, Cursor] = {}
        self.ready: dict[Cursor, None] = {}
        self.replays: deque[Cursor] = deque()
        self.unsubscribed: set[Vni] = set()
        self.paused: dict[Vni, float] = {}
        self.since: float | None = None
        self.last_reason = ""
        self.updates_in = 0
        self.frames_out = 0

    @property
    def state(self) -> State:
        """The state of the machine."""
        return self.machine.state

    @property
    def established(self) -> bool:
        """Return whether routes are exchanged with it."""
        return self.machine.state is State.ESTABLISHED

    @property
    def outgoing(self) -> bool:
        """Return whether this node connects to it."""
        return self.machine.direction is Direction.OUTGOING

    @property
    def deadline(self) -> float:
        """The time at which the speaker's `tick` is to be called for this peer."""
        return min((self.machine.deadline, *self.paused.values()))

    @property
    def unread(self) -> int:
        """The memory of the changes that it has not been sent yet, in bytes."""
        return sum(cursor.unread for cursor in self.ready)

    def begin(self, source: Source) -> None:
        """Forget the life before: a new connection is there."""
        self.source = source
        self.frames = Frames()
        self.end()

    def end(self) -> None:
        """Forget what it was still to be sent, and what it listened to."""
        self.control.clear()
        self.cursors.clear()
        self.ready.clear()
        self.replays.clear()
        self.unsubscribed.clear()
        self.paused.clear()

    def follow(self, cursor: Cursor) -> None:
        """Send what there is to the cursor's VNI, and what changes from now on."""
        self.ready[cursor] = None
        self.replays.append(cursor)

    def drop(self, cursor: Cursor) -> None:
        """Send nothing of the cursor's VNI any more."""
        self.ready.pop(cursor, None)
        if cursor in self.replays:
            self.replays.remove(cursor)

    def pull(self, reflector: Reflector, room: int) -> bytes:
        """Return the next whole frames, of ``room`` bytes at most unless the first is longer.

        They are gone from here: send them. Nothing means that there is nothing to send. For no
        room there are HELLOs, KEEPALIVEs and subscriptions, but no routes.
        """
        taken: list[bytes] = []
        size = 0
        for frame in self._pending(reflector) if room else self._urgent():
            size += len(frame)
            if size > (room or URGENT_BYTES) and taken:
                self.control.appendleft(frame)
                break
            taken.append(frame)
        self.frames_out += len(taken)
        return b"".join(taken)

    def _urgent(self) -> Iterator[bytes]:
        while self.control:
            yield self.control.popleft()

    def _pending(self, reflector: Reflector) -> Iterator[bytes]:
        yield from self._urgent()
        while self.ready:
            cursor = next(iter(self.ready))
            yield from reflector.changes(cursor)
            del self.ready[cursor]
        while self.replays:
            yield from reflector.replay(self.replays[0])
            self.replays.popleft()
