"""STUN framing, against the RFC's own vectors and against whatever hypothesis thinks of."""

import contextlib
import ipaddress
import struct

import aioice.stun
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tincan.ice import stun

TRANSACTION = bytes(range(12))

# RFC 5769 section 2.1 to 2.3.
SAMPLE_REQUEST = bytes.fromhex(
    "000100582112a442b7e7a701bc34d686fa87dfae"
    "802200105354554e207465737420636c69656e74"
    "002400046e0001ff80290008932ff9b151263b36"
    "000600096576746a3a683676592020200008"
    "00149aeaa70cbfd8cb56781ef2b5b2d3f249c1b5"
    "71a280280004e57a3bcf"
)
SAMPLE_IPV4_RESPONSE = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae"
    "8022000b7465737420766563746f722000200008"
    "0001a147e112a643000800142b91f599fd9e90c3"
    "8c7489f92af9ba53f06be7d780280004c07d4c96"
)
SAMPLE_IPV6_RESPONSE = bytes.fromhex(
    "010100482112a442b7e7a701bc34d686fa87dfae"
    "8022000b7465737420766563746f722000200014"
    "0002a1470113a9faa5d3f179bc25f4b5bed2b9d9"
    "00080014a382954e4be67bf11784c97c8292c275"
    "bfe3ed4180280004c8fb0b4c"
)


def message(*attributes: tuple[int, bytes], kind: int = 1, cookie: int = stun.COOKIE) -> bytes:
    """Return a STUN message with ``attributes``, well formed unless a value is not."""
    body = b"".join(
        struct.pack(">HH", number, len(value)) + value + bytes(-len(value) % 4)
        for number, value in attributes
    )
    return stun.HEADER.pack(kind, len(body), cookie, TRANSACTION) + body


@pytest.mark.parametrize("sample", [SAMPLE_REQUEST, SAMPLE_IPV4_RESPONSE, SAMPLE_IPV6_RESPONSE])
def test_the_samples_of_rfc_5769_are_stun(sample: bytes) -> None:
    assert stun.is_stun(sample)
    assert not stun.is_channel_data(sample)


def test_a_response_names_the_mapped_address() -> None:
    assert stun.mapped_address(SAMPLE_IPV4_RESPONSE) == ("192.0.2.1", 32853)
    assert stun.mapped_address(SAMPLE_IPV6_RESPONSE) == (
        "2001:db8:1234:5678:11:2233:4455:6677",
        32853,
    )


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        message()[:19],
        message(cookie=stun.COOKIE ^ 1),
        b"\x80" + message()[1:],
        b"\x04" + message()[1:],
        message() + bytes(4),
        message((0x8022, b"x"))[:-4],
        message((0x0024, b"")),
        message((0x0024, bytes(5))),
        message((0x8028, bytes(8))),
        message()[:2] + b"\x00\x04" + message()[4:] + b"\x80\x22\xff\xfc",
        message((0x8022, bytes(8)))[:2] + b"\x00\x0a" + message((0x8022, bytes(8)))[4:-2],
    ],
    ids=[
        "empty",
        "short",
        "wrong cookie",
        "ours",
        "beyond STUN's first bytes",
        "trailing bytes",
        "truncated",
        "PRIORITY of no bytes: 24 bytes on which aioice raises struct.error",
        "PRIORITY of 5 bytes",
        "FINGERPRINT of 8 bytes",
        "attribute longer than the message",
        "length no multiple of 4",
    ],
)
def test_what_only_resembles_stun_is_not(datagram: bytes) -> None:
    assert not stun.is_stun(datagram)


@pytest.mark.parametrize(
    "response",
    [
        message(),
        message(kind=stun.BINDING_SUCCESS),
        message((stun.XOR_MAPPED_ADDRESS, b""), kind=stun.BINDING_SUCCESS),
        message((stun.XOR_MAPPED_ADDRESS, b"\0\1\0\0" + bytes(3)), kind=stun.BINDING_SUCCESS),
        message((stun.XOR_MAPPED_ADDRESS, b"\0\2\0\0" + bytes(4)), kind=stun.BINDING_SUCCESS),
        message((stun.XOR_MAPPED_ADDRESS, b"\0\7\0\0" + bytes(4)), kind=stun.BINDING_SUCCESS),
        message((stun.XOR_MAPPED_ADDRESS, b"\0\1\0\0" + bytes(40)), kind=stun.BINDING_SUCCESS),
        message((stun.XOR_MAPPED_ADDRESS, b"\0\1\0\0" + bytes(4)), kind=0x0111),
    ],
)
def test_a_response_without_a_usable_address_names_none(response: bytes) -> None:
    assert stun.is_stun(response)
    assert stun.mapped_address(response) is None


