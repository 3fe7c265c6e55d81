"""One controller after another at the unix socket: nothing of the first reaches the second."""

import asyncio
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from tincan.control import messages as api
from tincan.control.codec import Raw, encode
from tincan.control.server import ApiServer
from tincan.daemon import Tincan
from tincan.device.device import Offloads
from tincan.device.tap import Tap
from tincan.pump.loop import HotSelector
from tincan.switching.table import LOCAL


def connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    sock.connect(str(path))
    return sock


async def test_an_answer_goes_to_nobody_but_who_asked(tmp_path: Path) -> None:
    asked = asyncio.Event()
    go_on = asyncio.Event()

    async def slow(_: api.Page) -> tuple[str, None]:
        asked.set()
        await go_on.wait()
        return "slow", None

    async def quick(_: api.Page) -> tuple[str, None]:
        return "quick", None

    path = tmp_path / "s"
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as tasks:
        methods: dict[str, Any] = {"slow": (api.Page, slow), "quick": (api.Page, quick)}
        server = ApiServer(path, methods, tasks, gone=lambda: None)
        with connect(path) as first:
            await loop.sock_sendall(first, encode(api.Request("slow", Raw(b"{}"), 1)))
            await asked.wait()
        with connect(path) as second:
            answers = []
            for _ in range(2):
                await loop.sock_sendall(second, encode(api.Request("quick", Raw(b"{}"), 1)))
                answers.append(json.loads(await loop.sock_recv(second, 1 << 16))["result"])
                go_on.set()
                await asyncio.sleep(0.01)
        assert answers == ["quick", "quick"]
        server.close()


async def test_an_orphan_whose_tap_was_deleted_ends(tmp_path: Path) -> None:
    """Its descriptor would be ready, and refuse to be read, for a quarter of an hour."""
    no_device = os.open(os.devnull, os.O_RDWR)
    async with asyncio.TaskGroup() as tasks, asyncio.timeout(5):
        tincan = Tincan(tmp_path, tasks, HotSelector())
        tincan._tap = Tap(no_device, "tap", bytes(6), Offloads())
        await tincan.housekeeping()
        assert tincan.finished.is_set()
        await tincan.close()


async def test_an_event_of_the_pump_is_told_after_its_wake_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The news may find the controller gone, of which the peers are told at once."""
    told: list[object] = []
    async with asyncio.TaskGroup() as tasks:
        tincan = Tincan(tmp_path, tasks, HotSelector())
        monkeypatch.setattr(tincan, "_emit", told.append)
        tincan._claimed(bytes(6), 0, LOCAL)
        assert told == []
        await asyncio.sleep(0.01)
        assert told == [api.MacClaimed("00:00:00:00:00:00", 0, None)]
        await tincan.close()
