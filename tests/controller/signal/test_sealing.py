"""What the rendezvous can do to a sealed body or a card: nothing that is accepted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import SignalError
from controller.signal.sealing import (
    MAX_BODY_BYTES,
    MAX_NAME,
    MAX_PAYLOAD_BYTES,
    Pair,
    Sealed,
    make_card,
    open_card,
)
from controller.signal.websocket.messages import MAX_CARD_BYTES
from tests.controller.signal.memory import KEYS, OTHER_SECRET
from tincan.crypto.primitives import PrivateKey

A, B, C = (PrivateKey(bytes([n]) * 32) for n in (1, 2, 3))
SESSION_A, SESSION_B = b"a" * 16, b"b" * 16
NONCE = b"n" * 12
MESSAGE = Sealed(SESSION_A, 7, b"an offer")
A_TO_B = Pair(KEYS, A, B.public)
B_TO_A = Pair(KEYS, B, A.public)
BODY = A_TO_B.seal(MESSAGE, SESSION_B, NONCE)


def test_opens_for_its_receiver() -> None:
    assert B_TO_A.open(BODY, SESSION_B) == MESSAGE


def test_largest_payload_fits() -> None:
    largest = Sealed(SESSION_A, 2**64 - 1, bytes(MAX_PAYLOAD_BYTES))
    body = A_TO_B.seal(largest, SESSION_B, NONCE)
    assert len(body) == MAX_BODY_BYTES
    assert B_TO_A.open(body, SESSION_B) == largest
    with pytest.raises(ValueError, match="too many"):
        A_TO_B.seal(Sealed(SESSION_A, 1, bytes(MAX_PAYLOAD_BYTES + 1)), SESSION_B, NONCE)


def test_not_for_another_session_of_the_receiver() -> None:
    with pytest.raises(SignalError):
        B_TO_A.open(BODY, b"c" * 16)


def test_not_turned_back_on_its_sender() -> None:
    for own in (SESSION_A, SESSION_B):
        with pytest.raises(SignalError):
            A_TO_B.open(BODY, own)


def test_not_swapped_to_another_receiver_or_sender() -> None:
    for pair in (Pair(KEYS, C, A.public), Pair(KEYS, B, C.public)):
        with pytest.raises(SignalError):
            pair.open(BODY, SESSION_B)


def test_not_without_the_secret_of_the_network() -> None:
    with pytest.raises(SignalError):
        Pair(OTHER_SECRET, B, A.public).open(BODY, SESSION_B)


@given(st.integers(0, len(BODY) - 1), st.integers(1, 255))
def test_not_when_any_byte_is_changed(place: int, change: int) -> None:
    altered = bytearray(BODY)
    altered[place] ^= change
    with pytest.raises(SignalError):
        B_TO_A.open(bytes(altered), SESSION_B)


@given(st.binary(max_size=200))
def test_garbage(body: bytes) -> None:
    with pytest.raises(SignalError):
        B_TO_A.open(body, SESSION_B)


def test_a_low_order_peer_key_is_refused() -> None:
    with pytest.raises(SignalError):
        Pair(KEYS, A, bytes(32))


@given(st.text(max_size=100))
def test_cards_fit_whatever_the_name(name: str) -> None:
    card = make_card(KEYS, A.public, SESSION_A, name, NONCE)
    assert len(card) <= MAX_CARD_BYTES
    assert open_card(KEYS, A.public, SESSION_A, card) == name[:MAX_NAME]


def test_a_name_that_is_no_text() -> None:
    card = make_card(KEYS, A.public, SESSION_A, "host\udcff" + "\0" * 100, NONCE)
    assert len(card) <= MAX_CARD_BYTES
    assert open_card(KEYS, A.public, SESSION_A, card).startswith("host?")


@given(st.binary(max_size=100))
def test_a_card_that_no_member_made(card: bytes) -> None:
    with pytest.raises(SignalError):
        open_card(KEYS, A.public, SESSION_A, card)


def test_a_card_belongs_to_its_node_and_session() -> None:
    card = make_card(KEYS, A.public, SESSION_A, "a", NONCE)
    for keys, node, session in (
        (KEYS, B.public, SESSION_A),
        (KEYS, A.public, SESSION_B),
        (OTHER_SECRET, A.public, SESSION_A),
    ):
        with pytest.raises(SignalError):
            open_card(keys, node, session, card)
