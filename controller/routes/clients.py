"""Who takes the routes that a node receives: the protocol, and one that takes none."""

from typing import Protocol

from controller.routes.values import Destination, NextHop, Vni


class Client(Protocol):
    """What a program gives to MetalBond to be told of received routes.

    A route is added once, however many peers announce it, and removed when the last of them
    withdraws it or is lost. The methods return at once; they may raise ControllerError, which is
    logged. Anything else that they raise ends the MetalBond they belong to.
    """

    def add_route(self, vni: Vni, destination: Destination, hop: NextHop) -> None:
        """Take a route that is there from now on."""

    def remove_route(self, vni: Vni, destination: Destination, hop: NextHop) -> None:
        """Let go of a route that was added."""


class DummyClient:
    """A client that wants nothing. A node that has it does not keep account of what it is due."""

    def add_route(self, vni: Vni, destination: Destination, hop: NextHop) -> None:
        """Do nothing."""

    def remove_route(self, vni: Vni, destination: Destination, hop: NextHop) -> None:
        """Do nothing."""
