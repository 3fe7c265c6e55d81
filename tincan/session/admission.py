"""What happens to a handshake datagram before any of it is believed. Pure.

Three questions, the cheap ones first: is the length possible; does ``mac1`` show that the sender
knows the network's secret and means us (one hash, so that strangers get silence: WireGuard's
paper, section 5.4.4); have there been too many. Only then does Noise compute anything.

Limits by source address and cookies (WireGuard's mac2, section 5.4.7) belong here, too: whatever
is decided from a datagram that has not authenticated.
"""

from typing import Final, NamedTuple

from tincan.crypto.primitives import hmac_sha256, same, sha256
from tincan.errors import HandshakeFailed
from tincan.record.layout import HEADER, HEADER_SIZE, VERSION
from tincan.switching.bucket import TokenBucket

MAC_SIZE: Final = 16
"""Bytes of mac1, the end of each handshake datagram."""
HANDSHAKES_PER_SECOND: Final = 20
"""Of one session, 4 ms of work; what is beyond is not looked at. As many may come at once."""


class Admitted(NamedTuple):
    """Two fields of the header of a datagram that may be looked at; not authenticated yet."""

    receiver: int
    counter: int


def mac1_key(psk: bytes, receiver: bytes) -> bytes:
    """Return the key of mac1 for handshakes to the node with public key ``receiver``."""
    return sha256(b"switchmode mac1" + psk + receiver)


def mac1(key: bytes, datagram: bytes) -> bytes:
    """Return the MAC_SIZE bytes that end a handshake which begins with ``datagram``."""
    return hmac_sha256(key, datagram)[:MAC_SIZE]


class Admission:
    """The entrance of one session.

    ``key``: of mac1, for datagrams to us. ``kind``: the only handshake type that this side
    takes. ``longest``: bytes of the longest handshake that there can be.
    """

    def __init__(self, key: bytes, kind: int, longest: int) -> None:
        self._key = key
        self._kind = kind
        self._longest = longest
        self._bucket = TokenBucket(HANDSHAKES_PER_SECOND, HANDSHAKES_PER_SECOND)

    def admit(self, datagram: bytes, now: float) -> Admitted:
        """Return fields of a datagram that is worth Noise's work; raise HandshakeFailed."""
        if len(datagram) > self._longest:
            raise HandshakeFailed("handshake_oversized")
        if len(datagram) < HEADER_SIZE + MAC_SIZE:
            raise HandshakeFailed("handshake_truncated")
        if not same(mac1(self._key, datagram[:-MAC_SIZE]), datagram[-MAC_SIZE:]):
            raise HandshakeFailed("handshake_stranger")
        kind, fragment, count, version, receiver, counter = HEADER.unpack_from(datagram)
        if version != VERSION:
            raise HandshakeFailed("handshake_version")
        if (fragment, count) != (0, 1):
            raise HandshakeFailed("handshake_malformed")
        if kind != self._kind:
            raise HandshakeFailed("handshake_unexpected")
        if not self._bucket.allow(now):
            raise HandshakeFailed("handshake_rate")
        return Admitted(receiver, counter)
