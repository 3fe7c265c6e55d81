"""The links of this node, made and kept: topology's decisions carried out.

Signalling tells who is there and carries sealed offers; tincan negotiates; topology decides.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import Final

from controller.dataplane.client import Tunnel
from controller.errors import SignalError, SystemRefusal
from controller.links.contacts import (
    Accept,
    Action,
    Answer,
    Ask,
    Dial,
    Forget,
    Join,
    Offer,
    Please,
    Sealed,
    Topology,
    decode_sealed,
)
from controller.packets.addresses import Ip, NodeId
from controller.signal.events import Absent, Event, Present, Received, Refused, SignalConnected
from controller.signal.keys import NetworkKeys
from controller.signal.port import SignalState
from controller.signal.websocket.client import SignalClient
from controller.signal.websocket.messages import Reason
from tincan.control import messages as api
from tincan.control.codec import encode
from tincan.crypto.primitives import PrivateKey

log = logging.getLogger(__name__)

MAX_NEGOTIATIONS: Final = 64
"""At once; the others wait their turn."""
LONGEST_SLEEP: Final = 3600.0
"""Seconds."""


class Mesh:
    """Run by ``run``; told about tincan's events by the app."""

    def __init__(
        self,
        urls: tuple[str, ...],
        keys: NetworkKeys,
        private: PrivateKey,
        name: str,
        tunnel: Tunnel,
        tasks: asyncio.TaskGroup,
        counters: Counter[str],
        named: Callable[[NodeId, str], None],
        forgotten: Callable[[NodeId], None],
    ) -> None:
        """``named``: a peer that has a link says its name. ``forgotten``: a peer has left."""
        self.node = private.public.hex()
        self.topology = Topology(self.node, int(time.time() * 1000), random.random)
        self.clients = [
            SignalClient(url, keys, private, name, self._on_signal, counters=counters)
            for url in urls
        ]
        self._tunnel = tunnel
        self._tasks = tasks
        self._counters = counters
        self._named = named
        self._forgotten = forgotten
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._room = asyncio.Semaphore(MAX_NEGOTIATIONS)
        self._negotiating: dict[NodeId, Dial | Accept | None] = {}  # and what comes after

    def name(self, node: NodeId) -> str:
        """What people call a node."""
        contact = self.topology.contacts.get(node)
        return contact.name if contact is not None and contact.name else node[:8]

    @property
    def signal_states(self) -> list[SignalState]:
        return [client.state for client in self.clients]

    async def run(self) -> None:
        """Keep the links up until cancelled."""
        for client in self.clients:
            self._tasks.create_task(client.run())
        while True:
            now = self._loop.time()
            self._perform(self.topology.tick(now))
            delay = min(self.topology.deadline - self._loop.time(), LONGEST_SLEEP)
            self._wake.clear()
            try:
                async with asyncio.timeout(max(delay, 0.0)):
                    await self._wake.wait()
            except TimeoutError:
                continue

    # --- what happens

    def network_changed(self, gone: Collection[Ip] = ()) -> None:
        """Routes of this host are other than before, or addresses; ``gone`` are those it lost."""
        for client in self.clients:
            client.network_changed(gone)
        self.topology.hurry(self._loop.time())
        self._wake.set()

    def linked(self, peer: NodeId, relayed: bool) -> None:
        self.topology.linked(peer, relayed, self._loop.time())
        self._wake.set()

    def unlinked(self, peer: NodeId, reason: str) -> None:
        self.topology.unlinked(peer, reason, self._loop.time())

    def wanted(self, peer: NodeId, reason: str) -> None:
        self.topology.wanted(peer, reason, self._loop.time())
        self._wake.set()

    def tincan_restarted(self) -> None:
        """Every link is gone on our side only: make them anew, and tell those who elect."""
        now = self._loop.time()
        for contact in self.topology.contacts.values():
            contact.linked = False
            contact.tries = 0
            contact.why = "tincan restarted"
            contact.due = now
        self._wake.set()

    def _on_signal(self, event: Event) -> None:
        now = self._loop.time()
        if isinstance(event, Present):
            self._present(event, now)
        elif isinstance(event, Absent):
            if not any(event.id in client.peers for client in self.clients):
                self.topology.absent(event.id, now)
        elif isinstance(event, Received):
            try:
                message = decode_sealed(event.payload)
            except SignalError as error:
                self._counters[f"signal_messages_dropped.{error.reason}"] += 1
                return
            self._perform(self.topology.received(event.sender, message, now))
        elif isinstance(event, SignalConnected):
            self.topology.hurry(now)
        elif isinstance(event, Refused):
            known = event.reason in frozenset(Reason)  # it may say anything, and go on so
            self._counters[f"signal_refused.{event.reason if known else 'other'}"] += 1
        self._wake.set()

    def _present(self, event: Present, now: float) -> None:
        self.topology.present(event.id, event.name, event.session, now)
        contact = self.topology.contacts.get(event.id)
        if contact is not None and contact.linked and event.name:
            self._named(event.id, event.name)

    # --- what is done about it

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Dial | Accept):
                if action.peer in self._negotiating:
                    self._negotiating[action.peer] = action  # the newest is what counts
                else:
                    self._negotiating[action.peer] = None
                    self._tasks.create_task(self._negotiate(action))
            elif isinstance(action, Join):
                self._tasks.create_task(self._join(action))
            elif isinstance(action, Ask):
                self._say(action.peer, Please(action.reason))
            elif isinstance(action, Forget):
                self._tunnel.notify("remove_link", api.PeerName(action.peer))
                self._forgotten(action.peer)

    def _say(self, peer: NodeId, message: Sealed) -> None:
        payload = encode(message)
        for client in self.clients:
            if client.send(peer, payload):
                return
        self._counters["signal_messages_dropped.not_connected"] += 1

    async def _negotiate(self, action: Dial | Accept) -> None:
        """One at a time for each peer: whoever sends offers without end waits for himself."""
        following: Dial | Accept | None = action
        try:
            while following is not None:
                if isinstance(following, Dial):
                    await self._dial(following)
                else:
                    await self._accept(following)
                following = self._negotiating[action.peer]
                self._negotiating[action.peer] = None
        finally:
            del self._negotiating[action.peer]

    async def _dial(self, action: Dial) -> None:
        async with self._room:
            try:
                wish = api.NewLink(action.peer, action.number)
                offer = await self._tunnel.call("create_link", wish, api.Offer)
            except SystemRefusal as error:
                log.warning("no offer to %s: %s", self.name(action.peer), error)
                return
        self._say(action.peer, Offer(action.number, offer.description))

    async def _accept(self, action: Accept) -> None:
        offer = action.offer
        async with self._room:
            try:
                wish = api.Offered(action.peer, offer.number, offer.description)
                answer = await self._tunnel.call("answer_link", wish, api.Offer)
            except SystemRefusal as error:
                log.warning("no answer to %s: %s", self.name(action.peer), error)
                return
        self._say(action.peer, Answer(offer.number, answer.description))

    async def _join(self, action: Join) -> None:
        try:
            wish = api.Offered(action.peer, action.answer.number, action.answer.description)
            await self._tunnel.call("connect_link", wish, type(None))
        except SystemRefusal as error:
            log.debug("the answer of %s came too late: %s", self.name(action.peer), error)
