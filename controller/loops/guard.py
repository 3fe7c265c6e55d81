"""The loop guard: beacons out and in, the pure ``Loops`` between, and its word carried out."""

import asyncio
import contextlib
import logging
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

from controller.dataplane.client import Tunnel
from controller.errors import MalformedFrame, SystemRefusal
from controller.host.packet_socket import open_packet_socket, overrun
from controller.loops import beacon
from controller.loops.machine import Action, Change, Emit, Loops, State
from controller.packets.addresses import Mac, NodeId
from controller.packets.filters import frames_to
from tincan.control import messages as api

log = logging.getLogger(__name__)

RECEIVE_BUFFER: Final = 64 << 10
"""Bytes: about 80 beacons."""
READ_BUDGET: Final = 16
"""Beacons per wake-up: 16 MACs are 0.2 ms."""
PAUSE: Final = 0.01
"""Seconds without reading after that many: a flood costs 2 % of a core."""
LOOK_EVERY: Final = 0.5
"""In seconds: while there is a loop: whose controllers are gone?"""


class Guard:
    """Keeps loops out of one TAP.

    ``changed`` hears that the segment is another one, and whether the TAP is blocked;
    ``forget_entries`` has the bridge learn anew; ``active`` says whether the TAP joins a bridge
    and a link, without which there can be no loop; ``name`` names a node.
    """

    def __init__(
        self,
        node: NodeId,
        source: Mac,
        key: bytes,
        tap: str,
        tunnel: Tunnel,
        counters: Counter[str],
        *,
        changed: Callable[[bool], None],
        forget_entries: Callable[[], Awaitable[None]],
        active: Callable[[], bool],
        name: Callable[[NodeId], str],
    ) -> None:
        self.loops = Loops(node)
        self._source = source
        self._key = key
        self._tap = tap
        self._tunnel = tunnel
        self._counters = counters
        self._changed = changed
        self._forget_entries = forget_entries
        self._active = active
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._news = asyncio.Event()

    # --- life

    def open(self) -> None:
        """Listen on the TAP, and start the clock. Raise SystemRefusal."""
        self._shut()
        try:
            program = frames_to(beacon.DESTINATION)
            sock = open_packet_socket(self._tap, program, RECEIVE_BUFFER)
        except OSError as error:
            raise SystemRefusal(f"listening on {self._tap} failed: {error.strerror}") from error
        self._socket = sock
        self._loop.add_reader(sock.fileno(), self._readable, sock)
        self._tick()

    def took_over(self, blocked: bool) -> None:
        """Bring a tincan that is new to us, and us, to the same mind."""
        now = self._loop.time()
        if blocked and self.loops.state is not State.BLOCKED:
            self.loops.resume(now)
            self._news.set()
            self._changed(True)
            log.warning("the TAP was left blocked because of a loop; looking whether it is there")
        elif self.loops.state is State.BLOCKED:
            self._tunnel.notify("set_blocked", api.Blocked(True))

    def wake(self) -> None:
        """There is a link: look now whether it closes a loop."""
        if self._timer is not None:
            self._tick()

    async def watch(self, links: Callable[[], Awaitable[list[api.LinkInfo]]]) -> None:
        """After a change, have the bridge learn anew; while there is a loop, look which peers
        forward without a controller. Runs for ever."""
        while True:
            alone = self.loops.state is State.ALONE
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if alone else LOOK_EVERY):
                    await self._news.wait()
            if self._news.is_set():
                self._news.clear()
                await self._forget_entries()
            if self.loops.state is State.ALONE:
                continue
            try:
                found = await links()
            except SystemRefusal:
                continue  # tincan is being replaced
            up = (link for link in found if link.state == "connected")
            self.loops.unattended(link.peer for link in up if not link.attended)

    def close(self) -> None:
        """Stop listening and sending."""
        self._shut()
        if self._timer is not None:
            self._timer.cancel()

    def _shut(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    # --- in

    def _readable(self, sock: socket.socket) -> None:
        now = self._loop.time()
        for _ in range(READ_BUDGET):
            try:
                frame = sock.recv(2048)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:  # the TAP is down or gone: the capture says so
                break
            try:
                found = beacon.parse(frame, self._key)
            except MalformedFrame as fault:
                self._counters[f"beacons_refused.{fault.reason}"] += 1
                continue
            self._counters[self.loops.heard(found, now)] += 1
        else:
            self._loop.remove_reader(sock.fileno())
            self._loop.call_later(PAUSE, self._listen, sock)
        lost = overrun(sock)
        if lost:
            self._counters["beacons_refused.overrun"] += lost
            self.loops.flooded(now)
        self._tick()

    def _listen(self, sock: socket.socket) -> None:
        if sock is self._socket:
            self._loop.add_reader(sock.fileno(), self._readable, sock)

    # --- out

    def _tick(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        now = self._loop.time()
        self.loops.activate(self._active(), now)
        for action in self.loops.tick(now, time.time_ns() // 1000):
            self._do(action)
        self._timer = self._loop.call_at(self.loops.deadline, self._tick)

    def _do(self, action: Action) -> None:
        if isinstance(action, Emit):
            frame = beacon.build(action.beacon, self._source, self._key)
            self._tunnel.notify("inject", api.Frame(frame))
            return
        blocked = action.state is State.BLOCKED
        self._tunnel.notify("set_blocked", api.Blocked(blocked))
        self._changed(blocked)
        self._news.set()
        if action.state is State.ALONE:
            log.info("the loop is gone: the TAP carries everything again")
        else:
            self._counters["loops_detected"] += 1
            log.warning("%s", self._text(action))

    def _text(self, change: Change) -> str:
        return _describe(change.state, [self._name(node) for node in change.neighbours])

    # --- what status shows

    def _names(self) -> list[str]:
        return [self._name(node) for node in self.loops.proven(self._loop.time())]

    def warnings(self) -> list[str]:
        """What there is to say about a loop now."""
        if self.loops.state is State.ALONE:
            return []
        return [_describe(self.loops.state, self._names())]

    def refusals(self) -> list[dict[str, Any]]:
        """As ``blocked`` in the switch's snapshot."""
        if self.loops.state is not State.BLOCKED:
            return []
        names = ", ".join(self._names()) or "another node"
        return [
            {
                "kind": "everything",
                "peer": names,
                "why": "loop: the same segment outside the overlay",
                "count": self._counters["loops_detected"],
                "age_s": round(self._loop.time() - self.loops.since, 1),
            }
        ]


def _describe(state: State, names: list[str]) -> str:
    others = ", ".join(names) or "another node"
    if state is State.BLOCKED:
        return (
            f"this host shares a network segment with {others} outside the overlay, a loop: its "
            "TAP is blocked until that ends; take the bridge out of that segment"
        )
    return (
        f"this host shares a network segment with {others} outside the overlay, a loop: it serves "
        "the segment, and the TAPs of the others are blocked"
    )
