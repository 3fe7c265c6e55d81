"""The HTTP server of a node."""

import asyncio
from controller.routes.endpoint import Endpoint
from controller.routes.speaker import Speaker


class HttpServer:
    """x"""

    def __init__(self, speaker: Speaker) -> None:
        self._speaker = speaker

    async def start(self, at: Endpoint, tasks: asyncio.TaskGroup) -> str:
        """x"""
        return ""

    def close(self) -> None:
        """x"""
