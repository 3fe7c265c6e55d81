"""A record by a stream to a TURN server: in the stream it is framed once, and it arrives."""

import asyncio
from collections import Counter
from typing import Any, cast

import pytest

from lab.bench.ends import End, frame
from tincan.ice.turn import RelayTransport
from tincan.path.stream import Stream
from tincan.record.layout import CHANNEL, CHANNEL_SIZE, HEADER, RECORD

NUMBER = 0x4001
SERVER = ("192.0.2.1", 3478)


class Connection:
    """A TCP connection that keeps what is written to it."""

    def __init__(self) -> None:
        self.written = b""

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        self.written += data


class Client:
    """What RelayTransport needs of a TURN client to send records."""

    def __init__(self) -> None:
        self.connection = Connection()
        self.counters: Counter[str] = Counter()


def unwrapped(stream: bytes) -> list[bytes]:
    """Return what a TURN server sends on: ChannelData, padded to 4 bytes, without its header."""
    found, at = [], 0
    while at < len(stream):
        channel, length = CHANNEL.unpack_from(stream, at)
        assert channel == NUMBER
        at += CHANNEL_SIZE
        found.append(stream[at : at + length])
        at += length + -length % 4
    return found


@pytest.mark.parametrize("sizes", [[60], [65226], [65226, 1514, 66]])
async def test_a_record_crosses_a_stream_relay(ends: tuple[End, End], sizes: list[int]) -> None:
    one, two = ends
    client = Client()
    relay = RelayTransport(cast(Any, client), None, asyncio.create_task)
    one.go_by(Stream(relay.send_on(NUMBER), SERVER))
    one.wake(*map(frame, sizes))
    datagrams = unwrapped(client.connection.written)
    assert {HEADER.unpack_from(each)[0] for each in datagrams} == {RECORD}
    for each in datagrams:
        two.ingress.relayed(two.attempt.stream, each, 1.0)
    assert two.tap.frames == len(sizes)
    assert not [name for name in two.counters if "drop" in name]
