"""The unix socket's server: whatever a client says, it is answered or dropped, and the next one
is served."""

import asyncio
import json
import os
import socket
import stat
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tincan.control import messages as api
from tincan.control.codec import encode
from tincan.control.server import MAX_WAITING, ApiServer
from tincan.errors import ApiError, LinkError, SystemRefusal


class Client:
    """A controller's end; asks in the running loop."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self.sock.connect(str(path))

    async def say(self, message: bytes, descriptors: list[int] | None = None) -> None:
        if descriptors:
            socket.send_fds(self.sock, [message], descriptors)
        else:
            await asyncio.get_running_loop().sock_sendall(self.sock, message)

    async def hear(self) -> dict[str, Any]:
        async with asyncio.timeout(5):
            data = await asyncio.get_running_loop().sock_recv(self.sock, 1 << 17)
        found: dict[str, Any] = json.loads(data)
        return found

    async def ask(self, method: str, params: object = None, number: int = 1) -> dict[str, Any]:
        request = {"jsonrpc": "2.0", "method": method, "params": params, "id": number}
        await self.say(encode(request))
        return await self.hear()


class Methods:
    """What is served here."""

    def __init__(self) -> None:
        self.pages: list[int] = []
        self.gone = 0
        self.server: ApiServer | None = None
        self.descriptors: list[int | None] = []

    async def page(self, wish: api.Page) -> tuple[int, None]:
        self.pages.append(wish.cursor)
        return wish.cursor + 1, None

    async def refuse(self, _: None) -> tuple[None, None]:
        raise ApiError(api.REFUSED, "no")

    async def fail(self, wish: api.Page) -> tuple[None, None]:
        raise [SystemRefusal("the system"), LinkError("the link"), ZeroDivisionError()][wish.cursor]

    async def large(self, _: None) -> tuple[str, None]:
        return "x" * api.MAX_MESSAGE, None

    async def take(self, _: None) -> tuple[None, int | None]:
        assert self.server is not None
        self.descriptors.append(self.server.take_descriptor())
        return None, self.descriptors[-1]

    def left(self) -> None:
        self.gone += 1


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[Methods]:
    methods = Methods()
    async with asyncio.TaskGroup() as tasks:
        methods.server = ApiServer(
            path,
            {
                "page": (api.Page, methods.page),
                "refuse": (None, methods.refuse),
                "fail": (api.Page, methods.fail),
                "large": (None, methods.large),
                "take": (None, methods.take),
            },
            tasks,
            methods.left,
        )
        yield methods
        methods.server.close()
        assert not os.path.exists(path)  # noqa: ASYNC240


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tincan.sock"


def test_mode(path: Path) -> None:
    async def run() -> None:
        async with serving(path):
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o600

    asyncio.run(run())


async def test_answers(path: Path) -> None:
    async with serving(path) as methods:
        client = Client(path)
        assert (await client.ask("page", {"cursor": 4}))["result"] == 5
        assert (await client.ask("page", {"cursor": 7}, number=9))["id"] == 9
        await client.say(encode({"method": "page", "params": {"cursor": 1}}))  # wants no answer
        assert (await client.ask("page", {}))["result"] == 1
        assert methods.pages == [4, 7, 1, 0]


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("no_such", None, api.METHOD_NOT_FOUND),
        ("page", None, api.INVALID_PARAMS),
        ("page", {"cursor": "1"}, api.INVALID_PARAMS),
        ("page", {"cursor": 1, "more": 2}, api.INVALID_PARAMS),
        ("page", [1], api.INVALID_PARAMS),
        ("refuse", None, api.REFUSED),
        ("fail", {"cursor": 0}, api.REFUSED),
        ("fail", {"cursor": 1}, api.REFUSED),
        ("fail", {"cursor": 2}, api.REFUSED),  # a fault of ours
        ("large", None, api.REFUSED),
    ],
)
async def test_refusals(path: Path, method: str, params: object, code: int) -> None:
    async with serving(path):
        client = Client(path)
        assert (await client.ask(method, params))["error"]["code"] == code
        assert (await client.ask("page", {"cursor": 1}))["result"] == 2


@pytest.mark.parametrize(
    "message",
    [
        b"{",
        b"[]",
        b"\xff\xfe",
        b"null",
        b'{"method":1}',
        b'{"method":"page","id":"x"}',
        b'{"method":"page","id":' + b"9" * 4301 + b"}",
        b"[" * 60000,
        b'{"method":"page","params":' + b'{"a":' * 10000,
        b'{"jsonrpc":"1.0","method":"page"}',
        b" " * (api.MAX_MESSAGE + 1),
        b"x" * 150_000,
    ],
    ids=lambda message: message[:24].decode("latin-1"),
)
async def test_nonsense(path: Path, message: bytes) -> None:
    async with serving(path):
        client = Client(path)
        await client.say(message)
        assert (await client.hear())["error"]["code"] in (api.PARSE_ERROR, api.INVALID_REQUEST)
        assert (await client.ask("page", {"cursor": 1}))["result"] == 2


async def test_the_newest_client_is_served(path: Path) -> None:
    async with serving(path) as methods:
        first, second = Client(path), Client(path)
        assert (await second.ask("page", {"cursor": 1}))["result"] == 2
        assert methods.gone == 1
        assert await asyncio.get_running_loop().sock_recv(first.sock, 10) == b""
        assert (await second.ask("page", {"cursor": 2}))["result"] == 3
        second.sock.close()
        await asyncio.sleep(0.05)
        assert methods.gone == 2
        third = Client(path)
        assert (await third.ask("page", {"cursor": 3}))["result"] == 4


async def test_a_client_that_does_not_read_counts_as_gone(path: Path) -> None:
    async with serving(path) as methods:
        assert methods.server is not None
        client = Client(path)
        assert (await client.ask("page", {"cursor": 1}))["result"] == 2
        for number in range(MAX_WAITING + 2000):
            methods.server.notify("event", {"number": number, "text": "x" * 200})
        assert methods.gone == 1
        assert (await Client(path).ask("page", {"cursor": 1}))["result"] == 2


async def test_events_keep_their_order(path: Path) -> None:
    """Also those that had to wait for the client to read."""
    async with serving(path) as methods:
        assert methods.server is not None
        client = Client(path)
        await client.ask("page", {"cursor": 1})
        for number in range(2000):
            methods.server.notify("event", {"number": number, "text": "x" * 300})
        heard = [(await client.hear())["params"]["number"] for _ in range(2000)]
        assert heard == list(range(2000))


async def test_descriptors(path: Path) -> None:
    """The newest is kept, the others are closed; it is passed back; none leaks."""
    async with serving(path) as methods:
        client = Client(path)
        await client.ask("page", {"cursor": 1})
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(50):
            null = os.open("/dev/null", os.O_RDONLY)
            await client.say(encode({"method": "page", "params": {}}), [null])
            os.close(null)
        await client.say(encode({"method": "take", "id": 2}))
        async with asyncio.timeout(5):
            await asyncio.sleep(0.05)
            _, (back,), _, _ = socket.recv_fds(client.sock, 1 << 16, 4)
        assert methods.descriptors[0] is not None
        os.close(methods.descriptors[0])
        os.close(back)
        assert len(os.listdir("/proc/self/fd")) == before


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
requests = st.fixed_dictionaries(
    {},
    optional={
        "method": st.sampled_from(["page", "refuse", "fail", "large", "nothing"]) | anything,
        "params": st.fixed_dictionaries({"cursor": st.integers(0, 2) | anything}) | anything,
        "id": st.integers(0, 9) | anything,
        "jsonrpc": st.just("2.0") | anything,
    },
)
messages = st.binary(min_size=1, max_size=300) | requests.map(
    lambda request: json.dumps(request).encode()
)


@given(st.lists(messages, max_size=12))
@settings(max_examples=80, deadline=None)
def test_whatever_is_said(said: list[bytes]) -> None:
    """It stays one answer or none to each, and the last, sound one is answered."""

    async def run(path: Path) -> None:
        async with serving(path) as methods:
            client = Client(path)
            for message in said:
                await client.say(message)
            request = {"jsonrpc": "2.0", "method": "page", "params": {"cursor": 41}, "id": 4242}
            await client.say(encode(request))
            answers = 0
            while (answer := await client.hear()).get("id") != 4242:
                answers += 1
                assert "error" in answer or "result" in answer
            assert answer["result"] == 42
            assert answers <= len(said)
            assert methods.gone == 0

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(run(Path(directory) / "tincan.sock"))


def test_a_socket_that_was_left_is_replaced(path: Path) -> None:
    """By a process that was killed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left:
        left.bind(str(path))

    async def run() -> None:
        async with serving(path):
            assert (await Client(path).ask("page", {"cursor": 1}))["result"] == 2

    asyncio.run(run())


def test_a_directory_that_is_not_ours(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving(tmp_path / "none" / "tincan.sock"):
            pass

    with pytest.raises(ExceptionGroup) as refused:
        asyncio.run(run())
    assert refused.group_contains(SystemRefusal, match="run_dir")
