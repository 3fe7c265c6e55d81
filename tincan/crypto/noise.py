"""The Noise protocol framework, revision 34, as far as we need it: IK with or without a PSK,
25519, AESGCM, SHA256.

A pattern is data: what each of its two messages consists of. Names and section numbers are those
of https://noiseprotocol.org/noise.html.
"""

from typing import Final

from tincan.crypto.primitives import (
    KEY_SIZE,
    TAG_SIZE,
    Aead,
    AuthenticationFailed,
    CryptoError,
    PrivateKey,
    hmac_sha256,
    sha256,
)
from tincan.errors import HandshakeFailed

SUITE: Final = "25519_AESGCM_SHA256"

# Section 7.5 and 9.4; the pre-message of all three is "<- s".
PATTERNS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "IK": (("e", "es", "s", "ss"), ("e", "ee", "se")),
    "IKpsk1": (("e", "es", "s", "ss", "psk"), ("e", "ee", "se")),
    "IKpsk2": (("e", "es", "s", "ss"), ("e", "ee", "se", "psk")),
}


class CipherState:
    """A key and a counting nonce (section 5.1); without a key, the identity."""

    __slots__ = ("_aead", "_nonce", "key")

    def __init__(self, key: bytes | None = None) -> None:
        self.key = key
        self._aead = None if key is None else Aead(key)
        self._nonce = 0

    def _next(self) -> bytes:
        nonce = bytes(4) + self._nonce.to_bytes(8, "big")  # section 12.3: big-endian for AESGCM
        self._nonce += 1
        return nonce

    def encrypt(self, plaintext: bytes, ad: bytes = b"") -> bytes:
        if self._aead is None:
            return plaintext
        return self._aead.encrypt(self._next(), plaintext, ad)

    def decrypt(self, ciphertext: bytes, ad: bytes = b"") -> bytes:
        """Raise HandshakeFailed."""
        if self._aead is None:
            return ciphertext
        try:
            return self._aead.decrypt(self._next(), ciphertext, ad)
        except AuthenticationFailed:
            raise HandshakeFailed("handshake_forged") from None


def derive(chaining_key: bytes, material: bytes, outputs: int) -> list[bytes]:
    """HKDF of section 4.3: ``outputs`` (2 or 3) keys of 32 bytes."""
    secret = hmac_sha256(chaining_key, material)
    keys = [hmac_sha256(secret, b"\x01")]
    for number in range(2, outputs + 1):
        keys.append(hmac_sha256(secret, keys[-1] + bytes([number])))
    return keys


