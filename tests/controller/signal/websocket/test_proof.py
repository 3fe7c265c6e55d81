"""Proofs of membership: about everything that they say, and for one challenge."""

import pytest

from controller.signal.websocket.messages import Challenge, Join
from controller.signal.websocket.proof import join, proven
from tests.controller.signal.memory import KEYS, OTHER_SECRET
from tincan.crypto.primitives import PrivateKey


@pytest.fixture
def answered() -> tuple[Challenge, Join, PrivateKey]:
    server, node = PrivateKey.generate(), PrivateKey.generate()
    challenge = Challenge(1, b"n" * 32, server.public)
    return challenge, join(challenge, KEYS, node, b"s" * 16, b"card"), server


def test_a_proof_holds(answered: tuple[Challenge, Join, PrivateKey]) -> None:
    challenge, answer, server = answered
    assert proven(answer, challenge, server)


@pytest.mark.parametrize(
    "change",
    [
        {"node": "0" * 64},
        {"node": "42" * 32},
        {"session": b"t" * 16},
        {"card": b"another"},
        {"network": "other"},
        {"key": OTHER_SECRET.membership_key},
        {"proof": bytes(32)},
        {"signature": bytes(64)},
    ],
)
def test_a_proof_covers_everything(
    answered: tuple[Challenge, Join, PrivateKey], change: dict[str, object]
) -> None:
    challenge, answer, server = answered
    fields = {name: getattr(answer, name) for name in answer.__struct_fields__}
    assert not proven(Join(**{**fields, **change}), challenge, server)


def test_a_proof_is_for_one_challenge(answered: tuple[Challenge, Join, PrivateKey]) -> None:
    _, answer, server = answered
    assert not proven(answer, Challenge(1, b"m" * 32, server.public), server)
    other = PrivateKey.generate()
    assert not proven(answer, Challenge(1, b"n" * 32, other.public), other)
