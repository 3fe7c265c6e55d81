"""The entrance of a session: what is refused before Noise computes anything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tincan.errors import HandshakeFailed
from tincan.record.layout import HANDSHAKE_INIT, HANDSHAKE_RESPONSE, HEADER, HEADER_SIZE, VERSION
from tincan.session.admission import (
    HANDSHAKES_PER_SECOND,
    MAC_SIZE,
    Admission,
    Admitted,
    mac1,
    mac1_key,
)

KEY = mac1_key(b"\x07" * 32, b"\x02" * 32)
LONGEST = 256


def entrance() -> Admission:
    return Admission(KEY, HANDSHAKE_INIT, LONGEST)


def datagram(
    *,
    kind: int = HANDSHAKE_INIT,
    index: int = 0,
    count: int = 1,
    version: int = VERSION,
    body: bytes = b"noise",
    key: bytes = KEY,
) -> bytes:
    begin = HEADER.pack(kind, index, count, version, 1000, 7) + body
    return begin + mac1(key, begin)


def refused(data: bytes) -> str:
    with pytest.raises(HandshakeFailed) as failure:
        entrance().admit(data, 0.0)
    return failure.value.reason


def test_what_is_admitted_says_for_whom_it_is() -> None:
    assert entrance().admit(datagram(), 0.0) == Admitted(1000, 7)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (datagram(body=bytes(LONGEST)), "handshake_oversized"),
        (b"", "handshake_truncated"),
        (datagram()[: HEADER_SIZE + MAC_SIZE - 1], "handshake_truncated"),
        (datagram(key=mac1_key(b"\x08" * 32, b"\x02" * 32)), "handshake_stranger"),
        (datagram(key=mac1_key(b"\x07" * 32, b"\x03" * 32)), "handshake_stranger"),
        (datagram(version=VERSION + 1), "handshake_version"),
        (datagram(index=1), "handshake_malformed"),
        (datagram(count=2), "handshake_malformed"),
        (datagram(kind=HANDSHAKE_RESPONSE), "handshake_unexpected"),
    ],
)
def test_what_is_refused(data: bytes, reason: str) -> None:
    assert refused(data) == reason


@given(st.binary(max_size=2 * LONGEST))
def test_strangers_are_refused_and_raise_nothing_else(data: bytes) -> None:
    assert refused(data) in ("handshake_oversized", "handshake_truncated", "handshake_stranger")


def test_only_what_knows_the_secret_counts_against_the_limit() -> None:
    here = entrance()
    for _ in range(10 * HANDSHAKES_PER_SECOND):
        with pytest.raises(HandshakeFailed, match="handshake_stranger"):
            here.admit(datagram(key=bytes(32)), 0.0)
    for _ in range(HANDSHAKES_PER_SECOND):
        here.admit(datagram(), 0.0)
    with pytest.raises(HandshakeFailed, match="handshake_rate"):
        here.admit(datagram(), 0.0)
    here.admit(datagram(), 1 / HANDSHAKES_PER_SECOND)
