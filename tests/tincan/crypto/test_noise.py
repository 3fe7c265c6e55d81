"""Noise against its public vectors, against another implementation, and against bad input."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tincan.crypto.noise import PATTERNS, SUITE, CipherState, Handshake
from tincan.crypto.primitives import CryptoError, PrivateKey
from tincan.errors import HandshakeFailed

VECTORS = Path(__file__).parents[2] / "vectors" / "noise_cacophony.json"
vectors: list[dict[str, Any]] = json.loads(VECTORS.read_text())["vectors"]

PSK = b"\x07" * 32
ALICE = PrivateKey.from_bytes(b"\x01" * 32)
BOB = PrivateKey.from_bytes(b"\x02" * 32)
EVE = PrivateKey.from_bytes(b"\x03" * 32)


def unhex(vector: dict[str, Any], key: str) -> bytes:
    return bytes.fromhex(vector.get(key, ""))


def pair(pattern: str = "IKpsk2", **changes: Any) -> tuple[Handshake, Handshake]:
    psk = PSK if "psk" in pattern else b""
    initiator: dict[str, Any] = {"static": ALICE, "remote_static": BOB.public, "psk": psk}
    initiator = {"prologue": b"", **initiator, **changes}
    return (
        Handshake(pattern, initiator=True, **initiator),
        Handshake(
            pattern,
            initiator=False,
            prologue=b"",
            static=BOB,
            remote_static=ALICE.public,
            psk=psk,
        ),
    )


@pytest.mark.parametrize("vector", vectors, ids=lambda vector: vector["name"])
def test_public_vector(vector: dict[str, Any]) -> None:
    pattern = vector["name"].split("_")[1]
    assert vector["name"] == f"Noise_{pattern}_{SUITE}"
    initiator = Handshake(
        pattern,
        initiator=True,
        prologue=unhex(vector, "init_prologue"),
        static=PrivateKey(unhex(vector, "init_static")),
        ephemeral=PrivateKey(unhex(vector, "init_ephemeral")),
        remote_static=unhex(vector, "init_remote_static"),
        psk=unhex(vector, "init_psk"),
    )
    responder = Handshake(
        pattern,
        initiator=False,
        prologue=unhex(vector, "resp_prologue"),
        static=PrivateKey(unhex(vector, "resp_static")),
        ephemeral=PrivateKey(unhex(vector, "resp_ephemeral")),
        psk=unhex(vector, "resp_psk"),
    )
    first, second, *transport = [
        (bytes.fromhex(message["payload"]), bytes.fromhex(message["ciphertext"]))
        for message in vector["messages"]
    ]
    assert initiator.write(first[0]) == first[1]
    assert responder.read(first[1]) == first[0]
    assert responder.remote_static == PrivateKey(unhex(vector, "init_static")).public
    assert responder.write(second[0]) == second[1]
    assert initiator.read(second[1]) == second[0]
    assert initiator.split() == responder.split()
    senders = [CipherState(key) for key in initiator.split()]
    openers = [CipherState(key) for key in responder.split()]
    assert transport
    for number, (payload, ciphertext) in enumerate(transport):
        assert senders[number % 2].encrypt(payload) == ciphertext
        assert openers[number % 2].decrypt(ciphertext) == payload


@pytest.mark.parametrize("ours_initiates", [True, False])
@pytest.mark.parametrize("pattern", ["IK", "IKpsk2"])
def test_agrees_with_noiseprotocol(pattern: str, ours_initiates: bool) -> None:
    """Differential, against the `noiseprotocol` package where a developer has it."""
    connection = pytest.importorskip("noise.connection")
    theirs = connection.NoiseConnection.from_name(f"Noise_{pattern}_{SUITE}".encode())
    static, remote = (BOB, ALICE) if ours_initiates else (ALICE, BOB)
    theirs.set_keypair_from_private_bytes(connection.Keypair.STATIC, static.raw)
    if not ours_initiates:
        theirs.set_keypair_from_public_bytes(connection.Keypair.REMOTE_STATIC, remote.public)
        theirs.set_as_initiator()
    else:
        theirs.set_as_responder()
    if "psk" in pattern:
        theirs.set_psks(PSK)
    theirs.set_prologue(b"prologue")
    theirs.start_handshake()
    ours = Handshake(
        pattern,
        initiator=ours_initiates,
        prologue=b"prologue",
        static=remote,
        remote_static=static.public,
        psk=PSK if "psk" in pattern else b"",
    )
    if ours_initiates:
        assert theirs.read_message(ours.write(b"one")) == b"one"
        assert ours.read(bytes(theirs.write_message(b"two"))) == b"two"
    else:
        assert ours.read(bytes(theirs.write_message(b"one"))) == b"one"
        assert theirs.read_message(ours.write(b"two")) == b"two"
    assert theirs.handshake_finished
    to_responder, to_initiator = ours.split()
    mine, other = (to_responder, to_initiator) if ours_initiates else (to_initiator, to_responder)
    assert theirs.decrypt(CipherState(mine).encrypt(b"record")) == b"record"
    assert CipherState(other).decrypt(theirs.encrypt(b"record")) == b"record"


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_truncation_is_refused(pattern: str) -> None:
    initiator, responder = pair(pattern)
    message = initiator.write(b"payload")
    for size in range(len(message)):
        with pytest.raises(HandshakeFailed):
            responder.fork().read(message[:size])
    assert responder.read(message) == b"payload"
    reply = responder.write(b"reply")
    for size in range(len(reply)):
        with pytest.raises(HandshakeFailed):
            initiator.fork().read(reply[:size])
    assert initiator.read(reply) == b"reply"


@given(st.data())
def test_every_flipped_bit_is_refused(data: st.DataObject) -> None:
    initiator, responder = pair()
    message = bytearray(initiator.write(b"payload"))
    bit = data.draw(st.integers(0, len(message) * 8 - 1))
    message[bit // 8] ^= 1 << bit % 8
    # X25519 ignores the top bit of a public key (RFC 7748 section 5); the hash does not.
    with pytest.raises(HandshakeFailed):
        responder.read(bytes(message))


@given(st.binary(max_size=400))
def test_garbage_is_refused(garbage: bytes) -> None:
    initiator, responder = pair()
    with pytest.raises(HandshakeFailed):
        responder.read(garbage)
    initiator.write(b"")
    with pytest.raises(HandshakeFailed):
        initiator.read(garbage)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"prologue": b"another network"}, "handshake_forged"),
        ({"remote_static": EVE.public}, "handshake_forged"),
        ({"static": EVE}, "handshake_wrong_peer"),
    ],
)
def test_disagreement_is_refused(change: dict[str, Any], reason: str) -> None:
    initiator, responder = pair(**change)
    with pytest.raises(HandshakeFailed) as failure:
        responder.read(initiator.write(b""))
    assert failure.value.reason == reason


def test_another_psk_is_refused_at_the_second_message() -> None:
    """psk2 is mixed in last: whoever must not cost us a DH has to be refused before (mac1)."""
    initiator, responder = pair(psk=b"\x08" * 32)
    responder.read(initiator.write(b""))
    with pytest.raises(HandshakeFailed):
        initiator.read(responder.write(b""))


def test_low_order_ephemeral_is_refused() -> None:
    _, responder = pair()
    with pytest.raises(HandshakeFailed):
        responder.read(bytes(32) + bytes(80))


def test_fork_is_independent() -> None:
    initiator, responder = pair()
    reply_to = responder.fork()
    message = initiator.write(b"")
    with pytest.raises(HandshakeFailed):
        responder.read(message[:-1] + b"\0")
    assert reply_to.read(message) == b""
    assert initiator.read(reply_to.write(b"")) == b""


def test_initiator_needs_the_responders_key() -> None:
    with pytest.raises(CryptoError):
        pair(remote_static=None)
