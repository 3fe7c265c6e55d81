"""How a long-running command ends: SIGTERM or SIGINT sets an event, and what runs is cancelled."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, Final

STOPPING: Final = (signal.SIGTERM, signal.SIGINT)
"""The signals that ask a command to end in good order."""


def hold_back() -> None:
    """Have signals of STOPPING wait until ``stop_requested`` is called.

    Call this before making anything that must be removed again at the end.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)


def stop_requested() -> asyncio.Event:
    """Return an event that a signal of STOPPING sets, also one that was held back until now.

    Call this in the running loop, in the main thread.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in STOPPING:
        loop.add_signal_handler(number, stop.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    return stop


async def run_until(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Run ``work`` until it ends or ``stop`` is set, which cancels it.

    Raises what ``work`` raises, in an ExceptionGroup.
    """
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(work)
        waiting = tasks.create_task(stop.wait())
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        running.cancel()
        waiting.cancel()
