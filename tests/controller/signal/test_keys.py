"""The keys that a network's secret turns into."""

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from controller.signal.keys import NetworkKeys
from tincan.crypto.primitives import verify


def test_derivation_is_hkdf_as_documented() -> None:
    root = HKDF(SHA256(), 32, b"switchmode 1", b"network lab").derive(b"hunter2")
    keys = NetworkKeys.derive("lab", "hunter2")
    for label, size, value in (
        (b"psk", 32, keys.psk),
        (b"seal", 32, keys.seal),
        (b"card", 32, keys.card),
        (b"beacon", 32, keys.beacon),
        (b"id", 16, keys.network_id),
    ):
        assert HKDFExpand(SHA256(), size, label).derive(root) == value


def test_keys_do_not_change_between_versions() -> None:
    keys = NetworkKeys.derive("lab", "hunter2")
    assert keys.network_id.hex() == "e8d9bf8772597c00b498b606070a1549"
    assert keys.membership_key.hex() == (
        "42a7124465c82ae9ea80fb1cc079de387e3f180aa69e6505d257ea707f3158d6"
    )


def test_every_key_differs_and_depends_on_name_and_secret() -> None:
    sets = [
        {k.psk, k.seal, k.card, k.beacon, k.network_id, k.membership_key}
        for k in (
            NetworkKeys.derive("lab", "a"),
            NetworkKeys.derive("lab", "b"),
            NetworkKeys.derive("lab2", "a"),
            NetworkKeys.derive("", "\N{SNOWMAN}\ud800"),
        )
    ]
    assert len(set.union(*sets)) == 24


def test_membership_key_verifies_what_the_secret_signs() -> None:
    keys = NetworkKeys.derive("lab", "a")
    assert verify(keys.membership_key, b"text", keys.membership.sign(b"text"))


def test_secrets_are_not_printed() -> None:
    keys = NetworkKeys.derive("lab", "a")
    assert keys.psk.hex() not in repr(keys)
    assert repr(keys.psk) not in repr(keys)
