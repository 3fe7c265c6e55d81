"""The end of a long-running command."""

import asyncio
import os
import signal

import pytest

from controller.stopping import STOPPING, hold_back, run_until, stop_requested


@pytest.mark.parametrize("number", STOPPING)
async def test_a_signal_that_came_too_early_is_kept(number: signal.Signals) -> None:
    before = {each: signal.getsignal(each) for each in STOPPING}
    hold_back()
    try:
        os.kill(os.getpid(), number)
        stop = stop_requested()
        async with asyncio.timeout(10):
            await stop.wait()
    finally:
        for each in STOPPING:
            asyncio.get_running_loop().remove_signal_handler(each)
            signal.signal(each, before[each])


async def test_work_is_cancelled_when_asked_to_stop() -> None:
    stop = asyncio.Event()
    ended = []

    async def work() -> None:
        stop.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async with asyncio.timeout(10):
        await run_until(stop, work())
    assert ended == [True]


async def test_work_that_ends_by_itself() -> None:
    async with asyncio.timeout(10):
        await run_until(asyncio.Event(), asyncio.sleep(0))


async def test_what_work_raises() -> None:
    async def work() -> None:
        raise ValueError("x")

    with pytest.raises(ExceptionGroup) as caught:
        await run_until(asyncio.Event(), work())
    assert isinstance(caught.value.exceptions[0], ValueError)