def test_a_query_is_what_a_stun_server_expects() -> None:
    query = stun.binding_request(TRANSACTION)
    parsed = aioice.stun.parse_message(query)
    assert stun.is_stun(query)
    assert stun.transaction_of(query) == TRANSACTION == parsed.transaction_id
    assert parsed.message_method == aioice.stun.Method.BINDING
    assert parsed.message_class == aioice.stun.Class.REQUEST


@given(st.binary(max_size=80))
def test_no_bytes_raise(datagram: bytes) -> None:
    stun.is_channel_data(datagram)
    if stun.is_stun(datagram):
        stun.mapped_address(datagram)


numbers = st.sampled_from([*aioice.stun.ATTRIBUTES_BY_TYPE, 0x7777])


@given(
    st.lists(st.tuples(numbers, st.binary(max_size=24)), max_size=5),
    st.integers(0, 0x3FF),
)
def test_what_passes_raises_nothing_but_value_errors_in_the_library(
    attributes: list[tuple[int, bytes]], kind: int
) -> None:
    datagram = message(*attributes, kind=kind)
    if stun.is_stun(datagram):
        stun.mapped_address(datagram)
        with contextlib.suppress(ValueError):
            aioice.stun.parse_message(datagram)


@given(st.binary(max_size=2000), st.integers(stun.FIRST_CHANNEL, stun.LAST_CHANNEL))
def test_channel_data_carries_a_datagram_unchanged(datagram: bytes, channel: int) -> None:
    framed = stun.channel_data(channel, datagram)
    assert stun.is_channel_data(framed)
    assert not stun.is_stun(framed)
    assert stun.CHANNEL.unpack_from(framed) == (channel, len(datagram))
    assert framed[stun.CHANNEL.size :] == datagram


@given(st.lists(st.binary(max_size=50), max_size=5), st.integers(0, 400))
def test_a_stream_is_cut_into_its_messages(datagrams: list[bytes], cut: int) -> None:
    messages = [SAMPLE_REQUEST]
    for datagram in datagrams:
        framed = stun.channel_data(0x4001, datagram)
        messages.append(framed + bytes(-len(datagram) % 4))
    stream = b"".join(messages)[:cut]
    found, at = [], 0
    while (size := stun.framed_size(stream, at)) and at + size <= len(stream):
        found.append(stream[at : at + size])
        at += size
    assert found == messages[: len(found)]
    assert len(found) == len(messages) or len(stream) - at < len(messages[len(found)])


addresses = st.tuples(st.ip_addresses().map(str), st.integers(0, 65535))


@given(addresses, st.binary(min_size=12, max_size=12), st.booleans())
def test_an_address_told_is_the_address_understood(
    source: stun.Address, transaction: bytes, fingerprint: bool
) -> None:
    told = stun.xor_mapped(transaction, source)
    assert told is not None
    response = stun.message(stun.BINDING_SUCCESS, transaction, told, fingerprint=fingerprint)
    assert stun.is_stun(response)
    assert stun.transaction_of(response) == transaction
    understood = stun.mapped_address(response)
    assert understood is not None
    plain = ipaddress.ip_address(source[0])
    mapped = plain.ipv4_mapped if isinstance(plain, ipaddress.IPv6Address) else None
    assert (ipaddress.ip_address(understood[0]), understood[1]) == (mapped or plain, source[1])
    assert aioice.stun.parse_message(response).attributes["XOR-MAPPED-ADDRESS"] == understood


def test_what_is_no_address_is_not_told() -> None:
    assert stun.xor_mapped(TRANSACTION, ("nonsense", 1)) is None


@pytest.mark.parametrize("sample", [SAMPLE_REQUEST, SAMPLE_IPV4_RESPONSE, SAMPLE_IPV6_RESPONSE])
def test_fingerprints_of_rfc_5769_hold_until_a_bit_is_flipped(sample: bytes) -> None:
    found = stun.attributes(sample)
    assert found is not None
    assert found[-1] == (stun.FINGERPRINT, len(sample) - 8)
    assert stun.fingerprint_holds(sample, found)
    assert not stun.fingerprint_holds(sample[:-1] + bytes([sample[-1] ^ 1]), found)
    assert not stun.fingerprint_holds(sample, found[:-1])


@given(st.lists(st.tuples(st.integers(0, 65535), st.binary(max_size=24)), max_size=5))
def test_attributes_are_found_where_they_are(values: list[tuple[int, bytes]]) -> None:
    whole = message(*values)
    found = stun.attributes(whole)
    assert found is not None
    assert [(kind, stun.value_at(whole, at)) for kind, at in found] == values
    if values:
        assert stun.attributes(whole[:-1]) is None
