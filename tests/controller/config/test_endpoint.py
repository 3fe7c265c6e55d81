import socket

import pytest

from controller.config.endpoint import Endpoint, bind
from controller.errors import SystemRefusal


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("127.0.0.1:8765", "127.0.0.1", 8765, "127.0.0.1:8765"),
        ("[::1]:1", "::1", 1, "[::1]:1"),
        ("[::1]", "::1", 99, "[::1]:99"),
        ("localhost", "localhost", 99, "localhost:99"),
        (":5", "", 5, "*:5"),
        ("*:5", "", 5, "*:5"),
        ("[::]:5", "", 5, "*:5"),
        ("::", "", 99, "*:99"),
        ("*", "", 99, "*:99"),
        ("", "", 99, "*:99"),
        ("0.0.0.0:5", "0.0.0.0", 5, "0.0.0.0:5"),
    ],
)
def test_parse(text: str, host: str, port: int, shown: str) -> None:
    endpoint = Endpoint.parse(text, 99)
    assert endpoint == Endpoint(host, port)
    assert str(endpoint) == shown


@pytest.mark.parametrize(
    "text",
    [
        "::1:5",
        "[::1",
        "[::1]5",
        "[nonsense::]:5",
        "host:port",
        "host:-1",
        "host:65536",
        "host:1:2",
        "ho st:5",
        "ws://host:5",
        "host:٣",
        "host:" + "9" * 5000,
        "[fe80::1]extra:5",
        "[[::1]]:5",
    ],
)
def test_parse_refuses_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z"):
        Endpoint.parse(text, 99)


def test_a_port_is_needed_without_a_default() -> None:
    with pytest.raises(ValueError, match="no port"):
        Endpoint.parse("localhost")


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_everywhere_is_both_families_on_one_port(kind: socket.SocketKind) -> None:
    sockets = bind(Endpoint("", 0), kind, "test")
    try:
        assert [sock.family for sock in sockets] == [socket.AF_INET, socket.AF_INET6]
        assert len({sock.getsockname()[1] for sock in sockets}) == 1
    finally:
        for sock in sockets:
            sock.close()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_port_in_use_is_refused_with_the_cure(kind: socket.SocketKind) -> None:
    (first,) = bind(Endpoint("127.0.0.1", 0), kind, "test")
    with first:
        port = first.getsockname()[1]
        with pytest.raises(SystemRefusal, match="in use; another program"):
            bind(Endpoint("127.0.0.1", port), kind, "test")
        with pytest.raises(SystemRefusal, match="in use"):
            bind(Endpoint("", port), kind, "test")


def test_other_refusals_are_one_line() -> None:
    for host in ("203.0.113.77", "no-such-host.invalid", "2001:db8::77"):
        with pytest.raises(SystemRefusal) as refusal:
            bind(Endpoint(host, 0), socket.SOCK_STREAM, "test")
        assert "\n" not in str(refusal.value)
