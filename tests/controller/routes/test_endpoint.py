"""Addresses to listen at and to connect to."""

import pytest

from controller.errors import RouteError, SystemRefusal
from controller.routes.endpoint import Endpoint


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("[::1]:4711", "::1", 4711),
        ("[::]:0", "::", 0),
        ("192.0.2.1:4711", "192.0.2.1", 4711),
        ("a.example:1", "a.example", 1),
        (":4711", "", 4711),
    ],
)
def test_as_written(text: str, host: str, port: int) -> None:
    assert Endpoint.parse(text) == Endpoint(host, port)
    assert str(Endpoint.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", ":", "::1", "::1:4711", "a", "a:b", "a:99999", "a b:1", "[::1]"]
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(RouteError):
        Endpoint.parse(text)


async def test_what_the_system_refuses() -> None:
    with pytest.raises(SystemRefusal):
        Endpoint.parse("192.0.2.1:4711").listen(1)
    with pytest.raises(SystemRefusal):
        Endpoint.parse("nowhere.invalid:4711").listen(1)
    with Endpoint.parse("[::1]:0").listen(1) as listening:
        connected = await Endpoint(*listening.getsockname()[:2]).connect()
        assert connected.getpeername() == listening.getsockname()
        connected.close()
    with pytest.raises(OSError, match=r".*"):
        await Endpoint("::1", 1).connect()
