"""The HTTP server of a node: four pages, GET and HEAD, one request a connection."""

import asyncio
import logging
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from controller.routes import metrics, pages
from controller.routes.endpoint import Endpoint
from controller.routes.pages import Snapshot
from controller.routes.speaker import Speaker

MAX_CONNECTIONS: Final = 64
MAX_REQUEST_BYTES: Final = 8192
TIMEOUT_S: Final = 10.0
"""For a request to arrive, and for each piece of an answer to leave."""
PIECE_BYTES: Final = 64 << 10
BACKLOG: Final = 64

_RENDERED: Final[dict[str, tuple[str, Callable[[Snapshot], bytes]]]] = {
    "/": ("text/html; charset=utf-8", pages.as_html),
    "/routes.json": ("application/json", pages.as_json),
    "/routes.yaml": ("text/yaml", pages.as_yaml),
}
_METRICS: Final = "/metrics"
_METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

log = logging.getLogger(__name__)


class HttpServer:
    """Shows one node. `start` it, `close` it."""

    def __init__(self, speaker: Speaker, compatible: str) -> None:
        self._speaker = speaker
        self._compatible = compatible
        self._connections = 0
        self._rendering = asyncio.Lock()

    async def start(self, at: Endpoint) -> str:
        """Listen at the address and return where. Raises SystemRefusal."""
        sock = at.listen(BACKLOG)
        where = str(Endpoint(*sock.getsockname()[:2]))
        self._server = await asyncio.start_server(self._serve, sock=sock, limit=MAX_REQUEST_BYTES)
        return where

    def close(self) -> None:
        """Listen no longer."""
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections >= MAX_CONNECTIONS:
            writer.close()
            return
        self._connections += 1
        try:
            await self._answer(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self._connections -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            head = await reader.readuntil(b"\r\n\r\n")
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            status, kind, body = "400 Bad Request", "text/plain", b"not an HTTP/1 request\n"
        elif words[0] not in ("GET", "HEAD"):
            status, kind, body = "405 Method Not Allowed", "text/plain", b"only GET and HEAD\n"
        else:
            status, kind, body = await self._page(words[1].split("?", 1)[0])
        lines = (
            f"HTTP/1.1 {status}",
            f"Content-Type: {kind}",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-store",
            "Connection: close",
            *(("Allow: GET, HEAD",) if status.startswith("405") else ()),
        )
        writer.write("\r\n".join((*lines, "", "")).encode("latin-1"))
        for start in range(0, len(body) if words[0] != "HEAD" else 0, PIECE_BYTES):
            writer.write(body[start : start + PIECE_BYTES])
            async with asyncio.timeout(TIMEOUT_S):
                await writer.drain()

    async def _page(self, path: str) -> tuple[str, str, bytes]:
        if path == _METRICS:
            return "200 OK", _METRICS_TYPE, metrics.as_text(self._speaker)
        if path not in _RENDERED:
            return "404 Not Found", "text/plain", b"see / , /routes.json, /routes.yaml, /metrics\n"
        kind, render = _RENDERED[path]
        async with self._rendering:  # one at a time: each is a copy of the table
            body = await asyncio.to_thread(render, self._snapshot())
        return "200 OK", kind, body

    def _snapshot(self) -> Snapshot:
        peers = [
            (peer.name, peer.state.value, peer.machine.direction.name.lower())
            for peer in self._speaker.peers.values()
        ]
        date = time.strftime("%Y-%m-%d %H:%M:%S")
        return Snapshot(date, _version(), list(self._speaker.routes()), peers, self._compatible)


def _version() -> str:
    try:
        return version("switchmode")
    except PackageNotFoundError:
        return "development"
