"""The pages over HTTP, for browsers and for others."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from controller.routes import http
from controller.routes.metalbond import MetalBond
from controller.routes.values import Destination, NextHop, Vni
from tests.controller.routes.waiting import until


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """The port of a node that has received one route."""
    async with MetalBond() as bond, MetalBond() as other:
        other.announce_route(Vni(23), Destination.parse("10.0.1.0/24"), NextHop.parse("::1"))
        other.add_peer(await bond.start_server("[::1]:0"))
        where = await bond.start_http_server("[::1]:0")
        await until(lambda: bool(bond.speaker.reflector.received.routes))
        yield int(where.rpartition(":")[2])


async def ask(port: int, request: bytes) -> tuple[str, dict[str, str], bytes]:
    """Return the status, the headers and the body of an answer."""
    reader, writer = await asyncio.open_connection("::1", port)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return status, dict(line.split(": ", 1) for line in lines), body


@pytest.mark.parametrize(
    ("path", "kind", "has"),
    [
        ("/", "text/html; charset=utf-8", b"10.0.1.0/24"),
        ("/routes.json", "application/json", b'{\\"IPVersion\\":4,\\"Prefix\\":\\"10.0.1.0/24\\"}'),
        ("/routes.yaml?x=y", "text/yaml", b"targetaddress"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8", b'metalbond_routes{vni="23"} 1\n'),
    ],
)
async def test_pages(port: int, path: str, kind: str, has: bytes) -> None:
    status, headers, body = await ask(port, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert status == "HTTP/1.1 200 OK"
    assert headers["Content-Type"] == kind
    assert int(headers["Content-Length"]) == len(body)
    assert has in body
    status, headers, body = await ask(port, f"HEAD {path} HTTP/1.0\r\n\r\n".encode())
    assert (status, body) == ("HTTP/1.1 200 OK", b"")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /nothing HTTP/1.1\r\n\r\n", "404"),
        (b"POST / HTTP/1.1\r\n\r\n", "405"),
        (b"nonsense\r\n\r\n", "400"),
        (b"\xff\xfe\x00 \x01 HTTP/1.1\r\n\r\n", "405"),
    ],
)
async def test_others(port: int, request_: bytes, status: str) -> None:
    assert (await ask(port, request_))[0].split()[1] == status


async def test_too_long_and_too_slow_and_too_many(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = await asyncio.open_connection("::1", port)
    writer.write(b"GET / HTTP/1.1\r\n" + b"x" * 200_000)
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()
    monkeypatch.setattr(http, "TIMEOUT_S", 0.2)
    reader, writer = await asyncio.open_connection("::1", port)
    assert await reader.read() == b""
    writer.close()
    monkeypatch.setattr(http, "MAX_CONNECTIONS", 0)
    assert (await ask(port, b""))[2] == b""
