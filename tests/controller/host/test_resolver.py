"""The executor for which nobody waits."""

import asyncio
import threading

import pytest

from controller.host.resolver import DaemonThreads


async def test_results_and_errors_come_back() -> None:
    loop = asyncio.get_running_loop()
    executor = DaemonThreads()
    assert await loop.run_in_executor(executor, divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await loop.run_in_executor(executor, divmod, 7, 0)


def test_the_end_does_not_wait() -> None:
    release, started = threading.Event(), threading.Event()

    def block() -> None:
        started.set()
        release.wait(60)

    executor = DaemonThreads()
    future = executor.submit(block)
    assert started.wait(10)
    executor.shutdown(wait=True)
    assert not future.done()
    release.set()
    assert future.result(10) is None
