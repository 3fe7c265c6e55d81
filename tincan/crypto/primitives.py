"""The cryptographic primitives: the one module that imports ``cryptography``.

``Aead`` and ``AuthenticationFailed`` are that package's own classes under our names, not
wrappers: a Python call around each record would cost as much as the cipher itself
(AES-256-GCM: 0.6 us for 1400 bytes).
"""

import hashlib
import hmac
import os
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.exceptions import InvalidTag as AuthenticationFailed
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM as Aead

from tincan.errors import CryptoError as CryptoError

__all__ = [
    "KEY_SIZE",
    "NONCE_SIZE",
    "SIGNATURE_SIZE",
    "TAG_SIZE",
    "Aead",
    "AuthenticationFailed",
    "CryptoError",
    "PrivateKey",
    "SigningKey",
    "hkdf",
    "hkdf_expand",
    "hkdf_extract",
    "hmac_sha256",
    "random_bytes",
    "same",
    "sha256",
    "verify",
]

KEY_SIZE: Final = 32  # bytes; X25519 and Ed25519 keys, AES-256 keys, SHA-256 digests
TAG_SIZE: Final = 16
NONCE_SIZE: Final = 12
SIGNATURE_SIZE: Final = 64

random_bytes = os.urandom
same = hmac.compare_digest


class PrivateKey:
    """An X25519 private key (RFC 7748). ``raw`` and ``public`` are 32 bytes."""

    __slots__ = ("_key", "public", "raw")

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_SIZE:
            raise CryptoError(f"an X25519 key has {KEY_SIZE} bytes, not {len(raw)}")
        self._key = X25519PrivateKey.from_private_bytes(raw)
        self.raw = raw
        self.public = self._key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> "PrivateKey":
        return cls(random_bytes(KEY_SIZE))

    @classmethod
    def from_bytes(cls, raw: bytes) -> "PrivateKey":
        """Raise CryptoError unless ``raw`` has 32 bytes."""
        return cls(bytes(raw))

    def exchange(self, public: bytes) -> bytes:
        """Return the 32-byte shared secret; raise CryptoError for a public key that is none.

        The all-zero result of a low-order point is refused too (RFC 7748 section 6.1).
        """
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:
            raise CryptoError("not an X25519 public key") from None

    def __repr__(self) -> str:
        return f"PrivateKey(public={self.public.hex()})"


class SigningKey:
    """An Ed25519 private key (RFC 8032) made from a 32-byte seed."""

    __slots__ = ("_key", "public")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != KEY_SIZE:
            raise CryptoError(f"an Ed25519 seed has {KEY_SIZE} bytes, not {len(seed)}")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._key.public_key().public_bytes_raw()

    @classmethod
    def from_seed(cls, seed: bytes) -> "SigningKey":
        """Raise CryptoError unless ``seed`` has 32 bytes."""
        return cls(bytes(seed))

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"SigningKey(public={self.public.hex()})"


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether ``signature`` is that of ``message`` by ``public``. Never raises on bad input."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def hmac_sha256(key: bytes, data: bytes) -> bytes:
    """Return the 32-byte HMAC (RFC 2104)."""
    return hmac.digest(key, data, "sha256")


def hkdf_extract(ikm: bytes, salt: bytes) -> bytes:
    """Return the 32-byte pseudo-random key of RFC 5869 section 2.2."""
    return hmac_sha256(salt or bytes(KEY_SIZE), ikm)


def hkdf_expand(key: bytes, info: bytes, length: int) -> bytes:
    """Return ``length`` bytes (at most 8160) of key material (RFC 5869 section 2.3)."""
    if not 0 <= length <= 255 * KEY_SIZE:
        raise CryptoError(f"HKDF cannot make {length} bytes")
    block, output = b"", b""
    for index in range(-(-length // KEY_SIZE)):
        block = hmac_sha256(key, block + info + bytes([index + 1]))
        output += block
    return output[:length]


def hkdf(ikm: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """Return ``length`` bytes of HKDF-SHA256 (RFC 5869): extract, then expand."""
    return hkdf_expand(hkdf_extract(ikm, salt), info, length)
