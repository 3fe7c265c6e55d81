"""Real rendezvous and nodes on the loopback, and a wire between them that can be cut."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from controller.config.endpoint import Endpoint
from controller.signal.events import Event, Present, Received
from controller.signal.keys import NetworkKeys
from controller.signal.rendezvous.quota import Limits
from controller.signal.rendezvous.server import Rendezvous
from controller.signal.websocket.backoff import Backoff
from controller.signal.websocket.client import SignalClient
from tests.controller.signal.memory import KEYS
from tincan.crypto.primitives import PrivateKey

PATIENCE = 20.0  # seconds; no test waits that long unless it fails


async def eventually(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def rendezvous(
    port: int = 0, *, host: str = "127.0.0.1", limits: Limits | None = None
) -> Rendezvous:
    return Rendezvous(Endpoint(host, port), limits=limits)


class LiveNode:
    """A SignalClient and what it told."""

    def __init__(
        self,
        url: str,
        name: str,
        *,
        keys: NetworkKeys = KEYS,
        private: PrivateKey | None = None,
        tls: ssl.SSLContext | None = None,
        pace: float = 1.0,
    ) -> None:
        """``pace``: factor of the delays between tries, instead of jitter if not 1."""
        self.private = private or PrivateKey.generate()
        self.id = self.private.public.hex()
        self.events: list[Event] = []
        backoff = Backoff() if pace == 1.0 else Backoff(uniform=lambda low, high: pace)
        self.client = SignalClient(
            url, keys, self.private, name, self.events.append, tls=tls, backoff=backoff
        )

    @property
    def connected(self) -> bool:
        return self.client.state.connected

    def sees(self, *others: "LiveNode") -> bool:
        return self.client.peers.keys() == {other.id for other in others}

    def sessions_of(self, other: "LiveNode") -> list[bytes]:
        return [
            event.session
            for event in self.events
            if isinstance(event, Present) and event.id == other.id
        ]

    @property
    def payloads(self) -> list[bytes]:
        return [event.payload for event in self.events if isinstance(event, Received)]


@asynccontextmanager
async def running(*nodes: LiveNode) -> AsyncIterator[None]:
    """Run the clients of ``nodes``; a fault of one is a fault of the test."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(node.client.run()) for node in nodes]
        yield
        for task in tasks:
            task.cancel()


class Wire:
    """A TCP forwarder. ``cut``: nothing passes any more, and nobody is told."""

    def __init__(self, target: int, tls: ssl.SSLContext | None = None) -> None:
        self._target = target
        self._tls = tls
        self._whole = asyncio.Event()
        self._whole.set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> "Wire":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self._whole.set()
        for writer in self._writers:
            writer.transport.abort()

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        self._whole.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            onward_reader, onward = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(onward)
            await asyncio.gather(self._carry(reader, onward), self._carry(onward_reader, writer))
        except OSError:
            pass
        finally:
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._whole.wait()
            writer.write(data)
            await writer.drain()
        await self._whole.wait()
        writer.close()
