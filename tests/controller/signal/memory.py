"""A rendezvous and its nodes without sockets: what one side says is handed to the other."""

from collections import Counter

from controller.signal.events import Event, Received
from controller.signal.keys import NetworkKeys
from controller.signal.rendezvous.quota import Limits
from controller.signal.rendezvous.registry import HangUp, Output, Registry
from controller.signal.rendezvous.registry import Transmit as ServerTransmit
from controller.signal.websocket.presence import Presence, Renew, Transmit
from tincan.crypto.primitives import PrivateKey, random_bytes

KEYS = NetworkKeys.derive("lab", "correct horse")
OTHER_SECRET = NetworkKeys.derive("lab", "battery staple")


class Node:
    """A Presence with a record of what it told the application."""

    def __init__(
        self, name: str, keys: NetworkKeys = KEYS, private: PrivateKey | None = None
    ) -> None:
        self.private = private or PrivateKey.generate()
        self.presence = Presence(keys, self.private, name)
        self.id = self.presence.id
        self.name = name
        self.events: list[Event | Renew] = []
        self.connection: int | None = None

    def take(self) -> list[Event | Renew]:
        """Return the events since the last call."""
        events, self.events = self.events, []
        return events

    def payloads(self) -> list[bytes]:
        return [event.payload for event in self.take() if isinstance(event, Received)]


class Memory:
    """Delivers everything at once, in order. ``carried`` is what the server sent, by receiver."""

    def __init__(
        self, *, pins: dict[str, bytes] | None = None, limits: Limits | None = None
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.registry = Registry(
            PrivateKey.generate(), pins=pins, limits=limits, counters=self.counters
        )
        self.nodes: dict[int, Node] = {}
        self.carried: list[tuple[Node, bytes]] = []
        self.hung_up: list[int] = []
        self.now = 1000.0
        self._next = 0

    def connect(self, node: Node) -> int:
        number, self._next = self._next, self._next + 1
        self.nodes[number] = node
        node.connection = number
        node.presence.start(self.now)
        self._deliver(self.registry.opened(number, "192.0.2.1", random_bytes(32)))
        return number

    def disconnect(self, node: Node) -> None:
        number, node.connection = node.connection, None
        assert number is not None
        del self.nodes[number]
        node.events += node.presence.lost()
        self._deliver(self.registry.closed(number, self.now))

    def send(self, sender: Node, to: Node, payload: bytes) -> bool:
        data = sender.presence.seal(to.id, payload)
        if data is None:
            return False
        self.say(sender, data)
        return True

    def say(self, sender: Node, data: bytes) -> None:
        """Hand ``data`` to the server as if ``sender`` had sent it."""
        assert sender.connection is not None
        self._deliver(self.registry.received(sender.connection, data, self.now))

    def hand(self, node: Node, data: bytes) -> None:
        """Hand ``data`` to ``node`` as if the server had sent it."""
        for output in node.presence.received(data, self.now):
            if isinstance(output, Transmit):
                if node.connection is not None:
                    self.say(node, output.data)
            else:
                node.events.append(output)

    def _deliver(self, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case ServerTransmit(client, data):
                    node = self.nodes.get(client)
                    if node is not None and node.connection == client:
                        self.carried.append((node, data))
                        self.hand(node, data)
                case HangUp(client):
                    self.hung_up.append(client)
                    node = self.nodes.pop(client, None)
                    if node is not None and node.connection == client:
                        node.connection = None
                        node.events += node.presence.lost()


def network(*names: str) -> tuple[Memory, list[Node]]:
    """Return a rendezvous with connected nodes, their events so far forgotten."""
    memory = Memory()
    nodes = [Node(name) for name in names]
    for node in nodes:
        memory.connect(node)
    for node in nodes:
        node.take()
    return memory, nodes
