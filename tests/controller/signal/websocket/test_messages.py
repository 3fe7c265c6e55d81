"""Whatever bytes come, the parsers say SignalError and nothing else."""

import contextlib
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import SignalError
from controller.signal.sealing import MAX_BODY_BYTES
from controller.signal.websocket.messages import (
    MAX_CARD_BYTES,
    MAX_MESSAGE_BYTES,
    PAGE_MEMBERS,
    Challenge,
    Join,
    Joined,
    Left,
    Member,
    Members,
    Message,
    Refused,
    Send,
    decode_from_node,
    decode_from_rendezvous,
    encode,
)

ID = "0123456789abcdef" * 4
CARD = b"c" * MAX_CARD_BYTES
JOIN = Join(1, "n" * 64, b"k" * 32, b"s" * 64, ID, b"p" * 32, b"x" * 16, CARD)
MEMBER = Member(ID, b"s" * 16, CARD)
FROM_RENDEZVOUS = [
    Challenge(1, b"n" * 32, b"k" * 32),
    Members([MEMBER] * PAGE_MEMBERS, True),
    Members([], False),
    Joined(ID, b"s" * 16, CARD),
    Left(ID),
    Message(ID, b"b" * MAX_BODY_BYTES),
    Refused("wrong secret"),
]
FROM_NODE = [JOIN, Send(ID, b"b" * MAX_BODY_BYTES)]
PARSERS: list[Callable[[bytes], object]] = [decode_from_node, decode_from_rendezvous]


@pytest.mark.parametrize("message", FROM_RENDEZVOUS)
def test_the_largest_of_the_rendezvous_fit_and_survive(message: object) -> None:
    data = encode(message)
    assert len(data) <= MAX_MESSAGE_BYTES
    assert decode_from_rendezvous(data) == message


@pytest.mark.parametrize("message", FROM_NODE)
def test_the_largest_of_a_node_fit_and_survive(message: object) -> None:
    data = encode(message)
    assert len(data) <= MAX_MESSAGE_BYTES
    assert decode_from_node(data) == message


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"null",
        b"[" * 60_000,
        b'{"m":' * 10_000,
        b"9" * 4301,
        b'{"m":"send","to":"' + ID.encode() + b'","body":' + b"9" * 5000 + b"}",
        b"\xff\xfe",
        b'{"m":"left","id":"' + b"a" * 64 + b'\\n"}',
        b'{"m":"left","id":"' + b"a" * 63 + b'\\n"}',
        b'{"m":"left","id":"' + b"A" * 64 + b'"}',
        b'{"m":"left"}',
        b'{"m":"send","to":"\\ud800","body":""}',
        b'{"m":"unheard of"}',
        b"x" * (MAX_MESSAGE_BYTES + 1),
    ],
)
def test_bombs_and_garbage(bad: bytes) -> None:
    for parse in PARSERS:
        with pytest.raises(SignalError):
            parse(bad)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", -1),
        ("version", "1"),
        ("network", ""),
        ("network", "n" * 65),
        ("key", "AAAA"),
        ("signature", "AAAA"),
        ("node", "0" * 63),
        ("session", ""),
        ("card", "A" * 1000),
        ("card", "!"),
    ],
)
def test_a_join_with_one_wrong_field(field: str, value: object) -> None:
    message = json.loads(encode(JOIN))
    message[field] = value
    with pytest.raises(SignalError):
        decode_from_node(json.dumps(message).encode())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["m", "id", "to", "from", "body", "session", "card", "members", "more"]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)
tags = st.sampled_from(
    ["challenge", "join", "members", "joined", "left", "send", "message", "refused"]
)


@given(st.binary(max_size=300) | json_values.map(lambda v: json.dumps(v).encode()))
def test_fuzz(data: bytes) -> None:
    for parse in PARSERS:
        with contextlib.suppress(SignalError):
            parse(data)


@given(tags, json_values, json_values, json_values)
def test_fuzz_tagged(tag: str, a: object, b: object, c: object) -> None:
    message = {"m": tag, "id": a, "to": a, "from": a, "body": b, "members": b, "reason": c}
    for parse in PARSERS:
        with contextlib.suppress(SignalError):
            parse(json.dumps(message).encode())


@given(st.sampled_from([*FROM_NODE, *FROM_RENDEZVOUS]), st.data())
def test_truncated_or_altered_anywhere(message: object, data: st.DataObject) -> None:
    whole = bytearray(encode(message)[:2000])
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] = data.draw(st.integers(0, 255))
    for parse in PARSERS:
        for piece in (bytes(whole), bytes(whole[:place])):
            with contextlib.suppress(SignalError):
                parse(piece)
