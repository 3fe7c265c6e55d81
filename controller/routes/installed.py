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
        self._hops: dict[tuple[Vni, Destination], NextHop | list[NextHop]] = {}
        self._own: Counter[tuple[Vni, Destination]] = Counter()

    def add(self, vni: Vni, destination: Destination, hop: NextHop) -> list[Install]:
        """Take in a route that was not received before."""
        key = vni, destination
        hops = self._hops.setdefault(key, hop)
        if isinstance(hops, list):
            hops.append(hop)
        elif hops is not hop:
            self._hops[key] = [hops, hop]
        if key in self._own:
            return []
        return [Install(vni, destination, hop)]

    def remove(self, vni: Vni, destination: Destination, hop: NextHop) -> list[Uninstall]:
        """Take out a route that was taken in."""
        key = vni, destination
        hops = self._hops[key]
        if isinstance(hops, list) and len(hops) > 1:
            hops.remove(hop)
        else:
            del self._hops[key]
        if key in self._own:
            return []
        return [Uninstall(vni, destination, hop)]

    def announced(self, vni: Vni, destination: Destination) -> list[Uninstall]:
        """Note that this node announces one more next hop of the destination."""
        self._own[vni, destination] += 1
        if self._own[vni, destination] > 1:
            return []
        return [Uninstall(vni, destination, hop) for hop in self._received(vni, destination)]

    def withdrawn(self, vni: Vni, destination: Destination) -> list[Install]:
        """Note that this node announces one next hop of the destination less."""
        self._own[vni, destination] -= 1
        if self._own[vni, destination]:
            return []
        del self._own[vni, destination]
        return [Install(vni, destination, hop) for hop in self._received(vni, destination)]

    def withheld(self, vni: Vni, destination: Destination) -> bool:
        """Return whether received routes of the destination are not given to the user."""
        return (vni, destination) in self._own

    def _received(self, vni: Vni, destination: Destination) -> list[NextHop]:
        """Return the next hops of a destination. Most have one, which is kept without a list."""
        hops = self._hops.get((vni, destination), [])
        return hops if isinstance(hops, list) else [hops]
