"""An event loop whose hottest descriptors are served before anything else is set up.

asyncio makes a Handle of every event, queues it, and looks at its timers between any two: of what
the interpreter does for one full record, that would be a third. Here the callback of a *hot*
descriptor runs as soon as epoll has named it, and the next wait begins at once, as long as nobody
has asked the loop for anything meanwhile. Everything else goes asyncio's way.
"""

import asyncio
import contextvars
import logging
import math
import selectors
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVarTuple

logger = logging.getLogger(__name__)

Ts = TypeVarTuple("Ts")

LONGEST_TURN: Final = 0.05
"""Seconds of hot events alone, after which asyncio has its turn regardless."""
WARM: Final = 0.05
"""Seconds between two events up to which rehearsals go on, and for how long after the last one."""
REHEARSAL: Final = 0.002
"""Seconds from one rehearsal (pump.rehearsal) to the next."""
MAX_EVENTS: Final = 64
"""Events of one wait."""
_IN: Final = 0x001
_OUT: Final = 0x004
"""EPOLLIN, EPOLLOUT."""


class HotSelector(selectors.EpollSelector):
    """An epoll selector with ``hot`` descriptors, whose callbacks run within ``select``.

    ``asked``: somebody wants something of the loop, so ``select`` must return.

    ``rehearse`` is called every REHEARSAL while events are less than WARM apart.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked = False
        self.rehearse: Callable[[float], object] = lambda _: None
        self._moved = -math.inf  # when a callback last said that it had moved something
        self._warm_until = -math.inf
        self._hot: dict[int, Callable[[float], bool]] = {}
        self._poll = self._selector.poll  # type: ignore[attr-defined]  # of select.epoll

    def watch(self, fd: int, callback: Callable[[float], bool]) -> None:
        """Call ``callback`` with the time whenever ``fd`` is readable.

        It returns whether it has moved anything.
        """
        self.register(fd, selectors.EVENT_READ)
        self._hot[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Stop calling back for ``fd``; call this before it is closed."""
        del self._hot[fd]
        self.unregister(fd)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait as EpollSelector does, and serve what is hot: that is done when this returns."""
        hot, poll, clock = self._hot, self._poll, time.monotonic
        self.asked = False
        now = clock()
        due = math.inf if timeout is None else now + timeout
        until = 0.0
        wait = timeout
        cold: list[tuple[selectors.SelectorKey, int]] = []
        while True:
            warm = self._warm_until > now and (wait is None or wait > REHEARSAL)
            if warm:
                rest = REHEARSAL
            elif wait is None:
                rest = -1.0
            else:  # up to the millisecond, as EpollSelector does: never too early for a timer
                rest = math.ceil(wait * 1e3) * 1e-3
            events = poll(rest, MAX_EVENTS)
            now = clock()
            for fd, mask in events:
                callback = hot.get(fd)
                if callback is None:
                    key = self.get_map().get(fd)
                    if key is not None and _ready(mask) & key.events:
                        cold.append((key, _ready(mask) & key.events))
                    continue
                try:
                    if callback(now):
                        if now - self._moved < WARM:
                            self._warm_until = now + WARM
                        self._moved = now
                except Exception:
                    # The outermost frame: one frame that we fail on must not end the data plane.
                    logger.exception("the pump failed on an event")
            if warm and not events:
                try:
                    self.rehearse(now)
                except Exception:  # as above
                    logger.exception("the rehearsal failed")
                    self._warm_until = -math.inf
            until = until or now + LONGEST_TURN
            if cold or self.asked or now >= due or not (events or warm) or now >= until:
                # Beyond ``until``: a busy pump lets the loop look at its timers and at the time.
                return cold
            wait = None if timeout is None else due - now


def _ready(mask: int) -> int:
    """Return what an epoll event mask means for asyncio; errors wake both sides."""
    ready = 0
    if mask & ~_IN:
        ready |= selectors.EVENT_WRITE
    if mask & ~_OUT:
        ready |= selectors.EVENT_READ
    return ready


class PumpLoop(asyncio.SelectorEventLoop):
    """A loop that tells its selector when it has been asked for something."""

    def __init__(self, selector: HotSelector) -> None:
        self._hot_selector = selector
        super().__init__(selector)

    def call_soon(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """Do as asyncio does, and have ``select`` return."""
        self._hot_selector.asked = True
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Do as asyncio does, and have ``select`` return."""
        self._hot_selector.asked = True
        return super().call_at(when, callback, *args, context=context)


def run(main: Callable[[HotSelector], Coroutine[Any, Any, None]]) -> None:
    """Run the coroutine that ``main`` makes of the loop's selector, as asyncio.run does."""
    selector = HotSelector()
    with asyncio.Runner(loop_factory=lambda: PumpLoop(selector)) as runner:
        runner.run(main(selector))
