"""The rendezvous as a server: signalling over websockets and STUN over UDP, in one loop.

    async with Rendezvous(Endpoint.parse("*:8765"), stun=Endpoint.parse("*:3478")) as rendezvous:
        ...                      # it serves; rendezvous.url is for a client on this machine

``controller`` embeds it for ``"signal": {"listen": ...}`` with ``networks={name: key}`` of its
own network; the command ``rendezvous`` runs it alone. It opens no file and needs no privilege.
Its port is public: quota.Limits, transport.py and stun.py bound what strangers may use.
"""

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Final

from controller.config.endpoint import Endpoint
from controller.errors import ChannelClosed, SystemRefusal
from controller.node.rates import Bucket
from controller.signal.rendezvous.quota import Admission, Gate, Limits, source_of
from controller.signal.rendezvous.registry import HangUp, Log, Output, Registry, Transmit
from controller.signal.rendezvous.sockets import bind
from controller.signal.rendezvous.stun import StunServer
from controller.signal.websocket.messages import NONCE_BYTES
from controller.signal.websocket.transport import Channel, Listener
from tincan.crypto.primitives import PrivateKey, random_bytes

JOIN_TIMEOUT_S: Final = 10.0
"""Time from the challenge to a proven answer."""
LOG_RATE: Final = 1.0
"""Log lines a second that strangers can cause."""
LOG_BURST: Final = 50.0
"""Log lines at once that strangers can cause."""

log = logging.getLogger(__name__)


class Rendezvous:
    """A rendezvous that serves inside ``async with``; entering raises SystemRefusal."""

    def __init__(
        self,
        listen: Endpoint,
        stun: Endpoint | None = None,
        *,
        need_stun: bool = True,
        networks: Mapping[str, bytes] | None = None,
        limits: Limits | None = None,
        counters: Counter[str] | None = None,
    ) -> None:
        """Prepare to listen. ``networks``: by name the 32-byte membership key.

        If there are any ``networks``, no others are served. With ``need_stun`` false, a STUN port
        that cannot be had is logged, and the rest is served.
        """
        self.counters: Counter[str] = Counter() if counters is None else counters
        self.port = listen.port
        self.stun_port: int | None = None
        self._listen = listen
        self._stun_endpoint = stun
        self._need_stun = need_stun
        self._gate = Gate(limits or Limits())
        self._registry = Registry(
            PrivateKey.generate(), pins=networks, limits=limits, counters=self.counters
        )
        self._listener = Listener(self._handle, self)
        self._stun: StunServer | None = None
        self._channels: dict[int, Channel] = {}
        self._next = 0
        self._log_tokens = Bucket(LOG_RATE, LOG_BURST)

    @property
    def url(self) -> str:
        """The URL for a client on this machine."""
        host = "127.0.0.1" if self._listen.host in ("", "0.0.0.0") else self._listen.host
        return f"ws://{f'[{host}]' if ':' in host else host}:{self.port}"

    def describe(self) -> str:
        """Return one line for the log: what is served, and where."""
        text = f"signalling on tcp {Endpoint(self._listen.host, self.port)}"
        if self._stun_endpoint is not None and self.stun_port is not None:
            text += f", STUN on udp {Endpoint(self._stun_endpoint.host, self.stun_port)}"
        return text

    @property
    def members(self) -> dict[str, int]:
        """Number of members by network, those without any left out."""
        return self._registry.members

    async def __aenter__(self) -> "Rendezvous":
        sockets = bind(self._listen, socket.SOCK_STREAM, "signalling")
        try:
            stun_sockets = self._bind_stun()
        except BaseException:
            for sock in sockets:
                sock.close()
            raise
        self.port = sockets[0].getsockname()[1]
        if stun_sockets:
            self.stun_port = stun_sockets[0].getsockname()[1]
            self._stun = StunServer(stun_sockets, counters=self.counters)
        await self._listener.start(sockets)
        return self

    def _bind_stun(self) -> list[socket.socket]:
        if self._stun_endpoint is None:
            return []
        try:
            return bind(self._stun_endpoint, socket.SOCK_DGRAM, "STUN")
        except SystemRefusal as error:
            if self._need_stun:
                raise
            log.warning("%s; nodes take what answers there, as a TURN server does", error)
            return []

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._stun is not None:
            self._stun.close()
        await self._listener.close()

    # --- the doorkeeper of transport.py

    def enter(self, host: str) -> str | None:
        """Decide about a connection; see ``transport.Doorkeeper``."""
        match self._gate.enter(source_of(host), self._now()):
            case Admission.WELCOME:
                return None
            case Admission.REFUSE:
                self.counters["signal_refused.quota"] += 1
                self._log(f"refused {host}: too many connections from there")
                return "too many connections from your address; try again later"
            case Admission.DROP:
                self.counters["signal_dropped.quota"] += 1
                raise ConnectionRefusedError

    def leave(self, host: str) -> None:
        """Note the end of a connection."""
        self._gate.leave(source_of(host))

    def meter(self, host: str, messages: int, size: int) -> float:
        """Charge what was read; return for how many seconds to read nothing more."""
        return self._gate.meter(source_of(host), messages, size, self._now())

    # --- one connection

    async def _handle(self, channel: Channel, host: str) -> None:
        number = self._next
        self._next += 1
        self._channels[number] = channel
        try:
            self._carry_out(self._registry.opened(number, host, random_bytes(NONCE_BYTES)))
            async with asyncio.TaskGroup() as group:
                reader = group.create_task(self._read(number, channel))
                await channel.pump()  # returns when the registry hangs up
                reader.cancel()
        except* ChannelClosed:
            pass
        except* Exception:
            # A fault of ours in one connection must not end the others, nor be silent.
            log.exception("connection from %s", host)
        finally:
            self._channels.pop(number, None)
            self._carry_out(self._registry.closed(number, self._now()))

    async def _read(self, number: int, channel: Channel) -> None:
        try:
            async with asyncio.timeout(JOIN_TIMEOUT_S):
                self._receive(number, await channel.receive())
        except TimeoutError:
            self.counters["signal_refused.silent"] += 1
            channel.finish()
            return
        while True:
            self._receive(number, await channel.receive())

    def _receive(self, number: int, data: bytes) -> None:
        self._carry_out(self._registry.received(number, data, self._now()))

    def _carry_out(self, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case Transmit(client, data):
                    channel = self._channels.get(client)
                    if channel is not None and not channel.post(data):
                        # Its own reader notices the cut, and tells the registry.
                        self.counters["signal_dropped.slow_reader"] += 1
                        del self._channels[client]
                        channel.abort()
                case HangUp(client):
                    if client in self._channels:
                        self._channels[client].finish()
                case Log(text):
                    self._log(text)

    def _log(self, text: str) -> None:
        if self._log_tokens.take(self._now()):
            log.info("%s", text)
        else:
            self.counters["signal_log_lines_suppressed"] += 1

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
