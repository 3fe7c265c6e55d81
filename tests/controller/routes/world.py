"""Speakers in memory, joined by wires that cut bytes anywhere."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from controller.routes import messages
from controller.routes.installed import Install, Uninstall
from controller.routes.messages import Action, Update
from controller.routes.peer import Peer
from controller.routes.reflector import V0_5_0, Profile
from controller.routes.speaker import Act, Close, Config, Connect, Speaker
from controller.routes.values import Destination, NextHop, NextHopType, Vni
from controller.routes.wire import Frames, Kind

VNI = Vni(23)
OTHER = Vni(42)
A1 = NextHop.parse("2001:db8::a1")
A2 = NextHop.parse("2001:db8::a2")
NAT = NextHop.parse("2001:db8::a2", NextHopType.NAT, ports=(1024, 2047))
LB = NextHop.parse("2001:db8::a2", NextHopType.LOADBALANCER_TARGET)
NET1 = Destination.parse("10.0.1.0/24")
NET2 = Destination.parse("10.0.2.0/24")


def add(destination: Destination, hop: NextHop, vni: Vni = VNI) -> bytes:
    """Return the frame of an UPDATE ADD."""
    return messages.update(Update(Action.ADD, vni, destination, hop))


def remove(destination: Destination, hop: NextHop, vni: Vni = VNI) -> bytes:
    """Return the frame of an UPDATE REMOVE."""
    return messages.update(Update(Action.REMOVE, vni, destination, hop))


def speaker(profile: Profile = V0_5_0, *, keepalive: int = 5, installs: bool = True) -> Speaker:
    """Return a node whose random numbers are all 0.5."""
    return Speaker(Config(keepalive, 5.0, profile), lambda: 0.5, installs)


def read(data: bytes) -> list[tuple[Kind, bytes]]:
    """Return the messages in whole frames."""
    return list(Frames().feed(data))


def updates(data: bytes) -> list[tuple[str, str, str]]:
    """Return the UPDATEs among the frames: what, destination, next hop."""
    found = [messages.read_update(p) for kind, p in read(data) if kind is Kind.UPDATE]
    return [(u.action.name, str(u.destination), str(u.hop)) for u in found]


def sent(node: Speaker, peer: Peer) -> bytes:
    """Return all that the node has for the peer."""
    data = b""
    while piece := peer.pull(node.reflector, 1000):
        data += piece
    return data


def reasons(actions: Iterable[Act]) -> list[str]:
    """Return why connections were closed."""
    return [action.reason for action in actions if isinstance(action, Close)]


@dataclass
class Stranger:
    """The other end of an incoming connection, written by hand."""

    node: Speaker
    peer: Peer

    @classmethod
    def established(cls, node: Speaker, name: str, now: float = 0.0) -> "Stranger":
        """Return one that has said HELLO and KEEPALIVE, and has read the answers."""
        stranger = cls(node, node.accept(name, now))
        stranger.say(messages.hello(messages.Hello(5)) + messages.KEEPALIVE, now)
        stranger.hears()
        return stranger

    def say(self, data: bytes, now: float = 0.0) -> list[Act]:
        """Send bytes to the node."""
        return self.node.received(self.peer, data, now)

    def hears(self) -> bytes:
        """Return what the node has sent since."""
        return sent(self.node, self.peer)


@dataclass(eq=False)
class Wire:
    """A connection between two nodes: bytes on the way, cut as ``cut`` says."""

    client: Speaker
    to_server: Peer
    server: Speaker
    to_client: Peer
    up: deque[bytes] = field(default_factory=deque)
    down: deque[bytes] = field(default_factory=deque)


class World:
    """Nodes by name, who connect to each other by name. Time passes only by `tick`."""

    def __init__(self, cut: Callable[[], int] = lambda: 1 << 16) -> None:
        self.nodes: dict[str, Speaker] = {}
        self.routes: dict[str, set[tuple[Vni, Destination, NextHop]]] = {}
        self.now = 0.0
        self._wires: list[Wire] = []
        self._cut = cut
        self._connections = 0

    def node(self, name: str, profile: Profile = V0_5_0) -> Speaker:
        """Add a node."""
        self.nodes[name] = speaker(profile)
        self.routes[name] = set()
        return self.nodes[name]

    def do(self, name: str, actions: Iterable[Act]) -> None:
        """Carry out what a node wants."""
        node = self.nodes[name]
        for action in actions:
            if isinstance(action, Connect):
                self._connect(name, node, action.peer)
            elif isinstance(action, Close):
                self._closed(node, action.peer)
            elif isinstance(action, Install):
                route = action.vni, action.destination, action.hop
                assert route not in self.routes[name], "given twice"
                self.routes[name].add(route)
            elif isinstance(action, Uninstall):
                self.routes[name].remove((action.vni, action.destination, action.hop))

    def kill(self, name: str) -> None:
        """End a node without a word: its connections are found broken."""
        node = self.nodes.pop(name)
        for wire in [w for w in self._wires if node in (w.client, w.server)]:
            self._wires.remove(wire)
            other, peer = (
                (wire.server, wire.to_client)
                if node is wire.client
                else (wire.client, wire.to_server)
            )
            self.do(self._name(other), other.lost(peer, "killed", self.now))

    def break_wire(self, number: int) -> None:
        """Break one of the connections, if there is one."""
        if self._wires:
            wire = self._wires.pop(number % len(self._wires))
            for node, peer in ((wire.client, wire.to_server), (wire.server, wire.to_client)):
                self.do(self._name(node), node.lost(peer, "broken", self.now))

    def settle(self) -> None:
        """Let all bytes arrive and all work be done."""
        while self.step():
            pass

    def step(self) -> bool:
        """Let one piece of each connection arrive; return whether anything happened."""
        moved = False
        for name, node in list(self.nodes.items()):
            if node.busy:
                self.do(name, node.work(self.now))
                moved = True
        for wire in list(self._wires):
            moved |= self._move(wire, wire.client, wire.to_server, wire.server, wire.to_client)
            if wire in self._wires:
                moved |= self._move(wire, wire.server, wire.to_client, wire.client, wire.to_server)
        return moved

    def tick(self, seconds: float) -> None:
        """Let time pass, a tenth of a second at a time."""
        end = self.now + seconds
        while self.now < end:
            self.now += 0.1
            for name, node in list(self.nodes.items()):
                for peer in list(node.peers.values()):
                    if peer.deadline <= self.now:
                        self.do(name, node.tick(peer, self.now))
            self.settle()

    def _move(self, wire: Wire, sender: Speaker, out: Peer, receiver: Speaker, into: Peer) -> bool:
        way = wire.up if sender is wire.client else wire.down
        data = out.pull(sender.reflector, 500)
        if data:
            way.append(data)
        if not way:
            return False
        whole = way.popleft()
        cut = max(1, self._cut())
        if len(whole) > cut:
            way.appendleft(whole[cut:])
        self.do(self._name(receiver), receiver.received(into, whole[:cut], self.now))
        return True

    def _connect(self, name: str, node: Speaker, peer: Peer) -> None:
        server = self.nodes.get(peer.name)
        if server is None:
            self.do(name, node.lost(peer, "refused", self.now))
            return
        self._connections += 1
        incoming = server.accept(f"{name} {self._connections}", self.now)
        self._wires.append(Wire(node, peer, server, incoming))
        self.do(name, node.connected(peer, self.now))

    def _closed(self, node: Speaker, peer: Peer) -> None:
        for wire in list(self._wires):
            if peer in (wire.to_server, wire.to_client):
                self._wires.remove(wire)
                if node is wire.client:
                    other, its = wire.server, wire.to_client
                else:
                    other, its = wire.client, wire.to_server
                if other in self.nodes.values():
                    self.do(self._name(other), other.lost(its, "closed_by_peer", self.now))

    def _name(self, node: Speaker) -> str:
        return next(name for name, each in self.nodes.items() if each is node)
