"""What the pure cores ask for: the runner carries actions out in the order in which they came."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from controller.packets.addresses import Ip, Mac, NodeId, Vlan
from controller.packets.packets import Buildable

if TYPE_CHECKING:
    from controller.switch.messages import Message


@dataclass(frozen=True, slots=True)
class Inject:
    """Put the packet on the local bridge, through tincan."""

    packet: Buildable


@dataclass(frozen=True, slots=True)
class Send:
    """Send the message to ``peer``, or to every connected peer when ``peer`` is None."""

    peer: NodeId | None
    message: "Message"


@dataclass(frozen=True, slots=True)
class Pin:
    """Tell tincan where a MAC is: behind peer ``at``, or here when ``at`` is None."""

    mac: Mac
    vlan: Vlan
    at: NodeId | None


@dataclass(frozen=True, slots=True)
class Unpin:
    """Tell tincan that nobody vouches for this MAC any more; what it learns itself stays."""

    mac: Mac
    vlan: Vlan


@dataclass(frozen=True, slots=True)
class NeverForward:
    """Tell tincan (and the capture) the shared gateways; replaces the set told before."""

    macs: frozenset[Mac]
    ips: frozenset[Ip]


@dataclass(frozen=True, slots=True)
class Report:
    """One log line, already deduplicated. ``level`` is a name of the logging module."""

    level: str
    text: str


Action: TypeAlias = Inject | Send | Pin | Unpin | NeverForward | Report
