"""MetalBond for programs: a node that announces and receives routes, reflects them, or both.

    async with MetalBond(Config(), client) as bond:
        bond.subscribe(Vni(23))
        here = NextHop.parse("2001:db8::a1")
        bond.announce_route(Vni(23), Destination.parse("10.0.1.0/24"), here)
        bond.add_peer("[2001:db8::1]:4711")
        ...

See docs/metalbond.md. Everything is called from the event loop in which it was entered.
"""

import asyncio
import logging
import random
import socket
from collections import deque
from functools import partial
from types import TracebackType
from typing import Final

from controller.errors import ControllerError, RouteError, one_line
from controller.routes.clients import Client, DummyClient
from controller.routes.connection import Connection, prepare
from controller.routes.endpoint import Endpoint
from controller.routes.http import HttpServer
from controller.routes.installed import Install, Uninstall
from controller.routes.machine import State
from controller.routes.peer import Peer
from controller.routes.speaker import Act, Close, Config, Connect, Send, Speaker
from controller.routes.values import Destination, NextHop, Vni

BACKLOG: Final = 1024
"""Connections that may wait to be accepted."""
ACCEPTED_AT_ONCE: Final = 64
ACCEPT_PAUSE_S: Final = 1.0
"""From an accept that failed for want of file descriptors or memory to the next."""
GIVEN_AT_ONCE: Final = 256
"""Routes that the client is given before others have their turn."""

log = logging.getLogger(__name__)


