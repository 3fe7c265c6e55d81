"""What crosses before there is a path."""

from typing import Any

import pytest

from tincan.control.codec import DecodeError, decode, encode
from tincan.ice.description import (
    MAX_CANDIDATE_LENGTH,
    MAX_CANDIDATES,
    Description,
    TurnServer,
)

GOOD = {"ufrag": "abcd", "pwd": "x" * 22, "candidates": ["a 1 udp 1 192.0.2.1 1 typ host"]}


def test_a_description_survives_the_wire() -> None:
    description = Description(**GOOD)  # type: ignore[arg-type]
    assert decode(encode(description), Description) == description


@pytest.mark.parametrize(
    "change",
    [
        {"ufrag": "abc"},
        {"ufrag": "abcd\n"},
        {"ufrag": "a:bcd"},
        {"ufrag": "a" * 257},
        {"pwd": "x" * 21},
        {"pwd": "x" * 257},
        {"candidates": ["x"] * (MAX_CANDIDATES + 1)},
        {"candidates": ["x" * (MAX_CANDIDATE_LENGTH + 1)]},
        {"candidates": [1]},
        {"more": 1},
    ],
)
def test_a_description_out_of_bounds_does_not(change: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        decode(encode(GOOD | change), Description)


def test_a_password_is_not_shown() -> None:
    assert "hush" not in repr(TurnServer("turn.example", 3478, "user", "hush"))
