"""Datagrams one by one: each is handed on or counted."""

from collections import Counter
from typing import Any, cast

import pytest

from tincan.pump.demux import Demux
from tincan.record.layout import HANDSHAKE_INIT, HEADER, HEADER_SIZE, RECORD, VERSION
from tincan.record.port import Port

THERE = ("192.0.2.1", 4000)


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (b"", "not_stun"),
        (b"\0" * 20, "not_stun"),
        (bytes([RECORD]) * HEADER_SIZE, "truncated"),
        (HEADER.pack(RECORD, 0, 1, VERSION + 1, 7, 0) + b"x", "version"),
        (HEADER.pack(RECORD, 0, 1, VERSION, 7, 0) + b"x", "unknown_receiver"),
        (b"\x40\x01\x00\x01" + bytes(20), "unknown_type"),
    ],
)
def test_what_is_nobodys_is_counted(datagram: bytes, reason: str) -> None:
    counters: Counter[str] = Counter()
    port = Port(None, None, lambda *_: None)
    Demux({}, cast(Any, None), counters).datagram(port, datagram, THERE, 1.0)
    assert counters == {f"datagrams_dropped.{reason}": 1}


def test_a_handshake_goes_to_the_port() -> None:
    got: list[tuple[Any, ...]] = []
    port = Port(None, None, lambda *args: got.append(args))
    init = HEADER.pack(HANDSHAKE_INIT, 0, 1, VERSION, 7, 0) + b"x"
    Demux({}, cast(Any, None), Counter()).datagram(port, init, THERE, 1.0)
    assert got == [(init, port, THERE, 1.0)]