class MetalBond:
    """One node. Enter it, then use it; leaving it does `shutdown`.

    Methods raise RouteError where the operation is not possible, SystemRefusal where the system
    refuses something. Without a ``client`` received routes are only reflected and shown.
    """

    def __init__(self, config: Config | None = None, client: Client | None = None) -> None:
        self._client = client or DummyClient()
        installs = not isinstance(self._client, DummyClient)
        config = config or Config()
        self.speaker = Speaker(config, random.random, installs)
        self._compatible = config.profile.name
        self._connections: dict[Peer, Connection] = {}
        self._timers: dict[Peer, asyncio.TimerHandle] = {}
        self._to_flush: dict[Peer, None] = {}
        self._listening: list[socket.socket] = []
        self._http: list[HttpServer] = []
        self._to_give: deque[Install | Uninstall] = deque()
        self._giving = asyncio.Event()
        self._dialling: dict[Peer, asyncio.Task[None]] = {}
        self._working = False
        self._down = False

    async def __aenter__(self) -> "MetalBond":
        self._loop = asyncio.get_running_loop()
        self._tasks = asyncio.TaskGroup()
        await self._tasks.__aenter__()
        self._giver = self._tasks.create_task(self._give())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.shutdown()
        await self._tasks.__aexit__(kind, error, trace)

    # --- operations

    async def start_server(self, listen: str) -> str:
        """Take connections at an address ("[::]:4711", ":4711") and return where.

        Port 0 takes a free one. [::] takes IPv4, too. Raises RouteError or SystemRefusal.
        """
        sock = Endpoint.parse(listen).listen(BACKLOG)
        self._listening.append(sock)
        self._loop.add_reader(sock.fileno(), self._accept, sock)
        where = str(Endpoint(*sock.getsockname()[:2]))
        log.info("listening on %s", where)
        return where

    async def start_http_server(self, listen: str) -> str:
        """Show the routes and the state of this node by HTTP at an address, and return where."""
        server = HttpServer(self.speaker, self._compatible)
        where = await server.start(Endpoint.parse(listen))
        self._http.append(server)
        log.info("showing routes at http://%s/", where)
        return where

    def add_peer(self, address: str) -> None:
        """Connect to the server at an address ("[2001:db8::1]:4711"), again whenever it is lost."""
        Endpoint.parse(address)
        self._do(self.speaker.add_peer(address, self._loop.time()))
        self._arm(self.speaker.peers[address])

    def remove_peer(self, address: str) -> None:
        """Leave the server at an address, or close the connection that came from it."""
        self._do(self.speaker.remove_peer(address))

    def peer_state(self, address: str) -> State:
        """Return the state of a peer; CLOSED if there is none."""
        peer = self.speaker.peers.get(address)
        return State.CLOSED if peer is None else peer.state

    def subscribe(self, vni: Vni) -> None:
        """Receive the routes of a VNI from all servers."""
        self._do(self.speaker.subscribe(vni))

    def unsubscribe(self, vni: Vni) -> None:
        """Receive the routes of a VNI no longer; those received are removed."""
        self._do(self.speaker.unsubscribe(vni, self._loop.time()))
        for peer in self._connections:
            self._arm(peer)

    def is_subscribed(self, vni: Vni) -> bool:
        """Return whether the routes of the VNI are asked for."""
        return vni in self.speaker.subscriptions

    def announce_route(self, vni: Vni, destination: Destination, hop: NextHop) -> None:
        """Announce a route to all peers, now and whenever they come."""
        self._do(self.speaker.announce(vni, destination, hop))

    def withdraw_route(self, vni: Vni, destination: Destination, hop: NextHop) -> None:
        """Announce a route no longer."""
        self._do(self.speaker.withdraw(vni, destination, hop))

    def is_route_announced(self, vni: Vni, destination: Destination, hop: NextHop) -> bool:
        """Return whether this node announces the route."""
        return self.speaker.announces(vni, destination, hop)

    async def shutdown(self) -> None:
        """Close everything. What was received is removed from the client."""
        if self._down:
            return
        self._down = True
        for sock in self._listening:
            self._loop.remove_reader(sock.fileno())
            sock.close()
        for server in self._http:
            server.close()
        for name in list(self.speaker.peers):
            self._do(self.speaker.remove_peer(name))
        while self.speaker.busy:
            self._do(self.speaker.work(self._loop.time()))
        self._giving.set()

    # --- actions

    def _do(self, actions: list[Act]) -> None:
        for action in actions:
            if isinstance(action, Send):
                if not self._to_flush:
                    self._loop.call_soon(self._flush)
                self._to_flush[action.peer] = None
            elif isinstance(action, (Install, Uninstall)):
                self._to_give.append(action)
                self._giving.set()
            elif isinstance(action, Close):
                self._close(action)
            else:
                self._dial(action)
        if self.speaker.busy and not self._working:
            self._working = True
            self._loop.call_soon(self._work)

    def _work(self) -> None:
        self._working = False
        self._do(self.speaker.work(self._loop.time()))

    def _flush(self) -> None:
        peers, self._to_flush = self._to_flush, {}
        for peer in peers:
            connection = self._connections.get(peer)
            if connection is not None:
                connection.flush()

    def _close(self, action: Close) -> None:
        peer = action.peer
        connection = self._connections.pop(peer, None)
        if connection is not None:
            connection.close()
            log.info("peer %s: closed: %s", peer.name, action.reason)
        elif peer.outgoing and peer.state is State.RETRY:
            log.warning("peer %s: cannot connect: %s", peer.name, action.reason)
        dialling = self._dialling.pop(peer, None)
        if dialling is not None:
            dialling.cancel()
        self._arm(peer)

    async def _give(self) -> None:
        """Give the client its routes. What it raises besides ControllerError ends this node."""
        while not (self._down and not self._to_give):
            await self._giving.wait()
            self._giving.clear()
            for count in range(len(self._to_give)):
                action = self._to_give.popleft()
                method = self._client.add_route
                if isinstance(action, Uninstall):
                    method = self._client.remove_route
                try:
                    method(*action)
                except ControllerError as error:
                    self.speaker.dropped["client_refused"] += 1
                    log.error("VNI %d: %s: %s", action.vni, action.destination, error)
                if count % GIVEN_AT_ONCE == GIVEN_AT_ONCE - 1:
                    await asyncio.sleep(0)

    # --- time

    def _arm(self, peer: Peer) -> None:
        """See to it that the speaker is called at the peer's deadline, or before."""
        timer = self._timers.get(peer)
        deadline = peer.deadline
        if deadline == float("inf"):
            if timer is not None:
                timer.cancel()
                del self._timers[peer]
        elif timer is None or timer.when() > deadline:
            if timer is not None:
                timer.cancel()
            self._timers[peer] = self._loop.call_at(deadline, self._tick, peer)

    def _tick(self, peer: Peer) -> None:
        del self._timers[peer]
        now = self._loop.time()
        if peer.deadline <= now:
            self._do(self.speaker.tick(peer, now))
        self._arm(peer)

    # --- connections

    def _start(self, peer: Peer, sock: socket.socket) -> None:
        self._connections[peer] = Connection(
            sock,
            partial(self._received, peer),
            partial(self._lost, peer),
            partial(self._pull, peer),
        )

    def _received(self, peer: Peer, data: bytes) -> None:
        actions = self.speaker.received(peer, data, self._loop.time())
        if len(actions) == 1 and isinstance(actions[0], Send) and actions[0].peer is peer:
            self._connections[peer].flush()  # a KEEPALIVE: it is answered without a detour
        else:
            self._do(actions)
        self._arm(peer)

    def _lost(self, peer: Peer, reason: str) -> None:
        self._do(self.speaker.lost(peer, reason, self._loop.time()))
        self._arm(peer)

    def _pull(self, peer: Peer, room: int) -> bytes:
        return peer.pull(self.speaker.reflector, room)

    def _dial(self, action: Connect) -> None:
        peer = action.peer
        if not self._down:
            self._dialling[peer] = self._tasks.create_task(self._connect(peer))

    async def _connect(self, peer: Peer) -> None:
        try:
            sock = await Endpoint.parse(peer.name).connect()
        except OSError as error:
            self._dialling.pop(peer, None)
            self._lost(peer, one_line(error.strerror or str(error)))
            return
        self._dialling.pop(peer, None)
        self._start(peer, sock)
        log.info("peer %s: connected", peer.name)
        self._do(self.speaker.connected(peer, self._loop.time()))
        self._arm(peer)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                sock, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause_accepting(listening, error)
                return
            self._welcome(sock, str(Endpoint(*address[:2])))

    def _welcome(self, sock: socket.socket, name: str) -> None:
        try:
            prepare(sock)
            peer = self.speaker.accept(name, self._loop.time())
        except (OSError, RouteError) as error:
            log.warning("%s", error)
            sock.close()
            return
        log.info("peer %s: came", name)
        self._start(peer, sock)
        self._arm(peer)

    def _pause_accepting(self, listening: socket.socket, error: OSError) -> None:
        log.error("cannot accept a connection: %s", error.strerror)
        self.speaker.closed["accept_failed"] += 1
        self._loop.remove_reader(listening.fileno())
        self._loop.call_later(ACCEPT_PAUSE_S, self._accept_again, listening)

    def _accept_again(self, listening: socket.socket) -> None:
        if not self._down:
            self._loop.add_reader(listening.fileno(), self._accept, listening)
