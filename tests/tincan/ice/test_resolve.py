"""Names of servers."""

import asyncio
import socket
import threading
from typing import Any

import pytest

from tincan.ice.resolve import MAX_LOOKUPS, Resolver


async def test_an_address_needs_no_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", None)
    assert await Resolver().resolve("192.0.2.1", 3478) == [("192.0.2.1", 3478)]
    assert await Resolver().resolve("2001:DB8::1", 3478) == [("2001:db8::1", 3478)]


async def test_a_name_may_have_several_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(host: str, port: int, **_: Any) -> list[Any]:
        assert host == "stun.example"
        hosts = ["2001:db8::1", "192.0.2.1", "192.0.2.1"]
        return [(None, None, 0, "", (host, port)) for host in hosts]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert await Resolver().resolve("stun.example", 5) == [("2001:db8::1", 5), ("192.0.2.1", 5)]


@pytest.mark.parametrize(
    "error", [socket.gaierror(-2, "not known"), UnicodeError("label too long")]
)
async def test_failure_names_the_host(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def look_up(*_: Any, **__: Any) -> list[Any]:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(OSError, match=r"stun\.example"):
        await Resolver().resolve("stun.example", 5)


async def test_a_dead_resolver_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def look_up(*_: Any, **__: Any) -> list[Any]:
        release.wait(10)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    resolve = Resolver().resolve
    waiting = [asyncio.create_task(resolve("stun.example", 5)) for _ in range(MAX_LOOKUPS)]
    await asyncio.sleep(0)
    with pytest.raises(OSError, match="too many"):
        await resolve("stun.example", 5)
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    assert all(thread.daemon for thread in threading.enumerate() if "resolve" in thread.name)
    release.set()
    await asyncio.gather(*waiting[1:])
