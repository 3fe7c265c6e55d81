"""The event loop's executor, for calls that may block when the resolver is dead."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class DaemonThreads(ThreadPoolExecutor):
    """An executor with one daemon thread for each call; the end of the program waits for none.

    The event loop runs getaddrinfo in its executor. With a dead resolver that call blocks for
    half a minute, and asyncio.run as well as the interpreter would wait for it before they end.
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Call ``fn`` in a new thread; return the future of its result."""
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()

        def work() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # handed to the caller, whatever it is
                future.set_exception(error)

        threading.Thread(target=work, daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Return at once: the threads go on, and die with the process."""
