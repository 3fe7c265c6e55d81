"""Protobuf messages: the real programs' bytes, and what peers may not send."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import BrokenProtocol, RouteRefused
from controller.routes import messages
from controller.routes.messages import Action, Hello, Update
from controller.routes.values import Destination, NextHop, NextHopType, Vni
from controller.routes.wire import Frames, Kind

VECTORS = Path(__file__).parents[2] / "vectors" / "metalbond-v0.5.0.json"
ADDRESSES = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)
U32 = st.integers(0, (1 << 32) - 1)


def destinations() -> st.SearchStrategy[Destination]:
    return ADDRESSES.flatmap(
        lambda a: st.builds(
            Destination,
            st.just(a),
            st.integers(0, 8 * len(a)),
            st.sampled_from([0, 4 if len(a) == 16 else 6]),
        )
    )


def hops() -> st.SearchStrategy[NextHop]:
    ports = st.integers(0, 65535)
    return st.builds(
        NextHop, ADDRESSES, U32, st.sampled_from([0, 2, 3, 77]), st.just(0), st.just(0)
    ) | st.builds(NextHop, ADDRESSES, U32, st.just(int(NextHopType.NAT)), ports, ports)


UPDATES = st.builds(Update, st.sampled_from(Action), st.builds(Vni, U32), destinations(), hops())


def payload(frame: bytes) -> bytes:
    [(_, payload)] = Frames().feed(frame)
    return payload


@given(UPDATES)
def test_an_update_comes_back(update: Update) -> None:
    assert messages.read_update(payload(messages.update(update))) == update


@given(st.integers(1, (1 << 32) - 1), st.booleans(), U32)
def test_the_others_come_back(interval: int, server: bool, vni: int) -> None:
    said = Hello(interval, server)
    assert messages.read_hello(payload(messages.hello(said))) == said
    assert messages.read_subscription(payload(messages.subscribe(Vni(vni)))) == vni
    assert messages.read_subscription(payload(messages.unsubscribe(Vni(vni)))) == vni


def test_golden_bytes() -> None:
    assert messages.hello(Hello(2)).hex() == "010002010802"
    assert messages.hello(Hello(3, True)).hex() == "0100040108031001"
    assert messages.KEEPALIVE.hex() == "01000002"
    marked = Destination(bytes([10, 0, 0, 0]), 24, marked=6)
    update = Update(Action.ADD, Vni(1), marked, NextHop.parse("1.2.3.4"))
    said = "0100160510011a0a080112040a000000181822060a0401020304"
    assert messages.update(update).hex() == said
    assert messages.read_update(payload(bytes.fromhex(said))) == update


def test_the_bytes_of_real_programs_are_ours() -> None:
    encoders = {
        Kind.HELLO: lambda p: messages.hello(messages.read_hello(p)),
        Kind.KEEPALIVE: lambda p: messages.KEEPALIVE,
        Kind.SUBSCRIBE: lambda p: messages.subscribe(messages.read_subscription(p)),
        Kind.UPDATE: lambda p: messages.update(messages.read_update(p)),
    }
    for segment in json.loads(VECTORS.read_text())["segments"]:
        data = bytes.fromhex(segment["hex"])
        for kind, body in Frames().feed(data):
            assert encoders[kind](body) == data


DESTINATION = bytes.fromhex("1a0812040a0000001818")
HOP = bytes.fromhex("22060a0401020304")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no_destination"),
        (HOP, "no_destination"),
        (DESTINATION, "no_next_hop"),
        (bytes.fromhex("1a02181822060a0401020304"), "no_prefix"),
        (DESTINATION + bytes.fromhex("2200"), "no_target_address"),
        (b"\xff", "undecodable"),
        (b"\x1a\xff\xff\xff\xff\xff", "undecodable"),
    ],
)
def test_what_breaks_the_protocol(data: bytes, reason: str) -> None:
    with pytest.raises(BrokenProtocol) as raised:
        messages.read_update(data)
    assert raised.value.reason == reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (bytes.fromhex("1a0812040a0000001821") + HOP, "prefix_length"),
        (b"\x08\x02" + DESTINATION + HOP, "action"),
        (DESTINATION + bytes.fromhex("220c0a0401020304180120808004"), "nat_ports"),
        (DESTINATION + bytes.fromhex("22110a040102030418ffffffffffffffffff01"), "next_hop_type"),
    ],
)
def test_what_is_only_left_out(data: bytes, reason: str) -> None:
    with pytest.raises(RouteRefused) as raised:
        messages.read_update(data)
    assert raised.value.reason == reason


def test_keepalive_0_is_refused() -> None:
    for data in (b"", b"\x08\x00"):
        with pytest.raises(BrokenProtocol, match="keepalive_0"):
            messages.read_hello(data)


def test_unknown_fields_are_skipped_and_ports_of_no_nat_are_none() -> None:
    data = DESTINATION + bytes.fromhex("220a0a0401020304200a2814") + b"\x7a\x03abc"
    assert messages.read_update(data).hop == NextHop(bytes([1, 2, 3, 4]))


@given(st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    for read in (messages.read_update, messages.read_hello, messages.read_subscription):
        with suppress(BrokenProtocol, RouteRefused):
            read(data)
