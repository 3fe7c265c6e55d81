"""``HOST:PORT``: every spelling of it, and one line for every other text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.config.endpoint import Endpoint, listener, server
from controller.config.values import Place
from controller.errors import ConfigError


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


@given(st.text())
def test_every_text_is_an_endpoint_or_one_line(text: str) -> None:
    try:
        endpoint = Endpoint.parse(text, 99)
    except ValueError as error:
        told = str(error)
    else:
        told = ""
        assert Endpoint.parse(str(endpoint)) == endpoint
    assert "\n" not in told


@given(st.text() | st.sampled_from(["[]:1", "[::1]:0", "::1:5", "a:", ":5", "[a]:5", "[::1]x:5"]))
def test_every_server_has_a_host_and_a_port(text: str) -> None:
    try:
        endpoint = server(text, Place("f", "stun"))
    except ConfigError as error:
        told = str(error)
    else:
        told = ""
        assert endpoint.host
        assert 1 <= endpoint.port <= 65535
    assert told.isprintable()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a", 'f: stun: "a" is not host:port; '),
        ("::1:5", 'f: stun: "::1:5" is not host:port; '),
        ("[a]:5", 'f: stun: "[a]" is not an IPv6 address; '),
        ("a:0", 'f: stun: port "0" is not a number from 1 to 65535; '),
        ("stun:a", 'f: stun: "stun:a" is a URL; '),
        ("*:5", 'f: stun: "*" is not a host; '),
    ],
)
def test_what_a_server_is_not(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        server(text, Place("f", "stun"))
    assert str(caught.value).startswith(told)


def test_a_listener_needs_a_port_of_its_own() -> None:
    assert listener("*:5", Place("f")) == Endpoint("", 5)
    with pytest.raises(ConfigError, match="has port 0"):
        listener("*:0", Place("f"))
