"""Switch mode is a service like any other; a second one plugs in beside it."""

from collections import Counter

from controller.node.actions import Action, Send
from controller.node.messages import Decoder, PeerMessage
from controller.node.node import Node
from controller.node.service import Service
from controller.packets.addresses import NodeId
from controller.switch.switch import Switch


class Ping(PeerMessage, frozen=True, tag="ping"):
    """A message of the echo service."""

    text: str


class EchoService:
    """Sends every message back."""

    messages: tuple[type[PeerMessage], ...] = (Ping,)
    deadline = float("inf")

    def __init__(self, node: Node) -> None:
        self._node = node

    def peer_up(self, peer: NodeId, now: float) -> list[Action]:
        self._node.peers[peer] = now
        return self._node.drain()

    def peer_down(self, peer: NodeId, now: float) -> list[Action]:
        self._node.peers.pop(peer, None)
        return self._node.drain()

    def received(self, peer: NodeId, message: PeerMessage, now: float) -> list[Action]:
        self._node.send(peer, message)
        return self._node.drain()

    def tick(self, now: float) -> list[Action]:
        return self._node.drain()

    def snapshot(self, now: float) -> object:
        return {}


def test_two_services_share_nothing_but_the_wire() -> None:
    me, peer = "a" * 64, "b" * 64
    echo = EchoService(Node(me, Counter()))
    services: list[Service] = [Switch(me, Counter()), echo]
    decoder = Decoder(kind for service in services for kind in service.messages)
    message = decoder.decode(b'{"m":"ping","text":"hello"}')
    for service in services:
        service.peer_up(peer, 1.0)
    (owner,) = [service for service in services if type(message) in service.messages]
    assert owner.received(peer, message, 2.0) == [Send(peer, message)]
