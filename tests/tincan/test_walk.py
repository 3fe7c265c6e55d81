"""The way of a record leads through few files."""

import pytest

from lab.bench.walk import tincan_walks


@pytest.mark.parametrize(("number", "most"), [(0, 10), (1, 9)], ids=["TAP to wire", "wire to TAP"])
def test_a_record_enters_few_files(number: int, most: int) -> None:
    assert len(tincan_walks()[number].files) <= most
