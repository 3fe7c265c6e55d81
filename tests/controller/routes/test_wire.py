"""Frames from any split of bytes, and what is no frame."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import BrokenProtocol
from controller.routes.wire import HEADER_BYTES, MAX_PAYLOAD_BYTES, Frames, Kind, frame

VECTORS = Path(__file__).parents[2] / "vectors" / "metalbond-v0.5.0.json"
PAYLOADS = st.lists(
    st.tuples(st.sampled_from(Kind), st.binary(max_size=MAX_PAYLOAD_BYTES)), max_size=8
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """Return the data cut at these places."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


@given(PAYLOADS, st.lists(st.integers(0, 10_000)))
def test_any_split(messages: list[tuple[Kind, bytes]], cuts: list[int]) -> None:
    data = b"".join(frame(kind, payload) for kind, payload in messages)
    frames = Frames()
    found = [each for piece in pieces(data, cuts) for each in frames.feed(piece)]
    assert found == messages


def test_byte_by_byte_and_a_thousand_at_once() -> None:
    one = frame(Kind.UPDATE, bytes(31))
    frames = Frames()
    found = [each for byte in one * 3 for each in frames.feed(bytes([byte]))]
    assert found == [(Kind.UPDATE, bytes(31))] * 3
    assert len(list(Frames().feed(one * 1000))) == 1000


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x02", "wrong_version"),
        (b"\x00\x00\x00\x02", "wrong_version"),
        (b"\x01\x00\x00\x00", "unknown_kind"),
        (b"\x01\x00\x00\x06", "unknown_kind"),
        (b"\x01\xff\xff\x05", "too_long"),
        (b"\x01\x04\xa5\x05", "too_long"),
    ],
)
def test_what_is_no_frame_is_refused_by_its_header(data: bytes, reason: str) -> None:
    with pytest.raises(BrokenProtocol) as raised:
        list(Frames().feed(data))
    assert raised.value.reason == reason


def test_the_longest_frame_is_one_packet_of_the_smallest_mtu() -> None:
    longest = frame(Kind.UPDATE, bytes(MAX_PAYLOAD_BYTES))
    assert list(Frames().feed(longest)) == [(Kind.UPDATE, bytes(MAX_PAYLOAD_BYTES))]
    assert len(longest) <= 1280 - 40 - 20


def test_only_an_incomplete_frame_is_kept() -> None:
    frames = Frames()
    for _ in range(1000):
        assert list(frames.feed(frame(Kind.KEEPALIVE))) == [(Kind.KEEPALIVE, b"")]
    assert list(frames.feed(frame(Kind.UPDATE, bytes(MAX_PAYLOAD_BYTES))[:-1])) == []
    assert len(frames._rest) == HEADER_BYTES + MAX_PAYLOAD_BYTES - 1


def test_every_frame_of_real_programs_is_one() -> None:
    for segment in json.loads(VECTORS.read_text())["segments"]:
        data = bytes.fromhex(segment["hex"])
        assert b"".join(frame(kind, payload) for kind, payload in Frames().feed(data)) == data
