"""An event loop whose hottest descriptors are served before anything else is set up.

asyncio makes a Handle of every event, queues it and runs it in a context: about 6 us between the
kernel's word and ours, of the 25 that a small frame takes in all. Here the callback of a *hot*
descriptor runs as soon as epoll has named it; everything else goes asyncio's way.
"""

import asyncio
import logging
import selectors
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)

EVENT_READ = selectors.EVENT_READ


class HotSelector(selectors.EpollSelector):
    """An epoll selector with ``hot`` descriptors: registered with a callable as their data."""

    def __init__(self) -> None:
        super().__init__()
        self._hot: set[int] = set()

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever ``fd`` is readable."""
        self.register(fd, EVENT_READ, callback)
        self._hot.add(fd)

    def unwatch(self, fd: int) -> None:
        """Stop that; before ``fd`` is closed."""
        self._hot.discard(fd)
        self.unregister(fd)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """As EpollSelector.select, but for what is hot: that is done when this returns."""
        cold = []
        hot = self._hot
        for key, events in super().select(timeout):
            if isinstance(key.data, tuple):  # asyncio's (reader, writer)
                cold.append((key, events))
            elif key.fd in hot:  # an earlier one of this round may have closed it
                try:
                    key.data()
                except Exception:
                    # The outermost frame: one frame that we fail on must not end the data plane.
                    logger.exception("the pump failed on an event")
        return cold


def run(main: Callable[[HotSelector], Any]) -> None:
    """Run the coroutine that ``main`` makes of the loop's selector, as asyncio.run does."""
    selector = HotSelector()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.run(main(selector))
