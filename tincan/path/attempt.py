"""One run of ICE for a link: an agent, the sockets that it opened, the path that it found.

A link may have two: the one that carries its frames, and the one that tries to do better.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from tincan.device.udp import UdpSocket
from tincan.ice.description import Description
from tincan.path.path import Path
from tincan.pump.ingress import Source

if TYPE_CHECKING:
    from tincan.link.link import Link

ANSWER: Final = 30.0  # s; longer than an answer takes to come and ICE (12 s) to end
VALIDATE: Final = 5.0  # s; a path that ICE found must carry our own probe within this time
VALIDATE_AGAIN: Final = 0.5  # s until that probe is repeated


class Agent(Protocol):
    """What a negotiation needs of ICE (tincan.ice.agent.IceAgent)."""

    async def gather(self) -> Description: ...

    async def connect(self, remote: Description) -> Path: ...

    def stop_consent(self) -> None: ...

    async def close(self) -> None: ...


class Reader(Protocol):
    """Who reads sockets: the pump."""

    def watch(self, source: Source) -> None:
        """Start reading."""

    def unwatch(self, source: Source) -> None:
        """Stop reading."""


class Negotiation:
    """The sockets of one agent (it is the agent's ``Sockets``) and what became of it."""

    def __init__(
        self,
        number: int,
        link: "Link",
        reader: Reader,
        open_socket: Callable[[str, int], UdpSocket],
    ) -> None:
        self.number = number
        self.agent: Agent | None = None
        self.path: Path | None = None
        self.deadline = float("inf")  # when it must have been validated
        self.probe_at = float("inf")  # when it is probed (again), by the elected side
        self.early: tuple[bytes, Source] | None = None  # a handshake that came before the path
        self._link = link
        self._reader = reader
        self._open_socket = open_socket
        self._sources: dict[UdpSocket, Source] = {}

    def open(self, host: str, port: int = 0) -> UdpSocket:
        """Bind a socket of this negotiation and read it; raise SystemRefusal."""
        sock = self._open_socket(host, port)
        source = self._sources[sock] = Source(sock, self._link, self)
        self._reader.watch(source)
        return sock

    def close(self, sock: UdpSocket) -> None:
        """Stop reading a socket and close it."""
        source = self._sources.pop(sock, None)
        if source is not None:
            self._reader.unwatch(source)
            sock.close()

    async def gather(self) -> Description:
        """Return our description; raise LinkError when there is nothing to offer."""
        assert self.agent is not None
        return await self.agent.gather()

    def source(self) -> Source | None:
        """Any of the sources: where data from a stream relay is said to come from."""
        return next(iter(self._sources.values()), None)

    def news_of_drops(self) -> int:
        """Datagrams that its sockets have lost since the last call for want of room."""
        return sum(sock.news_of_drops() for sock in self._sources)

    async def end(self) -> None:
        """Free the agent and every socket."""
        if self.agent is not None:
            await self.agent.close()
        for sock in list(self._sources):
            self.close(sock)


class Lingering:
    """Negotiations that are over, but for what is still in flight on their paths."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, Negotiation]] = []
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def deadline(self) -> float:
        """When the next one must end."""
        return min((at for at, _ in self._waiting), default=float("inf"))

    def add(self, negotiation: Negotiation, at: float) -> None:
        """Let ``negotiation`` live until ``at``."""
        self._waiting.append((at, negotiation))

    def end(self, now: float) -> None:
        """End those whose time has come."""
        due = [negotiation for at, negotiation in self._waiting if at <= now]
        self._waiting = [(at, negotiation) for at, negotiation in self._waiting if at > now]
        for negotiation in due:
            task = asyncio.get_running_loop().create_task(negotiation.end())
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    def take(self) -> list[Negotiation]:
        """Return all that are left: the caller ends them."""
        left = [negotiation for _, negotiation in self._waiting]
        self._waiting.clear()
        return left
