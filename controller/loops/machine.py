"""Loops: two nodes of the network on one segment outside the overlay. Pure: beacons and time in,
actions out.

A neighbour is *proven* by a beacon that echoes one that we sent within FRESH: it hears us, and
we hear it, now. A recording of a beacon, played on another bridge, echoes nothing fresh. Of the
nodes on one segment the one with the lowest id serves it; all others block their TAPs, and open
them HOLD after the last proof of a lower one.

              lower neighbour          only higher ones         nobody
    ALONE     -> BLOCKED               -> SERVING               stays
    SERVING   -> BLOCKED               stays                    -> ALONE
    BLOCKED   stays                    -> SERVING               -> ALONE

What remains: two containers on two bridges that carry beacons to each other both ways, as they
come, are a segment in common, and one of the hosts blocks. They could carry everything else, too.
Nor does a bridge that passes tagged frames only, or one direction only, let beacons prove anything.

A neighbour whose tincan goes on without its controller sends no beacons and forwards all the
same: it counts as proven as long as its link is up and ``unattended`` names it.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from controller.loops.beacon import MAX_ECHOES, Beacon
from controller.packets.addresses import NodeId

INTERVAL: Final = 0.4
"""Seconds between two beacons."""
SOONEST: Final = 0.05
"""Seconds between two beacons when a new neighbour deserves an answer."""
FRESH: Final = 1.0
"""Seconds after which an echo proves nothing any more."""
HOLD: Final = 3.0
"""Seconds that a neighbour stays proven after its last proof."""
MAX_NEIGHBOURS: Final = MAX_ECHOES
"""The network's members can make no more."""
PREFIX: Final = 16
"""Digits of a node's id in an echo."""


class State(Enum):
    ALONE = "alone"
    SERVING = "serving"  # a loop, broken by others
    BLOCKED = "blocked"


class Nearest(Enum):
    """What the proven neighbours amount to."""

    LOWER = "lower"
    HIGHER = "higher"
    NOBODY = "nobody"


TRANSITIONS: Final = {
    (State.ALONE, Nearest.LOWER): State.BLOCKED,
    (State.ALONE, Nearest.HIGHER): State.SERVING,
    (State.SERVING, Nearest.LOWER): State.BLOCKED,
    (State.SERVING, Nearest.NOBODY): State.ALONE,
    (State.BLOCKED, Nearest.HIGHER): State.SERVING,
    (State.BLOCKED, Nearest.NOBODY): State.ALONE,
}


@dataclass(frozen=True, slots=True)
class Emit:
    """Put this beacon on the bridge."""

    beacon: Beacon


@dataclass(frozen=True, slots=True)
class Change:
    """We were ``before`` and are ``state``, because of these neighbours, lowest first."""

    before: State
    state: State
    neighbours: tuple[NodeId, ...]


Action = Emit | Change


@dataclass(slots=True)
class Neighbour:
    """``number``: of its last beacon; ``heard``: when that came; ``proven``: the last proof."""

    number: int
    heard: float
    proven: float = field(default=float("-inf"))


class Loops:
    """The machine of one TAP. After every event comes a ``tick``, and one at ``deadline``."""

    def __init__(self, node: NodeId) -> None:
        self.node = node
        self.state = State.ALONE
        self.since = float("-inf")
        self._active = False
        self._next = float("-inf")  # when to look at the time again, and to send
        self._last = float("-inf")
        self._number = 0
        self._sent: OrderedDict[int, float] = OrderedDict()  # ours within FRESH
        self._neighbours: dict[NodeId, Neighbour] = {}
        self._unattended: frozenset[NodeId] = frozenset()
        self._doubt = float("-inf")  # until when a block is kept although nothing proves it

    # --- events

    def resume(self, now: float) -> None:
        """A controller before us has blocked the TAP: find out whether it was right."""
        self.state, self.since, self._doubt = State.BLOCKED, now, now + HOLD

    def activate(self, active: bool, now: float) -> None:
        """The TAP is in a bridge and has a link: only then can there be a loop."""
        if active and not self._active:
            self._next = now
        self._active = active

    def heard(self, beacon: Beacon, now: float) -> str:
        """An authentic beacon came from the bridge; return the counter that it raises."""
        if beacon.node == self.node:
            return "beacons_own"  # the bridge is in a loop of its own, or somebody plays it back
        known = self._neighbours.get(beacon.node)
        if known is None:
            if len(self._neighbours) >= MAX_NEIGHBOURS:
                return "beacons_refused.too_many"
            known = self._neighbours[beacon.node] = Neighbour(beacon.number, now)
        elif beacon.number <= known.number:
            return "beacons_refused.replayed"
        known.number, known.heard = beacon.number, now
        if known.proven + HOLD < now:
            self._next = min(self._next, max(now, self._last + SOONEST))
        mine = self.node[:PREFIX]
        for prefix, number in beacon.echoes:
            if prefix == mine and now - self._sent.get(number, float("-inf")) <= FRESH:
                known.proven = now
                return "beacons_heard"
        return "beacons_unproven"

    def unattended(self, nodes: Iterable[NodeId]) -> None:
        """These peers' links are up, and their tincans go on without a controller."""
        self._unattended = frozenset(nodes)

    def flooded(self, now: float) -> None:
        """Beacons may have been lost in a flood of them: what holds goes on holding."""
        self._doubt = now + HOLD
        for known in self._neighbours.values():
            if known.proven + HOLD >= now:
                known.proven = now

    # --- time

    @property
    def deadline(self) -> float:
        """When ``tick`` has something to do."""
        return self._next

    def tick(self, now: float, clock: int) -> list[Action]:
        """Do what is due. ``clock``: microseconds since 1970, so that numbers rise for ever."""
        actions: list[Action] = []
        self._forget(now)
        proven = self.proven(now)
        if proven:
            nearest = Nearest.LOWER if proven[0] < self.node else Nearest.HIGHER
        else:
            nearest = Nearest.NOBODY
        state = TRANSITIONS.get((self.state, nearest), self.state)
        if self.state is State.BLOCKED and state is not State.BLOCKED and now < self._doubt:
            state = State.BLOCKED
        if state is not self.state:
            actions.append(Change(self.state, state, proven))
            self.state, self.since = state, now
        if now >= self._next:
            self._next = now + INTERVAL
            if self._active:
                actions.append(Emit(self._beacon(now, clock)))
        return actions

    def proven(self, now: float) -> tuple[NodeId, ...]:
        """The nodes that share our segment, lowest first."""
        return tuple(
            sorted(n for n, k in self._neighbours.items() if self._holds(n, k.proven, now))
        )

    def _holds(self, node: NodeId, proven: float, now: float) -> bool:
        if proven + HOLD > now:
            return True
        return node in self._unattended and proven != float("-inf")

    def _forget(self, now: float) -> None:
        for node, known in list(self._neighbours.items()):
            if known.heard + HOLD <= now and not self._holds(node, known.proven, now):
                del self._neighbours[node]

    def _beacon(self, now: float, clock: int) -> Beacon:
        self._number = max(self._number + 1, clock)
        self._sent[self._number] = now
        while next(iter(self._sent.values())) < now - FRESH:
            self._sent.popitem(last=False)
        self._last = now
        echoes = tuple(
            (node[:PREFIX], known.number)
            for node, known in self._neighbours.items()
            if known.heard + FRESH > now
        )
        return Beacon(self.node, self._number, echoes)
