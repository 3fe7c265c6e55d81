"""The control socket: short questions from the subcommands to a running controller."""

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.errors import ControlError, SystemRefusal
from controller.operator import server as control_server
from controller.operator.protocol import MAX_REQUEST_BYTES, call
from controller.operator.server import ControlServer
from tincan.control.codec import Struct, convert


class Clear(Struct):
    ip: str


async def slow(_: dict[str, Any]) -> str:
    await asyncio.sleep(0.01)
    return "at last"


def refuse(_: dict[str, Any]) -> None:
    raise ControlError("not now")


def clear(params: dict[str, Any]) -> dict[str, int]:
    return {"cleared": len(convert(params, Clear).ip)}


METHODS = {
    "echo": lambda params: params,
    "slow": slow,
    "nothing": lambda _: None,
    "refuse": refuse,
    "clear": clear,
    "fault": lambda _: 1 / 0,
    "unspeakable": lambda _: object(),
    "large": lambda _: "x" * 1_000_000,
}


@pytest.fixture
async def path(tmp_path: Path) -> AsyncIterator[Path]:
    async with ControlServer(tmp_path / "controller.sock", METHODS):
        yield tmp_path / "controller.sock"
    assert not (tmp_path / "controller.sock").exists()


async def ask(path: Path, method: str, params: dict[str, Any] | None = None) -> Any:
    return await asyncio.to_thread(call, path, method, params)


async def say(path: Path, data: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(data)
    writer.write_eof()
    try:
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_answers(path: Path) -> None:
    assert await ask(path, "echo", {"a": [1, None, "x"]}) == {"a": [1, None, "x"]}
    assert await ask(path, "echo") == {}
    assert await ask(path, "slow") == "at last"
    assert await ask(path, "nothing") is None
    assert await ask(path, "clear", {"ip": "10.0.3.5"}) == {"cleared": 8}
    assert await ask(path, "large") == "x" * 1_000_000


@pytest.mark.parametrize(
    ("method", "params", "told"),
    [
        ("refuse", {}, "not now"),
        ("clear", {}, "missing required field `ip`"),
        ("clear", {"ip": 5}, "Expected `str`, got `int`"),
        ("fault", {}, "the controller failed to answer; see its log"),
        ("unspeakable", {}, "the controller failed to answer; see its log"),
        ("reboot", {}, 'unknown method "reboot"; known: clear, echo, '),
    ],
)
async def test_refuses(path: Path, method: str, params: dict[str, Any], told: str) -> None:
    with pytest.raises(ControlError) as caught:
        await ask(path, method, params)
    assert told in str(caught.value)
    assert await ask(path, "echo") == {}


async def test_is_private(path: Path) -> None:
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"{",
        b"[]\n",
        b'{"method": 5}\n',
        b'{"method": "echo", "params": []}\n',
        b'{"method": "\xff"}\n',
        b"[" * 50_000 + b"\n",
        b'{"method": "echo", "params": {"a": ' + b"9" * 5000 + b"}}\n",
        b"x" * (MAX_REQUEST_BYTES + 10),
        b"x" * (MAX_REQUEST_BYTES * 20) + b"\n",
    ],
    ids=lambda data: repr(data[:20]),
)
async def test_garbage_gets_an_error(path: Path, data: bytes) -> None:
    answer = await say(path, data)
    assert answer == b"" or answer.startswith((b'{"error":', b'{"result":{"a":9'))
    assert await ask(path, "echo") == {}


@given(data=st.binary(max_size=300))
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_garbage(data: bytes, tmp_path: Path) -> None:
    async def run() -> None:
        async with ControlServer(tmp_path / "s", METHODS):
            assert (await say(tmp_path / "s", data)).startswith(b'{"error":')

    asyncio.run(run())


async def test_a_client_that_says_nothing_is_dropped(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_server, "DEADLINE_S", 0.1)
    reader, writer = await asyncio.open_unix_connection(path)
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()


async def test_a_client_that_does_not_read_is_dropped(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_server, "DEADLINE_S", 0.1)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b'{"method": "large"}\n')
        await asyncio.sleep(0.3)
        received = 0
        while part := client.recv(1 << 16):
            received += len(part)
        assert received < 1_000_000
        assert await ask(path, "echo") == {}


async def test_too_many_clients(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_server, "MAX_CLIENTS", 2)
    idle = [await asyncio.open_unix_connection(path) for _ in range(2)]
    with pytest.raises(ControlError, match="too many are asking"):
        await ask(path, "echo")
    for _, writer in idle:
        writer.close()
        await writer.wait_closed()
    await asyncio.sleep(0.05)
    assert await ask(path, "echo") == {}


async def test_closing_does_not_wait_for_clients(tmp_path: Path) -> None:
    async with asyncio.timeout(5):
        async with ControlServer(tmp_path / "s", METHODS):
            _, writer = await asyncio.open_unix_connection(tmp_path / "s")
            await asyncio.sleep(0)
        writer.close()


async def test_takes_over_what_a_killed_process_left(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
    async with ControlServer(tmp_path / "s", METHODS):
        assert await ask(tmp_path / "s", "echo") == {}


async def test_cannot_listen(tmp_path: Path) -> None:
    with pytest.raises(SystemRefusal, match="cannot listen on"):
        async with ControlServer(tmp_path / "missing" / "s", METHODS):
            pass
