"""Sealing and opening keys: what they begin with."""

from typing import Any

from tincan.crypto.primitives import Aead
from tincan.record.keys import OpeningKey, SealingKey

NOBODY: Any = object()
"""A recipient that hears nothing: no record is received here."""


def test_a_new_key_has_sealed_and_opened_nothing() -> None:
    sealing = SealingKey(Aead(bytes(32)), 7, 1.5)
    opening = OpeningKey(Aead(bytes(32)), 9, 2.5, NOBODY)
    assert (sealing.receiver, sealing.counter, sealing.born) == (7, 0, 1.5)
    assert (opening.index, opening.owner, opening.born) == (9, NOBODY, 2.5)
    assert (opening.window.top, opening.window.count) == (-1, 0)
    assert not opening.confirmed
    assert opening.last_address is None


def test_what_one_key_seals_its_twin_opens() -> None:
    sealing = SealingKey(Aead(b"\x05" * 32), 7, 0.0)
    opening = OpeningKey(Aead(b"\x05" * 32), 7, 0.0, NOBODY)
    nonce = bytes(12)
    assert opening.aead.decrypt(nonce, sealing.aead.encrypt(nonce, b"frame", None), None)
