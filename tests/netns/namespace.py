"""A network namespace for one test, and coroutines that run inside it."""

import asyncio
import ctypes
import fcntl
import os
import pickle
import shutil
import struct
import subprocess
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

import pytest

T = TypeVar("T")

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("ip") or not os.path.exists("/dev/net/tun"),
    reason="needs root, iproute2 and /dev/net/tun",
)

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """Made on entry, deleted on exit with all that is in it."""

    def __init__(self, name: str) -> None:
        self.name = f"{name}{os.getpid()}"

    def __enter__(self) -> "Namespace":
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        self.sh("ip link set lo up")
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["ip", "netns", "del", self.name], check=False)

    def sh(self, script: str) -> str:
        """Run shell commands in the namespace; their output. Fails with theirs."""
        command = ["ip", "netns", "exec", self.name, "sh", "-ec", script]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
        return done.stdout

    def run(self, scenario: Callable[[], Awaitable[T]], timeout: float = 60.0) -> T:
        """Run a coroutine in a forked child inside the namespace; its (picklable) result.

        What the coroutine raises fails the test with the child's traceback.
        """
        receive, send = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(receive)
            with os.fdopen(send, "wb") as pipe:
                pipe.write(pickle.dumps(self._inside(scenario, timeout)))
            os._exit(0)
        os.close(send)
        with os.fdopen(receive, "rb") as pipe:
            output = pipe.read()
        os.waitpid(child, 0)
        failure, result = pickle.loads(output) if output else ("the child died", None)
        if failure:
            pytest.fail(failure, pytrace=False)
        return cast(T, result)

    def _inside(
        self, scenario: Callable[[], Awaitable[T]], timeout: float
    ) -> tuple[str | None, Any]:
        try:
            with open(f"/run/netns/{self.name}") as namespace:
                if _libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")

            async def bounded() -> T:
                async with asyncio.timeout(timeout):
                    return await scenario()

            return None, asyncio.run(bounded())
        except BaseException:
            return traceback.format_exc(), None


class Tap:
    """A TAP as tincan makes one: non-persistent, here without a virtio header."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(self.fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), 0x1002))

    def read(self) -> bytes | None:
        try:
            return os.read(self.fd, 65536)
        except BlockingIOError:
            return None

    def write(self, frame: bytes) -> None:
        os.write(self.fd, frame)

    def close(self) -> None:
        os.close(self.fd)


def sh(script: str) -> str:
    """Run shell commands where the caller is; their output."""
    done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
    return done.stdout


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait for a condition, politely."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "waited in vain"
        await asyncio.sleep(0.01)
