"""The sockets on which a rendezvous listens."""

import socket

import pytest

from controller.config.endpoint import Endpoint
from controller.errors import SystemRefusal
from controller.signal.rendezvous.sockets import bind


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
