"""Known answers from the RFCs, and what each primitive does with garbage."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tincan.crypto.primitives import (
    Aead,
    AuthenticationFailed,
    CryptoError,
    PrivateKey,
    SigningKey,
    hkdf,
    hkdf_expand,
    hmac_sha256,
    same,
    sha256,
    verify,
)

unhex = bytes.fromhex


def test_x25519_known_answer() -> None:
    """RFC 7748 section 5.2, first vector."""
    scalar = unhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    point = unhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    shared = unhex("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552")
    assert PrivateKey.from_bytes(scalar).exchange(point) == shared


def test_ed25519_known_answer() -> None:
    """RFC 8032 section 7.1, test 1."""
    seed = unhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    key = SigningKey.from_seed(seed)
    signature = unhex(
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b"
    )
    assert key.public == unhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    assert key.sign(b"") == signature
    assert verify(key.public, b"", signature)
    assert not verify(key.public, b"x", signature)


def test_hkdf_known_answer() -> None:
    """RFC 5869 appendix A.1."""
    output = hkdf(b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA)), 42)
    assert output == unhex(
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )


def test_hmac_known_answer() -> None:
    """RFC 4231 section 4.3."""
    digest = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert hmac_sha256(b"Jefe", b"what do ya want for nothing?") == unhex(digest)


def test_sha256_known_answer() -> None:
    """FIPS 180-4, "abc"."""
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(b"abc") == unhex(digest)


def test_keys_agree() -> None:
    one, other = PrivateKey.generate(), PrivateKey.generate()
    assert one.exchange(other.public) == other.exchange(one.public)
    assert PrivateKey.from_bytes(one.raw).public == one.public
    assert one.raw.hex() not in repr(one)


@given(st.binary(max_size=64).filter(lambda raw: len(raw) != 32))
def test_keys_of_wrong_length_are_refused(raw: bytes) -> None:
    key = PrivateKey.from_bytes(b"\x01" * 32)
    for make in (PrivateKey.from_bytes, SigningKey.from_seed, key.exchange):
        with pytest.raises(CryptoError):
            make(raw)
    assert not verify(raw, b"", bytes(64))


@pytest.mark.parametrize(
    "public",
    [
        bytes(32),
        b"\x01" + bytes(31),
        unhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        unhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
        unhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    ],
)
def test_points_of_low_order_are_refused(public: bytes) -> None:
    """The list of https://cr.yp.to/ecdh.html#validate."""
    with pytest.raises(CryptoError):
        PrivateKey.from_bytes(b"\x01" * 32).exchange(public)


@given(st.binary(max_size=100), st.binary(max_size=100), st.binary(max_size=100))
def test_verify_never_raises(public: bytes, message: bytes, signature: bytes) -> None:
    assert not verify(public, message, signature)


def test_aead_into_buffers() -> None:
    """The forms that the hot path uses, on slices of a larger buffer."""
    aead, nonce, buffer = Aead(bytes(32)), bytes(12), bytearray(100)
    sealed = memoryview(buffer)[10:42]
    assert aead.encrypt_into(nonce, b"sixteen bytes it", b"header", sealed) == 32
    plain = bytearray(16)
    assert aead.decrypt_into(nonce, sealed, b"header", plain) == 16
    assert plain == b"sixteen bytes it"
    with pytest.raises(AuthenticationFailed):
        aead.decrypt(nonce, bytes(sealed), b"another")


def test_same() -> None:
    assert same(b"tag", b"tag")
    assert not same(b"tag", b"tagg")


def test_hkdf_refuses_what_it_cannot_make() -> None:
    with pytest.raises(CryptoError):
        hkdf_expand(bytes(32), b"", 255 * 32 + 1)
    assert hkdf_expand(bytes(32), b"", 0) == b""
