"""A node's standing connection to one rendezvous.

    client = SignalClient("ws://rendezvous.example:8765", keys, private, "host-a", on_event)
    group.create_task(client.run())          # until cancelled; never raises anything else
    client.send(peer_id, payload)            # False: not now; try again upon Present
    client.network_changed()                 # addresses or routes changed: do not wait
    client.state                             # for status: url, connected, error

``on_event`` is called in the loop with one Event (events.py) at a time. It must not block; an
exception of it ends ``run``. Several rendezvous are several clients: each has presence of its
own, and a message sealed for one cannot be replayed through another.
"""

import asyncio
import logging
import math
import ssl
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from controller.errors import one_line
from controller.signal.events import Event, Refused, SignalConnected
from controller.signal.keys import NetworkKeys
from controller.signal.websocket.backoff import STABLE_AFTER, Backoff, Failure
from controller.signal.websocket.messages import Reason
from controller.signal.websocket.presence import Phase, Presence, Renew, Transmit
from controller.signal.websocket.transport import Channel, ChannelClosed, ConnectFailed, connect
from tincan.crypto.primitives import PrivateKey

JOIN_TIMEOUT: Final = 10.0
"""Seconds from an open websocket to the list of members."""
PROBE_TIMEOUT: Final = 2.0
"""Seconds for a sign of life after a change of the network."""
MAX_REMEMBERED_ERRORS: Final = 8
"""Texts logged during one outage, so that none is repeated."""

