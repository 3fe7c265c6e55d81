"""Waiting for what other tasks and programs do."""

import asyncio
from collections.abc import Callable

PATIENCE_S = 40.0


async def until(there: Callable[[], bool]) -> None:
    """Wait until it is so. Raises TimeoutError."""
    async with asyncio.timeout(PATIENCE_S):
        while not there():  # noqa: ASYNC110 (what it waits for is another program's, too)
            await asyncio.sleep(0.01)
