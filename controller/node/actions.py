"""Actions: what services ask for. The runner carries them out in the order in which they came."""

from dataclasses import dataclass
from typing import TypeAlias

from controller.node.messages import PeerMessage
from controller.packets.addresses import Ip, Mac, NodeId, Vlan
from controller.packets.packets import Buildable


@dataclass(frozen=True, slots=True)
class Inject:
    """Put ``packet`` on the local bridge, through tincan."""

    packet: Buildable


@dataclass(frozen=True, slots=True)
class Send:
    """Send ``message`` to ``peer``, or to every linked peer when ``peer`` is None."""

    peer: NodeId | None
    message: PeerMessage


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
    """Write one log line, already deduplicated. ``level`` is a name of the logging module."""

    level: str
    text: str


Action: TypeAlias = Inject | Send | Pin | Unpin | NeverForward | Report