# What waiting a little does not cure, by the reason the rendezvous gives.
UNWELCOME: Final = frozenset(
    {
        Reason.WRONG_SECRET,
        Reason.UNKNOWN_NETWORK,
        Reason.REPLACED,
        Reason.BAD_PROOF,
        Reason.VERSION,
        Reason.MALFORMED,
    }
)
EXPLAINED: Final[dict[str, str]] = {
    Reason.WRONG_SECRET: "wrong secret: others use this network's name with another secret",
    Reason.UNKNOWN_NETWORK: "it does not serve a network of this name",
    Reason.REPLACED: "replaced: another process runs with this node's key (a copied state_dir?)",
    Reason.BAD_PROOF: "it does not accept our proof of membership",
    Reason.VERSION: "it speaks another version of the protocol",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SignalState:
    """``error`` is why it is not connected, None if it is or nothing is known yet."""

    url: str
    connected: bool
    error: str | None


@dataclass(frozen=True, slots=True)
class _End:
    failure: Failure
    text: str


class SignalClient:
    """See the module's text."""

    def __init__(
        self,
        url: str,
        keys: NetworkKeys,
        private: PrivateKey,
        name: str,
        on_event: Callable[[Event], None],
        *,
        counters: Counter[str] | None = None,
        tls: ssl.SSLContext | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        """``name``: this node's name for people. ``tls``: instead of the default context."""
        self.counters: Counter[str] = Counter() if counters is None else counters
        self._url = url
        self._on_event = on_event
        self._tls = tls
        self._backoff = backoff or Backoff()
        self._presence = Presence(keys, private, name, counters=self.counters)
        self._channel: Channel | None = None
        self._attempt: asyncio.Timeout | None = None  # while a connection is being made
        self._error: str | None = None
        self._told: set[str] = set()
        self._joined_at = math.inf
        self._hurry = asyncio.Event()

    @property
    def state(self) -> SignalState:
        return SignalState(self._url, self._presence.phase is Phase.JOINED, self._error)

    @property
    def peers(self) -> dict[str, str]:
        """Names of the members believed to be there, by id."""
        return self._presence.peers

    def send(self, to: str, payload: bytes) -> bool:
        """Seal ``payload`` (at most MAX_PAYLOAD bytes) and queue it for node ``to``.

        True is no promise that it arrives. False: not connected, no such member present, too
        long, or the queue is full.
        """
        if self._channel is None:
            return False
        message = self._presence.seal(to, payload)
        return message is not None and self._channel.post(message)

    def network_changed(self, gone: Collection[str] = ()) -> None:
        """Addresses or routes are other than before: retry now, or check the connection.

        One from an address that is ``gone`` is dead, and is not waited for; nor is an attempt
        that was begun before: it may have come from there, or by a way that is no more.
        """
        self._backoff.succeeded()
        if self._attempt is not None:
            self._attempt.reschedule(asyncio.get_running_loop().time())
        if self._channel is not None and self._channel.local_host in gone:
            self._channel.abort()
        self._hurry.set()

    async def run(self) -> None:
        """Stay connected until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._hurry.clear()
            self._joined_at = math.inf
            end = await self._connection()
            if end.failure is Failure.TROUBLE and loop.time() - self._joined_at >= STABLE_AFTER:
                self._backoff.succeeded()
            delay = self._backoff.failed(end.failure)
            self._failed(end.text, delay)
            try:
                async with asyncio.timeout(delay):
                    await self._hurry.wait()
            except TimeoutError:
                pass

    def _failed(self, text: str, delay: float) -> None:
        self._error = text
        self.counters["signal_connection_failures"] += 1
        if text in self._told:
            return
        if len(self._told) < MAX_REMEMBERED_ERRORS:
            self._told.add(text)
            log.warning("rendezvous %s: %s; retrying", self._url, text)

    async def _connection(self) -> _End:
        """Live one connection, from TCP to its end."""
        try:
            async with AsyncExitStack() as stack:
                try:
                    async with asyncio.timeout(None) as self._attempt:
                        channel = await stack.enter_async_context(connect(self._url, self._tls))
                except TimeoutError:
                    return _End(Failure.TROUBLE, "this host's network has changed")
                finally:
                    self._attempt = None
                return await self._converse(channel)
        except ConnectFailed as error:
            return _End(Failure.REFUSED if error.refused else Failure.TROUBLE, str(error))

    async def _converse(self, channel: Channel) -> _End:
        self._presence.start(asyncio.get_running_loop().time())
        self._channel = channel
        end = _End(Failure.TROUBLE, "connection lost")
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(channel.pump()),
                    group.create_task(self._watch_network(channel)),
                ]
                end = await self._read(channel)
                for task in tasks:
                    task.cancel()
        except* ChannelClosed as closed:
            end = _End(Failure.TROUBLE, str(closed.exceptions[0]))
        finally:
            self._channel = None
            for event in self._presence.lost():
                self._on_event(event)
        return end

    async def _watch_network(self, channel: Channel) -> None:
        while True:
            await self._hurry.wait()
            self._hurry.clear()
            await channel.probe(PROBE_TIMEOUT)

    async def _read(self, channel: Channel) -> _End:
        try:
            async with asyncio.timeout(JOIN_TIMEOUT):
                while self._presence.phase is not Phase.JOINED:
                    end = self._take(channel, await channel.receive())
                    if end is not None:
                        return end
        except TimeoutError:
            return _End(Failure.TROUBLE, "it does not answer like a rendezvous")
        while True:
            end = self._take(channel, await channel.receive())
            if end is not None:
                return end

    def _take(self, channel: Channel, data: bytes) -> _End | None:
        """Handle one message; return the end of the connection if it is one."""
        now = asyncio.get_running_loop().time()
        for output in self._presence.received(data, now):
            match output:
                case Transmit(message):
                    if not channel.post(message):
                        return _End(Failure.TROUBLE, "it does not read what we send")
                case Renew():
                    return _End(Failure.TROUBLE, "session renewed")
                case Refused(reason):
                    self._on_event(output)
                    return _refusal(reason)
                case SignalConnected():
                    self._joined_at = now
                    self._error = None
                    self._told.clear()
                    log.info("rendezvous %s: connected", self._url)
                    self._on_event(output)
                case _:
                    self._on_event(output)
        return None


def _refusal(reason: str) -> _End:
    kind = Failure.UNWELCOME if reason in UNWELCOME else Failure.REFUSED
    return _End(kind, EXPLAINED.get(reason, f"refused: {one_line(reason)}"))