class Handshake:
    """One side of one handshake (sections 5.2 and 5.3).

    ``pattern``: a key of PATTERNS. ``static``: our key. ``remote_static``: 32 bytes; the
    initiator must give it; a responder that gives it accepts nobody else. ``ephemeral``: only
    tests choose it.

    The initiator calls write, read, split; the responder read, write, split. ``read`` raises
    HandshakeFailed and leaves this object unusable: work on a ``fork`` if a better message may
    still come.
    """

    __slots__ = (
        "_chain",
        "_cipher",
        "_ephemeral",
        "_hash",
        "_initiator",
        "_messages",
        "_position",
        "_psk",
        "_remote_ephemeral",
        "_static",
        "remote_static",
    )

    def __init__(
        self,
        pattern: str,
        *,
        initiator: bool,
        prologue: bytes,
        static: PrivateKey,
        remote_static: bytes | None = None,
        psk: bytes = b"",
        ephemeral: PrivateKey | None = None,
    ) -> None:
        name = f"Noise_{pattern}_{SUITE}".encode()
        self._hash = name.ljust(KEY_SIZE, b"\0") if len(name) <= KEY_SIZE else sha256(name)
        self._chain = self._hash
        self._cipher = CipherState()
        self._messages = PATTERNS[pattern]
        self._position = 0
        self._initiator = initiator
        self._static = static
        self.remote_static = remote_static
        self._psk = psk
        self._ephemeral = ephemeral
        self._remote_ephemeral = b""
        self._mix_hash(prologue)
        responder = remote_static if initiator else static.public
        if responder is None:
            raise CryptoError("the initiator of an IK handshake knows the responder's key")
        self._mix_hash(responder)

    def fork(self) -> "Handshake":
        """Return an independent copy at the same point."""
        copy = object.__new__(Handshake)
        for name in Handshake.__slots__:
            setattr(copy, name, getattr(self, name))
        copy._cipher = CipherState(self._cipher.key)
        copy._cipher._nonce = self._cipher._nonce
        return copy

    def write(self, payload: bytes) -> bytes:
        """Return our message with ``payload`` in it."""
        message = b""
        for token in self._messages[self._position]:
            if token == "e":
                # Not before: a responder must not make a key for a forged first message.
                self._ephemeral = self._ephemeral or PrivateKey.generate()
                message += self._ephemeral.public
                self._mix_ephemeral(self._ephemeral.public)
            elif token == "s":
                message += self._encrypt_and_hash(self._static.public)
            else:
                self._mix(token)
        self._position += 1
        return message + self._encrypt_and_hash(payload)

    def read(self, message: bytes) -> bytes:
        """Return the payload of the peer's ``message``; raise HandshakeFailed."""
        rest = message
        for token in self._messages[self._position]:
            if token == "e":
                self._remote_ephemeral, rest = _take(rest, KEY_SIZE)
                self._mix_ephemeral(self._remote_ephemeral)
            elif token == "s":
                sealed, rest = _take(rest, KEY_SIZE + TAG_SIZE)
                static = self._decrypt_and_hash(sealed)
                if self.remote_static is not None and self.remote_static != static:
                    raise HandshakeFailed("handshake_wrong_peer")
                self.remote_static = static
            else:
                self._mix(token)
        self._position += 1
        return self._decrypt_and_hash(rest)

    def split(self) -> tuple[bytes, bytes]:
        """Return the 32-byte keys of initiator to responder, and of responder to initiator."""
        first, second = derive(self._chain, b"", 2)
        return first, second

    def _mix(self, token: str) -> None:
        if token == "psk":
            self._chain, middle, key = derive(self._chain, self._psk, 3)
            self._mix_hash(middle)
            self._cipher = CipherState(key)
            return
        # The first letter is the initiator's key, the second the responder's.
        ours = token[0 if self._initiator else 1]
        theirs = token[1 if self._initiator else 0]
        private = self._ephemeral if ours == "e" else self._static
        public = self._remote_ephemeral if theirs == "e" else self.remote_static
        assert private is not None  # by the order of tokens in PATTERNS
        assert public is not None
        try:
            self._mix_key(private.exchange(public))
        except CryptoError:
            raise HandshakeFailed("handshake_forged") from None

    def _mix_ephemeral(self, public: bytes) -> None:
        self._mix_hash(public)
        if self._psk:
            self._mix_key(public)  # section 9.2

    def _mix_key(self, material: bytes) -> None:
        self._chain, key = derive(self._chain, material, 2)
        self._cipher = CipherState(key)

    def _mix_hash(self, data: bytes) -> None:
        self._hash = sha256(self._hash + data)

    def _encrypt_and_hash(self, plaintext: bytes) -> bytes:
        ciphertext = self._cipher.encrypt(plaintext, self._hash)
        self._mix_hash(ciphertext)
        return ciphertext

    def _decrypt_and_hash(self, ciphertext: bytes) -> bytes:
        plaintext = self._cipher.decrypt(ciphertext, self._hash)
        self._mix_hash(ciphertext)
        return plaintext


def _take(data: bytes, size: int) -> tuple[bytes, bytes]:
    if len(data) < size:
        raise HandshakeFailed("handshake_truncated")
    return data[:size], data[size:]
