"""Routes, and which sources announce each: a reference count for every identical route.

A source is a number: one life of one connection to a peer, so that what is left of an earlier
life can be withdrawn while the next one announces already. OWN is this node itself.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice
from typing import Final

from controller.routes import messages
from controller.routes.messages import Action, Update
from controller.routes.values import Destination, NextHop, Vni

Source = int
OWN: Final[Source] = 0
"""The source of what this node announces. Peers' lives are numbered from 1."""
MAX_SHARED_HOPS: Final = 4096
"""Next hops of which routes share one copy; with more they are forgotten and begun anew."""
_COMPACTED_FROM: Final = 256
"""A VNI's list with fewer dead routes than this is not worth making anew."""


class Route:
    """One route of one VNI, as long as a source announces it.

    ``serial`` grows from route to route in one table; a route that comes again is another one.
    """

    __slots__ = ("_frame", "destination", "hop", "serial", "sources", "vni")

    def __init__(self, vni: Vni, destination: Destination, hop: NextHop, serial: int) -> None:
        self.vni = vni
        self.destination = destination
        self.hop = hop
        self.serial = serial
        self.sources: tuple[Source, ...] = ()
        self._frame: bytes | None = None

    @property
    def frame(self) -> bytes:
        """The UPDATE that adds it, made when the first is told of it."""
        if self._frame is None:
            said = Update(Action.ADD, self.vni, self.destination, self.hop)
            self._frame = messages.update(said)
        return self._frame

    @property
    def removal(self) -> bytes:
        """The UPDATE that removes it."""
        return messages.update(Update(Action.REMOVE, self.vni, self.destination, self.hop))


class Routes:
    """Some routes: found by what they are, and walked through in the order in which they came."""

    def __init__(self) -> None:
        self._routes: dict[tuple[Vni, Destination, NextHop], Route] = {}
        self._in_order: list[Route] = []

    def __len__(self) -> int:
        return len(self._routes)

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes.values())

    def find(self, vni: Vni, destination: Destination, hop: NextHop) -> Route | None:
        """Return this route, if it is there."""
        return self._routes.get((vni, destination, hop))

    def insert(self, route: Route) -> None:
        """Take in a route that is not there. Its serial is the largest so far."""
        self._routes[route.vni, route.destination, route.hop] = route
        self._in_order.append(route)

    def discard(self, route: Route) -> None:
        """Take out a route that is there and has no source any more."""
        del self._routes[route.vni, route.destination, route.hop]
        dead = len(self._in_order) - len(self._routes)
        if dead > max(_COMPACTED_FROM, len(self._routes)):
            self._in_order = [each for each in self._in_order if each.sources]

    def after(self, serial: int) -> Iterator[Route]:
        """Yield the routes whose serial is larger, in order.

        Nothing may be inserted or discarded while they are taken.
        """
        start = bisect_right(self._in_order, serial, key=_serial)
        for at in range(start, len(self._in_order)):
            route = self._in_order[at]
            if route.sources:
                yield route


class RouteTable:
    """All routes, by VNI, and each source's."""

    def __init__(self) -> None:
        self.vnis: dict[Vni, Routes] = {}
        self._of: dict[Source, dict[Vni, dict[Route, None]]] = {}
        self._held: Counter[Source] = Counter()
        self._alone: dict[Source, tuple[Source]] = {}
        self._hops: dict[NextHop, NextHop] = {}
        self.serial = 0
        self.routes = 0

    def find(self, vni: Vni, destination: Destination, hop: NextHop) -> Route | None:
        """Return this route, if it is there."""
        table = self.vnis.get(vni)
        return None if table is None else table.find(vni, destination, hop)

    def held(self, source: Source) -> int:
        """Return how many routes the source announces."""
        return self._held[source]

    def of(self, source: Source, vni: Vni) -> list[Route]:
        """Return the routes that the source announces in one VNI."""
        return list(self._of.get(source, {}).get(vni, ()))

    def some_of(self, source: Source, count: int) -> list[Route]:
        """Return up to ``count`` of the routes that the source announces."""
        held = self._of.get(source, {}).values()
        return list(islice(chain.from_iterable(held), count))

    def new(self, vni: Vni, destination: Destination, hop: NextHop) -> Route:
        """Return a route that was not there. It has no source yet: ``hold`` it."""
        self.serial += 1
        if len(self._hops) > MAX_SHARED_HOPS:
            self._hops.clear()
        route = Route(vni, destination, self._hops.setdefault(hop, hop), self.serial)
        self.vnis.setdefault(vni, Routes()).insert(route)
        self.routes += 1
        return route

    def hold(self, route: Route, source: Source) -> None:
        """Note that the source announces the route. It did not before."""
        if route.sources:
            route.sources += (source,)
        else:  # most routes have one source: they share its tuple
            route.sources = self._alone.setdefault(source, (source,))
        self._of.setdefault(source, {}).setdefault(route.vni, {})[route] = None
        self._held[source] += 1

    def release(self, route: Route, source: Source) -> None:
        """Note that the source announces the route no longer. Without any source it is gone."""
        route.sources = tuple(each for each in route.sources if each != source)
        held = self._of[source]
        del held[route.vni][route]
        self._held[source] -= 1
        if not held[route.vni]:
            del held[route.vni]
        if not held:
            del self._of[source], self._held[source]
            self._alone.pop(source, None)
        if route.sources:
            return
        routes = self.vnis[route.vni]
        routes.discard(route)
        self.routes -= 1
        if not routes:
            del self.vnis[route.vni]


def _serial(route: Route) -> int:
    return route.serial
