"""A parity stands in for any one datagram of its record, and for no more."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tincan.record.parity import parity, restored
from tincan.record.reassembly import Reassembly

bodies = st.integers(1, 40).flatmap(
    lambda size: st.lists(st.binary(min_size=size, max_size=size), min_size=2, max_size=12)
)


def test_it_is_the_sum_modulo_two() -> None:
    assert parity(b"\x01\x02\x04\x08\xf0\x0f", 2) == b"\xf5\x05"


@given(bodies, st.data())
def test_any_one_is_restored(pieces: list[bytes], data: st.DataObject) -> None:
    made = parity(b"".join(pieces), len(pieces[0]))
    gone = data.draw(st.integers(0, len(pieces) - 1))
    assert restored([*pieces[:gone], made, *pieces[gone + 1 :]]) == pieces[gone]


def test_bodies_of_several_sizes_have_no_parity() -> None:
    assert restored([b"ab", b"c"]) is None


@given(bodies, st.data())
def test_a_record_comes_whole_without_one_of_its_datagrams(
    pieces: list[bytes], data: st.DataObject
) -> None:
    counters: Counter[str] = Counter()
    reassembly = Reassembly(counters)
    count = len(pieces)
    parts = dict(enumerate([*pieces, parity(b"".join(pieces), len(pieces[0]))]))
    gone = data.draw(st.integers(0, count))
    arriving = data.draw(st.permutations([index for index in parts if index != gone]))
    found = [reassembly.add((1, 2), index, count, parts[index], 0.0) for index in arriving]
    assert found == [None] * (count - 1) + [(b"".join(pieces), gone < count)]
    assert not counters


@pytest.mark.parametrize("index", [4, 5, 255])
def test_no_fragment_comes_after_the_parity(index: int) -> None:
    counters: Counter[str] = Counter()
    reassembly = Reassembly(counters)
    assert reassembly.add((1, 2), index, 3, b"x", 0.0) is None
    assert counters["datagrams_dropped.fragment_refused"] == 1


def test_a_parity_that_does_not_fit_ends_its_record() -> None:
    counters: Counter[str] = Counter()
    reassembly = Reassembly(counters)
    reassembly.add((1, 2), 0, 2, b"abc", 0.0)
    assert reassembly.add((1, 2), 2, 2, b"x", 0.0) is None
    assert (1, 2) not in reassembly.partial
    assert counters["records_dropped.incomplete"] == 1
