"""Which of the received routes the user of this node has been given.

A user (Client) is given a route when its first source announces it, and it is taken away when the
last one withdraws it. Routes of a destination that this node announces itself are withheld: they
lead back to it (v0.4.3 and later do so). They are given when it is announced no longer.
"""

from collections import Counter
from typing import NamedTuple

from controller.routes.values import Destination, NextHop, Vni


class Install(NamedTuple):
    """The user of this node is to be given the route."""

    vni: Vni
    destination: Destination
    hop: NextHop


class Uninstall(NamedTuple):
    """The route is to be taken away from the user of this node."""

    vni: Vni
    destination: Destination
    hop: NextHop


class Installed:
    """The received routes by destination, and the destinations that this node announces.

    Methods return what is to be done, in order.
    """

    def __init__(self) -> None:
        self._hops: dict[tuple[Vni, Destination], dict[NextHop, None]] = {}
        self._own: Counter[tuple[Vni, Destination]] = Counter()

    def add(self, vni: Vni, destination: Destination, hop: NextHop) -> list[Install]:
        """Take in a route that was not received before."""
        self._hops.setdefault((vni, destination), {})[hop] = None
        if (vni, destination) in self._own:
            return []
        return [Install(vni, destination, hop)]

    def remove(self, vni: Vni, destination: Destination, hop: NextHop) -> list[Uninstall]:
        """Take out a route that was taken in."""
        hops = self._hops[vni, destination]
        del hops[hop]
        if not hops:
            del self._hops[vni, destination]
        if (vni, destination) in self._own:
            return []
        return [Uninstall(vni, destination, hop)]

    def announced(self, vni: Vni, destination: Destination) -> list[Uninstall]:
        """Note that this node announces one more next hop of the destination."""
        self._own[vni, destination] += 1
        if self._own[vni, destination] > 1:
            return []
        hops = self._hops.get((vni, destination), ())
        return [Uninstall(vni, destination, hop) for hop in hops]

    def withdrawn(self, vni: Vni, destination: Destination) -> list[Install]:
        """Note that this node announces one next hop of the destination less."""
        self._own[vni, destination] -= 1
        if self._own[vni, destination]:
            return []
        del self._own[vni, destination]
        hops = self._hops.get((vni, destination), ())
        return [Install(vni, destination, hop) for hop in hops]

    def withheld(self, vni: Vni, destination: Destination) -> bool:
        """Return whether received routes of the destination are not given to the user."""
        return (vni, destination) in self._own
