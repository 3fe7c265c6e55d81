"""An event loop whose hottest descriptors are served before anything else is set up.

asyncio makes a Handle of every event, queues it, and looks at its timers between any two: of what
the interpreter does for one full record, that would be a third. Here the callback of a *hot*
descriptor runs as soon as epoll has named it, and the next wait begins at once, as long as nobody
has asked the loop for anything meanwhile. Everything else goes asyncio's way.
"""

import asyncio
import contextvars
import logging
import selectors
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVarTuple

logger = logging.getLogger(__name__)

Ts = TypeVarTuple("Ts")

LONGEST_TURN: Final = 0.05  # s of hot events alone, after which asyncio has its turn regardless
MAX_EVENTS: Final = 64
_IN: Final = 0x001  # EPOLLIN
_OUT: Final = 0x004  # EPOLLOUT


class HotSelector(selectors.EpollSelector):
    """An epoll selector with ``hot`` descriptors, whose callbacks run within ``select``.

    ``asked``: somebody wants something of the loop, so ``select`` must return.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked = False
        self._hot: dict[int, Callable[[], None]] = {}
        self._poll = self._selector.poll  # type: ignore[attr-defined]  # of select.epoll

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever ``fd`` is readable."""
        self.register(fd, selectors.EVENT_READ)
        self._hot[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Stop that; before ``fd`` is closed."""
        del self._hot[fd]
        self.unregister(fd)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """As EpollSelector.select, but for what is hot: that is done when this returns."""
        hot = self._hot
        self.asked = False
        begun = time.monotonic()
        until = begun + (LONGEST_TURN if timeout is None else min(max(timeout, 0), LONGEST_TURN))
        wait = timeout
        while True:
            # Rounded up to the millisecond, as EpollSelector does: never too early for a timer.
            events = self._poll(-1 if wait is None else -(-wait // 0.001) * 0.001, MAX_EVENTS)
            cold = []
            for fd, mask in events:
                callback = hot.get(fd)
                if callback is None:
                    key = self.get_map().get(fd)
                    if key is not None:
                        ready = _ready(mask) & key.events
                        if ready:
                            cold.append((key, ready))
                    continue
                try:
                    callback()
                except Exception:
                    # The outermost frame: one frame that we fail on must not end the data plane.
                    logger.exception("the pump failed on an event")
            if cold or self.asked or not events:
                return cold
            now = time.monotonic()
            if timeout is not None:
                wait = begun + timeout - now
                if wait <= 0:
                    return cold
            if now >= until and timeout != 0:
                # A busy pump: let the loop look at its timers and at the time.
                return cold


def _ready(mask: int) -> int:
    """What an epoll event mask means for asyncio; errors wake both sides."""
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
        self._hot_selector.asked = True
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        self._hot_selector.asked = True
        return super().call_at(when, callback, *args, context=context)


def run(main: Callable[[HotSelector], Coroutine[Any, Any, None]]) -> None:
    """Run the coroutine that ``main`` makes of the loop's selector, as asyncio.run does."""
    selector = HotSelector()
    with asyncio.Runner(loop_factory=lambda: PumpLoop(selector)) as runner:
        runner.run(main(selector))
