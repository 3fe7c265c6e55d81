"""Datagrams through a TURN server: each has one ChannelData header."""

import socket
from collections import Counter

from tincan.device.udp import UdpSocket
from tincan.path.channel import Channel
from tincan.path.direct import Direct
from tincan.record.layout import CHANNEL, CHANNEL_SIZE

NUMBER = 0x4001


def test_a_handshake_is_wrapped_once() -> None:
    counters: Counter[str] = Counter()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(2)
        sock = UdpSocket("127.0.0.1")
        carrier = Channel(sock, server.getsockname(), NUMBER, counters)
        carrier.send_plain([b"hello"])
        assert server.recv(100) == CHANNEL.pack(NUMBER, 5) + b"hello"
        sock.close()
    assert not counters


def test_the_header_costs_room_and_the_peer_does_not_move() -> None:
    counters: Counter[str] = Counter()
    sock = UdpSocket("127.0.0.1")
    there = ("192.0.2.1", 3478)
    direct, channel = Direct(sock, there, counters), Channel(sock, there, NUMBER, counters)
    assert direct.body(1500) - channel.body(1500) == CHANNEL_SIZE
    moved = direct.moved(sock, ("192.0.2.2", 1))
    assert moved is not None
    assert moved.address == ("192.0.2.2", 1)
    assert direct.moved(sock, there) is None
    assert direct.moved(None, ("192.0.2.2", 1)) is None
    assert channel.moved(sock, ("192.0.2.2", 1)) is None
    sock.close()
