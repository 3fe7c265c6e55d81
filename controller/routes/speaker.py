"""A MetalBond node: its peers, what it subscribes to and announces. The pure core of this folder.

What happens is told to it with the time; it returns what is to be done, in order:

    Connect(peer)            connect to the peer's name; then call `connected` or `lost`
    Send(peer)               `peer.pull` has something, until it returns nothing
    Close(peer, reason)      close the connection of the peer; it is forgotten here already
    Install, Uninstall       give the user of this node a route, or take it away

After each call the caller looks at the peer's ``deadline`` and calls `tick` when it is reached.
While ``busy`` it calls `work` again, after it has let others have their turn.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from controller.errors import BrokenProtocol, RouteError, RouteRefused
from controller.routes import messages
from controller.routes.channel import Cursor
from controller.routes.installed import Install, Installed, Uninstall
from controller.routes.machine import DEFAULT_KEEPALIVE_S, RETRY_S, Direction, Machine, State
from controller.routes.messages import Action
from controller.routes.peer import MAX_CONTROL_FRAMES, Peer
from controller.routes.reflector import V0_5_0, Profile, Reflector
from controller.routes.table import OWN, Route, Source
from controller.routes.values import (
    Destination,
    NextHop,
    Vni,
    check_destination,
    check_hop,
    check_vni,
)
from controller.routes.wire import Kind

MAX_PEERS: Final = 4096
"""Connections, half-open ones included."""
MAX_ROUTES: Final = 1_000_000
"""Routes of all peers together: about 500 bytes each."""
MAX_ROUTES_OF_PEER: Final = 500_000
"""Who announces more is closed, as BGP speakers do with their maximum-prefix."""
MAX_SUBSCRIPTIONS: Final = 262_144
"""Subscriptions of all peers together: about 1.2 kB each."""
MAX_SUBSCRIPTIONS_OF_PEER: Final = 16_384
MAX_UNREAD_BYTES: Final = 64 << 20
"""The memory of changes that somebody has not read, in all. Beyond, the slowest is closed."""
LOOK_EVERY_BYTES: Final = 1 << 20
"""After so many bytes of changes it is looked at how much is unread."""
WITHDRAWN_AT_ONCE: Final = 500
"""Routes of a lost peer that one `work` withdraws: a few milliseconds."""
PAUSE_S: Final = 1.0
"""From an UNSUBSCRIBE to what may not overtake it: the Go program handles messages of different
kinds in any order, and stops for ever when it is subscribed twice."""


class Connect(NamedTuple):
    """A connection to the peer is wanted."""

    peer: Peer


class Send(NamedTuple):
    """The peer has something to be sent."""

    peer: Peer


class Close(NamedTuple):
    """The connection of the peer, if there is one, is to be closed."""

    peer: Peer
    reason: str


Act = Connect | Send | Close | Install | Uninstall


@dataclass(frozen=True, slots=True)
class Config:
    """How a node behaves. ``keepalive_interval`` and ``retry_interval`` are in seconds."""

    keepalive_interval: int = DEFAULT_KEEPALIVE_S
    retry_interval: float = RETRY_S
    profile: Profile = V0_5_0


class Speaker:
    """See the module. ``installs`` is false if nobody wants Install and Uninstall.

    ``jitter`` returns random numbers from 0 to 1.
    """

    def __init__(self, config: Config, jitter: Callable[[], float], installs: bool = True) -> None:
        self.reflector = Reflector(config.profile)
        self.peers: dict[str, Peer] = {}
        self.subscriptions: dict[Vni, None] = {}
        self.dropped: Counter[str] = Counter()
        self.closed: Counter[str] = Counter()
        self.updates_in = 0
        self.frames_out = 0
        self._config = config
        self._jitter = jitter
        self._installed = Installed() if installs else None
        self._listening: dict[Source, Peer] = {}
        self._departing: deque[Source] = deque()
        self._sources = OWN
        self._subscribed = 0
        self._looked_at = 0
        self._actions: list[Act] = []

    # --- peers

    def add_peer(self, name: str, now: float) -> list[Act]:
        """Connect to a server, and again whenever it is lost. Raises RouteError if it is known."""
        if name in self.peers:
            raise RouteError(f"peer {name} is there already")
        peer = self._peer(name, Direction.OUTGOING)
        peer.machine.connecting(now)
        self._actions.append(Connect(peer))
        return self._take()

    def accept(self, name: str, now: float) -> Peer:
        """Return the peer of a connection that came in. Raises RouteError if there are too many.

        ``name`` is the address of the other end.
        """
        if len(self.peers) >= MAX_PEERS or name in self.peers:
            self.closed["too_many_peers"] += 1
            raise RouteError(f"{name} is refused: there are {len(self.peers)} peers")
        peer = self._peer(name, Direction.INCOMING)
        self._begin(peer, now)
        return peer

    def connected(self, peer: Peer, now: float) -> list[Act]:
        """Note that the connection which Connect asked for is there."""
        self._begin(peer, now)
        return self._take()

    def lost(self, peer: Peer, reason: str, now: float) -> list[Act]:
        """Note that the connection is gone, or could not be made."""
        if peer.state not in (State.RETRY, State.CLOSED):
            self._lose(peer, reason, now)
        return self._take()

    def remove_peer(self, name: str) -> list[Act]:
        """Close the connection to a peer for good. Raises RouteError if it is not known."""
        peer = self.peers.get(name)
        if peer is None:
            raise RouteError(f"there is no peer {name}")
        self._depart(peer)
        peer.machine.removed()
        self._forget(peer)
        self._actions.append(Close(peer, "removed"))
        return self._take()

    def tick(self, peer: Peer, now: float) -> list[Act]:
        """Do what is due for the peer at its deadline."""
        before = peer.state
        frames, missing = peer.machine.tick(now)
        if missing is not None:
            self._lose(peer, missing, now)
            return self._take()
        self._send(peer, frames, now)
        if peer.state is not before:
            self._actions.append(Connect(peer))
        for vni in [vni for vni, due in peer.paused.items() if due <= now]:
            self._resume(peer, vni)
        return self._take()

    def received(self, peer: Peer, data: bytes, now: float) -> list[Act]:
        """Take bytes from the peer."""
        try:
            for kind, payload in peer.frames.feed(data):
                if peer.source == OWN:  # lost meanwhile
                    break
                if kind is Kind.UPDATE:
                    self._update(peer, payload)
                elif kind is Kind.KEEPALIVE:
                    self._keepalive(peer, now)
                elif kind is Kind.HELLO:
                    said = messages.read_hello(payload)
                    self._send(peer, peer.machine.hello(said, now), now)
                elif kind is Kind.SUBSCRIBE:
                    self._subscribe(peer, messages.read_subscription(payload))
                else:
                    self._unsubscribe(peer, messages.read_subscription(payload))
        except BrokenProtocol as broken:
            self._lose(peer, broken.reason, now)
        self._look_for_slow_readers(now)
        return self._take()

    @property
    def busy(self) -> bool:
        """Return whether there is something for `work`."""
        return bool(self._departing)

    def work(self, now: float) -> list[Act]:
        """Withdraw some of what lost peers announced."""
        if self._departing:
            source = self._departing[0]
            for route in self.reflector.received.some_of(source, WITHDRAWN_AT_ONCE):
                self._remove(route, source)
            if not self.reflector.received.held(source):
                self._departing.popleft()
        self._look_for_slow_readers(now)
        return self._take()

    # --- this node's own

    def subscribe(self, vni: Vni) -> list[Act]:
        """Ask all servers, now and whenever they come, for a VNI. Raises RouteError if done."""
        check_vni(vni)
        if vni in self.subscriptions:
            raise RouteError(f"already subscribed to VNI {vni}")
        self.subscriptions[vni] = None
        for peer in self._servers():
            if vni not in peer.paused:
                self._ask_for(peer, vni)
        return self._take()

    def unsubscribe(self, vni: Vni, now: float) -> list[Act]:
        """Forget the VNI and what was received of it. Raises RouteError if it is not subscribed.

        The servers may take this for the end of what this node announces there, too (they do from
        v0.3.1 on), so that is announced again after a pause.
        """
        if vni not in self.subscriptions:
            raise RouteError(f"not subscribed to VNI {vni}")
        del self.subscriptions[vni]
        for peer in self._servers():
            for route in self.reflector.received.of(peer.source, vni):
                self._remove(route, peer.source)
            if vni in peer.paused:  # not asked for again yet
                continue
            peer.unsubscribed.add(vni)
            peer.paused[vni] = now + PAUSE_S
            self._send(peer, [messages.unsubscribe(vni)], now)
        return self._take()

    def announce(self, vni: Vni, destination: Destination, hop: NextHop) -> list[Act]:
        """Announce a route to every peer. Raises RouteError if it is, or is impossible."""
        check_vni(vni), check_destination(destination), check_hop(hop)
        if self.announces(vni, destination, hop):
            raise RouteError(f"VNI {vni}: {destination} via {hop} is announced already")
        self._wake(self.reflector.announce(vni, destination, hop))
        if self._installed is not None:
            self._actions += self._installed.announced(vni, destination)
        return self._take()

    def withdraw(self, vni: Vni, destination: Destination, hop: NextHop) -> list[Act]:
        """Announce a route no longer. Raises RouteError if it is not announced."""
        route = self.reflector.own.find(vni, destination, hop)
        if route is None:
            raise RouteError(f"VNI {vni}: {destination} via {hop} is not announced")
        self._wake(self.reflector.withdraw(route))
        if self._installed is not None:
            self._actions += self._installed.withdrawn(vni, destination)
        return self._take()

    def announces(self, vni: Vni, destination: Destination, hop: NextHop) -> bool:
        """Return whether this node announces the route."""
        return self.reflector.own.find(vni, destination, hop) is not None

    def routes(self) -> Iterator[Route]:
        """Yield the received routes, those that this node announces itself left out."""
        for routes in self.reflector.received.vnis.values():
            for route in routes:
                if self._installed is None or not self._installed.withheld(
                    route.vni, route.destination
                ):
                    yield route

    # --- messages

    def _keepalive(self, peer: Peer, now: float) -> None:
        before = peer.state
        frames = peer.machine.keepalive(now)
        if peer.state is not before:
            peer.since = now
            cursor = self.reflector.greet(peer.source)
            self._listening[peer.source] = peer
            peer.follow(cursor)
            self._actions.append(Send(peer))
            if peer.outgoing:
                frames = frames + [messages.subscribe(vni) for vni in self.subscriptions]
        self._send(peer, frames, now)

    def _subscribe(self, peer: Peer, vni: Vni) -> None:
        if not peer.established:
            raise BrokenProtocol("subscribe_too_early")
        if vni in peer.cursors:
            self.dropped["subscribed_twice"] += 1
            return
        if len(peer.cursors) >= MAX_SUBSCRIPTIONS_OF_PEER or self._subscribed >= MAX_SUBSCRIPTIONS:
            raise BrokenProtocol("too_many_subscriptions")
        self._subscribed += 1
        peer.cursors[vni] = self.reflector.subscribe(peer.source, vni)
        peer.follow(peer.cursors[vni])
        self._actions.append(Send(peer))

    def _unsubscribe(self, peer: Peer, vni: Vni) -> None:
        if not self._config.profile.unsubscribe:
            self.dropped["unsubscribe_unknown_to_profile"] += 1
        elif vni not in peer.cursors:
            self.dropped["not_subscribed"] += 1
        else:
            for route in self.reflector.received.of(peer.source, vni):
                self._remove(route, peer.source)
            self._subscribed -= 1
            peer.drop(peer.cursors.pop(vni))
            self.reflector.unsubscribe(peer.source, vni)

    def _update(self, peer: Peer, payload: bytes) -> None:
        """Take an UPDATE; in any state, as the Go program does."""
        self.updates_in += 1
        peer.updates_in += 1
        try:
            action, vni, destination, hop = messages.read_update(payload)
        except RouteRefused as refused:
            self.dropped[refused.reason] += 1
            return
        if vni in peer.unsubscribed:
            self.dropped["unsubscribed"] += 1
            return
        received, source = self.reflector.received, peer.source
        route = received.find(vni, destination, hop)
        if action is Action.REMOVE:
            if route is None or source not in route.sources:
                self.dropped["removed_unknown"] += 1
            else:
                self._remove(route, source)
            return
        if route is None:
            if received.held(source) >= MAX_ROUTES_OF_PEER or received.routes >= MAX_ROUTES:
                raise BrokenProtocol("too_many_routes")
            route = received.new(vni, destination, hop)
            if self._installed is not None:
                self._actions += self._installed.add(vni, destination, route.hop)
        elif source in route.sources:
            self.dropped["added_twice"] += 1
            return
        woken = self.reflector.add(route, source)
        if woken:
            self._wake(woken)

    # --- inside

    def _peer(self, name: str, direction: Direction) -> Peer:
        machine = Machine(direction, self._config.keepalive_interval, self._config.retry_interval)
        self.peers[name] = Peer(name, machine)
        return self.peers[name]

    def _begin(self, peer: Peer, now: float) -> None:
        self._sources += 1
        peer.begin(self._sources)
        self._send(peer, peer.machine.connected(now), now)

    def _lose(self, peer: Peer, reason: str, now: float) -> None:
        self.closed[reason] += 1
        peer.last_reason = reason
        self._depart(peer)
        peer.machine.lost(now, self._jitter())
        if peer.state is State.CLOSED:
            self._forget(peer)
        self._actions.append(Close(peer, reason))

    def _forget(self, peer: Peer) -> None:
        del self.peers[peer.name]
        self.frames_out += peer.frames_out

    def _depart(self, peer: Peer) -> None:
        """Forget what the peer listens to, and begin to withdraw what it announces."""
        source = peer.source
        if self._listening.pop(source, None) is not None:
            self.reflector.dismiss(source)
        for vni in peer.cursors:
            self._subscribed -= 1
            self.reflector.unsubscribe(source, vni)
        if self.reflector.received.held(source):
            self._departing.append(source)
        peer.end()
        peer.source = OWN
        peer.since = None

    def _remove(self, route: Route, source: Source) -> None:
        self._wake(self.reflector.remove(route, source))
        if self._installed is not None and not route.sources:
            self._actions += self._installed.remove(route.vni, route.destination, route.hop)

    def _servers(self) -> Iterable[Peer]:
        return [p for p in self.peers.values() if p.outgoing and p.established]

    def _ask_for(self, peer: Peer, vni: Vni) -> None:
        peer.unsubscribed.discard(vni)
        peer.control.append(messages.subscribe(vni))
        self._actions.append(Send(peer))

    def _resume(self, peer: Peer, vni: Vni) -> None:
        """Send what had to wait for an UNSUBSCRIBE to be done."""
        del peer.paused[vni]
        if vni in self.subscriptions:
            self._ask_for(peer, vni)
        peer.replays.append(self.reflector.repeat(peer.source, vni))
        self._actions.append(Send(peer))

    def _send(self, peer: Peer, frames: list[bytes], now: float) -> None:
        if not frames:
            return
        peer.control += frames
        if len(peer.control) > MAX_CONTROL_FRAMES + len(self.subscriptions):
            self._lose(peer, "does_not_read", now)
        else:
            self._actions.append(Send(peer))

    def _wake(self, cursors: list[Cursor]) -> None:
        for cursor in cursors:
            peer = self._listening[cursor.source]
            peer.ready[cursor] = None
            self._actions.append(Send(peer))

    def _look_for_slow_readers(self, now: float) -> None:
        if self.reflector.appended - self._looked_at < LOOK_EVERY_BYTES:
            return
        self._looked_at = self.reflector.appended
        while self.reflector.unread() > MAX_UNREAD_BYTES:
            slowest = max(self._listening.values(), key=lambda peer: peer.unread)
            self._lose(slowest, "does_not_read", now)

    def _take(self) -> list[Act]:
        actions, self._actions = self._actions, []
        return actions
