"""A node's standing connection to one rendezvous: signalling over websockets."""

import asyncio
import logging
import math
import ssl
from collections import Counter
from collections.abc import Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from controller.errors import ChannelClosed, ConnectFailed, one_line
from controller.signal.events import Refused, SignalConnected
from controller.signal.keys import NetworkKeys
from controller.signal.port import Listener, SignalState
from controller.signal.websocket.backoff import STABLE_AFTER_S, Backoff, Failure
from controller.signal.websocket.messages import Reason
from controller.signal.websocket.presence import Phase, Presence, Renew, Transmit
from controller.signal.websocket.transport import Channel, connect
from tincan.crypto.primitives import PrivateKey

JOIN_TIMEOUT_S: Final = 10.0
"""Time from an open websocket to the list of members."""
PROBE_TIMEOUT_S: Final = 2.0
"""Time for a sign of life after a change of the network."""
MAX_REMEMBERED_ERRORS: Final = 8
"""Texts that are logged once only during an outage."""
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
"""Reasons of the rendezvous that a short wait does not cure."""
EXPLAINED: Final[dict[str, str]] = {
    Reason.WRONG_SECRET: "wrong secret: others use this network's name with another secret",
    Reason.UNKNOWN_NETWORK: "it does not serve a network of this name",
    Reason.REPLACED: "replaced: another process runs with this node's key (a copied state_dir?)",
    Reason.BAD_PROOF: "it does not accept our proof of membership",
    Reason.VERSION: "it speaks another version of the protocol",
}
"""What people are told about a reason."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _End:
    """How a connection ended, and what people are told about it."""

    failure: Failure
    text: str


class SignalClient:
    """Signalling (``signal.port``) through one rendezvous.

        client = SignalClient("ws://rendezvous.example:8765", keys, private, "host-a", on_event)
        group.create_task(client.run())          # until cancelled; never raises anything else
        client.send(peer_id, payload)            # False: not now; try again upon Present
        client.network_changed()                 # addresses or routes changed: do not wait
        client.state                             # for status: url, connected, error

    Several rendezvous are several clients: each has presence of its own, and a message sealed for
    one cannot be replayed through another.
    """

    def __init__(
        self,
        url: str,
        keys: NetworkKeys,
        private: PrivateKey,
        name: str,
        on_event: Listener,
        *,
        counters: Counter[str] | None = None,
        tls: ssl.SSLContext | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        """Make a client; ``name`` is this node's name for people.

        ``tls`` replaces the system's default context, ``backoff`` the usual delays.
        """
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
        """The state of the connection."""
        return SignalState(self._url, self._presence.phase is Phase.JOINED, self._error)

    @property
    def peers(self) -> dict[str, str]:
        """Names of the members believed to be there, by id."""
        return self._presence.peers

    def send(self, peer: str, payload: bytes) -> bool:
        """Seal ``payload`` (at most MAX_PAYLOAD_BYTES) and queue it for ``peer``.

        True is no promise that it arrives. False: not connected, no such member present, too
        long, or the queue is full.
        """
        if self._channel is None:
            return False
        message = self._presence.seal(peer, payload)
        return message is not None and self._channel.post(message)

    def network_changed(self, gone: Collection[str] = ()) -> None:
        """Retry now, or check the connection, because addresses or routes of this host changed.

        A connection from an address that is ``gone`` is dead, and is not waited for. An attempt
        that was begun before is given up: it may use such an address or a route that is gone.
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
            if end.failure is Failure.TROUBLE and loop.time() - self._joined_at >= STABLE_AFTER_S:
                self._backoff.succeeded()
            delay = self._backoff.failed(end.failure)
            self._failed(end.text)
            try:
                async with asyncio.timeout(delay):
                    await self._hurry.wait()
            except TimeoutError:
                pass

    def _failed(self, text: str) -> None:
        """Note why there is no connection, and log it once during an outage."""
        self._error = text
        self.counters["signal_connection_failures"] += 1
        if text in self._told:
            return
        if len(self._told) < MAX_REMEMBERED_ERRORS:
            self._told.add(text)
            log.warning("rendezvous %s: %s; retrying", self._url, text)

    async def _connection(self) -> _End:
        """Make a connection and use it to its end; return how it ended."""
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
        """Join through ``channel`` and handle what comes, until it ends."""
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
        """Check the connection after each change of the network."""
        while True:
            await self._hurry.wait()
            self._hurry.clear()
            await channel.probe(PROBE_TIMEOUT_S)

    async def _read(self, channel: Channel) -> _End:
        """Handle messages until one of them ends the connection; raise ChannelClosed."""
        try:
            async with asyncio.timeout(JOIN_TIMEOUT_S):
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
    """Return the end of a connection that the rendezvous refused with ``reason``."""
    kind = Failure.UNWELCOME if reason in UNWELCOME else Failure.REFUSED
    return _End(kind, EXPLAINED.get(reason, f"refused: {one_line(reason)}"))
