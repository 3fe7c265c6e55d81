"""The protocol of a service: one thing that a node does together with its peers.

A service is pure: events and ``now`` (seconds of a monotonic clock) go in, actions come out. It
knows nothing of other services, of sockets or of asyncio. ``switch.switch.Switch`` is one.
"""

from typing import Protocol

from controller.node.actions import Action
from controller.node.messages import PeerMessage
from controller.packets.addresses import NodeId


class Service(Protocol):
    """One thing that a node does together with its peers.

    The caller's duties: after every call that returns actions, carry them out, all of them and in
    order; then read ``deadline``, and call ``tick`` at that time. Call ``peer_up`` when a link
    comes up, before the first message of that peer, and ``peer_down`` when it is gone. Give
    ``received`` only messages whose type is in ``messages``, from a peer that its link has
    authenticated. ``now`` never goes back. ``dataplane.runner.Runner`` does all of this.
    """

    @property
    def messages(self) -> tuple[type[PeerMessage], ...]:
        """The types of message that this service takes; no other service has one of their tags."""

    def peer_up(self, peer: NodeId, now: float) -> list[Action]:
        """Note that the link to ``peer`` is up: it carries messages from now on."""

    def peer_down(self, peer: NodeId, now: float) -> list[Action]:
        """Note that the link to ``peer`` is gone."""

    def received(self, peer: NodeId, message: PeerMessage, now: float) -> list[Action]:
        """Take a message of ``peer``, of one of the types in ``messages``."""

    def tick(self, now: float) -> list[Action]:
        """Do what is due; calling it too early or twice does no harm."""

    @property
    def deadline(self) -> float:
        """The time at which ``tick`` has something to do; infinite when never."""

    def snapshot(self, now: float) -> object:
        """Return what this service knows, as plain containers, for ``status``."""
