"""Records sealed, cut, landed and reassembled: what goes in comes out, in whatever pieces."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from tincan.crypto.primitives import Aead
from tincan.path.path import Path
from tincan.record.keys import SealingKey
from tincan.record.landing import FIRST_SLOT, MIN_SLOT, Landing, flatten
from tincan.record.layout import (
    CHANNEL_SIZE,
    HEADER,
    HEADER_SIZE,
    MAX_FRAGMENTS,
    MAX_PLAIN,
    MAX_RECORD,
    RECORD,
    TAG_SIZE,
    Item,
    item,
)
from tincan.record.outgoing import OpenRecord
from tincan.record.reassembly import MAX_AGE, MAX_PARTIAL, Reassembly
from tincan.record.slots import MAX_BATCH

KEY = bytes(range(32))


def seal(payload: bytes, body: int, channel: int | None = None) -> OpenRecord:
    record = OpenRecord()
    record.append(payload)
    record.seal(SealingKey(Aead(KEY), 7, 0.0), body, channel)
    return record


def opened(ciphertext: bytes, header: bytes) -> bytes:
    return Aead(KEY).decrypt(bytes(4) + header[8:], ciphertext, header)


@given(st.integers(1, MAX_PLAIN - 4), st.sampled_from([1156, 1456, 8956, 65491]))
@settings(max_examples=40)
def test_a_record_is_its_datagrams(size: int, body: int) -> None:
    payload = item(Item.FRAME, bytes(i & 255 for i in range(size)))
    sealed = seal(payload, body)
    pieces = list(sealed.datagrams())
    assert all(len(piece) == HEADER_SIZE + body for piece in pieces[:-1])
    assert HEADER_SIZE < len(pieces[-1]) <= HEADER_SIZE + body
    headers = [HEADER.unpack(piece[:HEADER_SIZE]) for piece in pieces]
    assert [h[1] for h in headers] == list(range(len(pieces)))
    assert {(h[0], h[2], h[4], h[5]) for h in headers} == {(RECORD, len(pieces), 7, 0)}
    assert opened(b"".join(p[HEADER_SIZE:] for p in pieces), pieces[0][:HEADER_SIZE]) == payload


@given(st.integers(1, 70_000))
@settings(max_examples=20)
def test_channel_data_frames_every_datagram(size: int) -> None:
    for piece in seal(bytes(size), 1452, channel=0x4001).datagrams():
        assert piece[:2] == b"\x40\x01"
        assert int.from_bytes(piece[2:4], "big") == len(piece) - CHANNEL_SIZE
        assert piece[CHANNEL_SIZE] == RECORD


def test_counters_never_repeat_and_nonces_follow_them() -> None:
    record, key = OpenRecord(), SealingKey(Aead(KEY), 1, 0.0)
    seen = set()
    for _ in range(5):
        record.append(b"same")
        record.seal(key, 1456, None)
        seen.add(b"".join(record.datagrams()))
        record.clear()
    assert len(seen) == 5
    assert key.counter == 5


@given(st.integers(MIN_SLOT, 9000), st.sampled_from([0, CHANNEL_SIZE]), st.integers(1, MAX_BATCH))
@settings(max_examples=50)
def test_a_batch_lands_contiguous_in_its_slots(slot: int, lead: int, size: int) -> None:
    landing = Landing()
    slots = landing.slots(slot, lead)
    stride = lead + HEADER_SIZE
    assert slots.full == slot + stride
    data = bytes((i * 7) & 255 for i in range(size))
    for number, at in enumerate(range(0, size, slots.full)):  # as recvmsg fills them
        header, body = data[at : at + stride], data[at + stride : at + slots.full]
        landing.headers[number * stride : number * stride + len(header)] = header
        landing.body[number * slot : number * slot + len(body)] = body
    assert flatten(slots, 0, size) == data
    bodies = b"".join(data[i + stride : i + stride + slot] for i in range(0, size, slot + stride))
    assert bytes(landing.body[: len(bodies)]) == bodies


@given(st.integers(MIN_SLOT, 65491), st.sampled_from([0, CHANNEL_SIZE]))
@settings(max_examples=50)
def test_whatever_waits_a_batch_finds_room_behind_it(slot: int, lead: int) -> None:
    landing = Landing()
    slots = landing.slots(slot, lead)
    assert landing.slots(slot, lead) is slots  # built once
    assert (slots.count - slots.last_start) * slots.full >= MAX_BATCH
    longest = -(-MAX_RECORD // slot)
    assert longest - 1 <= slots.last_start, "all but the last datagram of the longest record"
    assert FIRST_SLOT >= MIN_SLOT


@given(st.sampled_from([1200, 1280, 1500]), st.booleans(), st.booleans())
def test_the_longest_record_has_no_more_datagrams_than_a_header_can_say(
    mtu: int, ipv6: bool, relayed: bool
) -> None:
    address = ("2001:db8::1" if ipv6 else "192.0.2.1", 4000)
    path = Path(None, address, 0x4001 if relayed else None, "host", "host", address)
    record = seal(bytes(MAX_PLAIN), path.body(mtu), path.channel)
    assert record.count <= MAX_FRAGMENTS


@given(st.permutations(list(range(9))), st.integers(0, 8))
def test_fragments_in_any_order_make_the_record(order: list[int], repeated: int) -> None:
    counters: Counter[str] = Counter()
    pieces = [bytes([i]) * (i + 1) for i in range(9)]
    reassembly = Reassembly(counters)
    whole = None
    for index in [order[0], *order]:
        assert whole is None
        whole = reassembly.add((1, 2), index, 9, pieces[index], 0.0)
    assert whole == (b"".join(pieces), False)
    assert counters["datagrams_dropped.fragment_refused"] == 1


def test_reassembly_is_bounded_and_forgets() -> None:
    counters: Counter[str] = Counter()
    reassembly = Reassembly(counters)
    for counter in range(MAX_PARTIAL + 5):
        reassembly.add((1, counter), 0, 2, b"x", 0.0)
    assert counters["records_dropped.incomplete"] == 5
    reassembly.add((1, 999), 0, 2, b"x", MAX_AGE + 1)
    assert counters["records_dropped.incomplete"] == MAX_PARTIAL + 5
    assert reassembly.add((1, 999), 1, 2, b"y", MAX_AGE + 1) == (b"xy", False)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.integers(1, 4000))
def test_records_behind_each_other_are_each_a_whole(lengths: list[int], last: int) -> None:
    """All but the last fill their datagrams."""
    record, key = OpenRecord(), SealingKey(Aead(KEY), 7, 0.0)
    plain = [bytes([n]) * (length * 1456 - TAG_SIZE) for n, length in enumerate(lengths)]
    plain.append(b"x" * last)
    for each in plain:
        record.append(each)
        record.seal(key, 1456, None)
    pieces = list(record.datagrams())
    assert len(pieces) == record.count
    at = 0
    for number, each in enumerate(plain):
        head = HEADER.unpack_from(pieces[at])
        assert (head[1], head[5]) == (0, number)
        run, at = pieces[at : at + head[2]], at + head[2]
        assert [HEADER.unpack_from(piece)[1] for piece in run] == list(range(head[2]))
        assert opened(b"".join(p[HEADER_SIZE:] for p in run), run[0][:HEADER_SIZE]) == each
    record.clear()
    assert record.fill == 0


def test_tag_size_is_what_the_cipher_adds() -> None:
    assert len(Aead(KEY).encrypt(bytes(12), b"", b"")) == TAG_SIZE
