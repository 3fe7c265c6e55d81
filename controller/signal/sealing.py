"""Sealed messages between members: a rendezvous that carries them cannot read or forge them. Pure.

A sealed body (12 + 16 + 8 + payload + 16 bytes):

    nonce 12, random | AES-256-GCM( sender's session 16 | sequence >Q | payload )
    key = HKDF-SHA256(ikm=DH(sender, receiver), salt=seal key, info=label || sender || receiver)
    aad = label || sender || receiver || receiver's session

Only these two nodes can compute the key, and only with the network's secret; the direction is
part of it, so a message cannot be returned to its sender. The receiver's session is new for
each of its connections, which voids everything older; within one, the sequence of each of the
sender's sessions only rises. What a rendezvous can still do is drop, delay and correlate.

A card is a node's name for the other members:

    nonce 12, random | AES-256-GCM(card key, {"name": ...}, aad = label || node || session)

The rendezvous cannot invent members: it has no card for them.

Nonces are arguments.
"""

import struct
from typing import Annotated, Final

from controller.errors import SignalError
from controller.signal.keys import NetworkKeys
from tincan.control.codec import DecodeError, Meta, Struct, decode, encode
from tincan.crypto.primitives import (
    NONCE_SIZE,
    TAG_SIZE,
    Aead,
    AuthenticationFailed,
    CryptoError,
    PrivateKey,
    hkdf,
)

LABEL: Final = b"switchmode 1 sealed"
CARD_LABEL: Final = b"switchmode 1 card"
SESSION_BYTES: Final = 16
"""The length of a session's name; it is random, so that no two sessions ever share one."""
INNER: Final = struct.Struct(f">{SESSION_BYTES}sQ")
"""The head of a sealed body's inside: the sender's session and the sequence."""
MAX_PAYLOAD_BYTES: Final = 32 * 1024
"""The longest message of one node to another: an offer has about 2 KiB."""
MAX_BODY_BYTES: Final = MAX_PAYLOAD_BYTES + NONCE_SIZE + INNER.size + TAG_SIZE
"""The longest sealed body."""
MAX_NAME: Final = 64
"""Characters of a node's name; a card has to fit in messages.MAX_CARD_BYTES."""


class Sealed(Struct, frozen=True):
    """The inside of a sealed body."""

    session: bytes
    """The sender's session."""
    sequence: int
    payload: bytes


class Pair:
    """The two keys between this node and one other. Making a pair costs a DH: about 0.1 ms."""

    __slots__ = ("_incoming", "_outgoing", "_prefix_in", "_prefix_out")

    def __init__(self, keys: NetworkKeys, private: PrivateKey, peer: bytes) -> None:
        """Raise SignalError if ``peer`` (32 bytes) is not a usable public key."""
        try:
            shared = private.exchange(peer)
        except CryptoError:
            raise SignalError("signal_bad_key") from None
        self._prefix_out = LABEL + private.public + peer
        self._prefix_in = LABEL + peer + private.public
        self._outgoing = Aead(hkdf(shared, keys.seal, self._prefix_out, 32))
        self._incoming = Aead(hkdf(shared, keys.seal, self._prefix_in, 32))

    def seal(self, message: Sealed, receiver_session: bytes, nonce: bytes) -> bytes:
        """Return the body. ``nonce``: 12 random bytes; the payload: up to MAX_PAYLOAD_BYTES."""
        if len(message.payload) > MAX_PAYLOAD_BYTES:
            raise ValueError(f"{len(message.payload)} bytes are too many to seal")
        inner = INNER.pack(message.session, message.sequence) + message.payload
        return nonce + self._outgoing.encrypt(nonce, inner, self._prefix_out + receiver_session)

    def open(self, body: bytes, own_session: bytes) -> Sealed:
        """Return what the peer sealed for this session of ours; raise SignalError."""
        if not NONCE_SIZE + INNER.size + TAG_SIZE <= len(body) <= MAX_BODY_BYTES:
            raise SignalError("signal_malformed")
        try:
            inner = self._incoming.decrypt(
                body[:NONCE_SIZE], body[NONCE_SIZE:], self._prefix_in + own_session
            )
        except AuthenticationFailed:
            raise SignalError("signal_not_authentic") from None
        session, sequence = INNER.unpack_from(inner)
        return Sealed(session, sequence, inner[INNER.size :])


class _Card(Struct):
    """The inside of a card. Unknown fields are ignored, so that a later version may say more."""

    name: Annotated[str, Meta(max_length=MAX_NAME)]


def make_card(keys: NetworkKeys, node: bytes, session: bytes, name: str, nonce: bytes) -> bytes:
    """Return the card of ``node`` for ``session``. Names are cut to MAX_NAME characters."""
    clean = name.encode("utf-8", "replace").decode()[:MAX_NAME]
    inner = encode(_Card(clean))
    return nonce + Aead(keys.card).encrypt(nonce, inner, CARD_LABEL + node + session)


def open_card(keys: NetworkKeys, node: bytes, session: bytes, card: bytes) -> str:
    """Return the name on the card; raise SignalError if no member made it for that session."""
    if len(card) < NONCE_SIZE + TAG_SIZE:
        raise SignalError("signal_bad_card")
    try:
        inner = Aead(keys.card).decrypt(
            card[:NONCE_SIZE], card[NONCE_SIZE:], CARD_LABEL + node + session
        )
        return decode(inner, _Card).name
    except (AuthenticationFailed, DecodeError):
        raise SignalError("signal_bad_card") from None
