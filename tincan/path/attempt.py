"""One run of ICE for a link: an agent, the ports that it opened, the path that it found.

A link may have three: the one that carries its frames, and two that try to do better.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from tincan.device.device import Address
from tincan.device.udp import UdpSocket
from tincan.path.description import Description
from tincan.path.path import Path
from tincan.record.port import Port

ANSWER_S: Final = 30.0
"""How long an attempt may take: longer than an answer takes to come and ICE (12 s) to end."""
VALIDATE_S: Final = 5.0
"""A path that ICE found must carry our own probe within this time."""
VALIDATE_AGAIN_S: Final = 0.5
"""Time until that probe is repeated."""


class Agent(Protocol):
    """What an attempt needs of ICE (tincan.ice.agent.IceAgent)."""

    async def gather(self) -> Description:
        """Open sockets, ask servers, and return our description; raise LinkError."""

    async def connect(self, remote: Description) -> Path:
        """Return the path to the side that ``remote`` describes; raise LinkError."""

    def stop_consent(self) -> None:
        """Leave it to the caller to notice that the path is dead."""

    async def close(self) -> None:
        """Free everything."""


class Reader(Protocol):
    """Reads ports: the pump."""

    def watch(self, port: Port) -> None:
        """Start reading."""

    def unwatch(self, port: Port) -> None:
        """Stop reading, before the socket is closed."""


class Attempt:
    """The ports of one agent (it is the agent's ``Sockets``) and what became of it.

    ``handshake`` gets the handshake datagrams of all its ports: see Port.
    """

    def __init__(
        self,
        number: int,
        handshake: Callable[[bytes, Port, Address, float], None],
        reader: Reader,
        open_socket: Callable[[str, int], UdpSocket],
    ) -> None:
        self.number = number
        self.agent: Agent | None = None
        self.path: Path | None = None
        self.deadline = float("inf")  # when it must have been validated
        self.probe_at = float("inf")  # when it is probed (again), by the elected side
        self.early: tuple[bytes, Port] | None = None  # a handshake that came before the path
        self.stream = Port(None, self, handshake)  # for what comes by a stream to a relay
        self._handshake = handshake
        self._reader = reader
        self._open_socket = open_socket
        self._ports: dict[UdpSocket, Port] = {}

    def open(self, host: str, port: int = 0) -> UdpSocket:
        """Bind a socket of this attempt and read it; raise SystemRefusal."""
        sock = self._open_socket(host, port)
        self._ports[sock] = Port(sock, self, self._handshake)
        self._reader.watch(self._ports[sock])
        return sock

    def close(self, sock: UdpSocket) -> None:
        """Stop reading a socket and close it."""
        port = self._ports.pop(sock, None)
        if port is not None:
            self._reader.unwatch(port)
            sock.close()

    async def gather(self) -> Description:
        """Return our description; raise LinkError when there is nothing to offer."""
        assert self.agent is not None
        return await self.agent.gather()

    def news_of_drops(self) -> int:
        """Return how many datagrams its sockets lost since the last call for want of room."""
        return sum(sock.news_of_drops() for sock in self._ports)

    async def end(self) -> None:
        """Free the agent and every socket."""
        if self.agent is not None:
            await self.agent.close()
        for sock in list(self._ports):
            self.close(sock)


class Retired:
    """Attempts that are over, but for what is still in flight on their paths."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, Attempt]] = []
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def deadline(self) -> float:
        """When ``end`` must be called next."""
        return min((at for at, _ in self._waiting), default=float("inf"))

    def add(self, attempt: Attempt, at: float) -> None:
        """Let ``attempt`` live until ``at``; its user must call ``end`` then."""
        self._waiting.append((at, attempt))

    def end(self, now: float) -> None:
        """End those whose time has come."""
        due = [attempt for at, attempt in self._waiting if at <= now]
        self._waiting = [(at, attempt) for at, attempt in self._waiting if at > now]
        for attempt in due:
            task = asyncio.get_running_loop().create_task(attempt.end())
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    def take(self) -> list[Attempt]:
        """Return all that are left: the caller ends them."""
        left = [attempt for _, attempt in self._waiting]
        self._waiting.clear()
        return left
