"""The keys that a network's secret turns into. Pure.

    root        = HKDF-SHA256(ikm=secret, salt="switchmode 1", info="network " + name)   32 bytes
    psk         = HKDF-Expand(root, "psk")          Noise pre-shared key of every link
    membership  = HKDF-Expand(root, "membership")   Ed25519 seed; the public key goes to rendezvous
    seal        = HKDF-Expand(root, "seal")         mixed into every sealed signalling message
    card        = HKDF-Expand(root, "card")         AEAD key of the name shown in presence
    beacon      = HKDF-Expand(root, "beacon")       HMAC key of loop beacons
    network_id  = HKDF-Expand(root, "id")           16 bytes

(RFC 5869.) The name is part of it, so one secret used for two networks gives unrelated keys.
The rendezvous sees the membership *public* key only: it can tell members from strangers and
cannot compute any other key from it. It could try passwords against it, though: a secret is
meant to be random (``openssl rand -base64 32``), not remembered.

``rendezvous membership-key --network NAME --secret-file FILE`` prints the membership key, for
``rendezvous --network NAME=KEY``.
"""

from dataclasses import dataclass, field
from typing import Final

from tincan.crypto.primitives import SigningKey, hkdf, hkdf_expand

SALT: Final = b"switchmode 1"
NETWORK_ID_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class NetworkKeys:
    """The keys of one network. All are 32 bytes, ``network_id`` is 16."""

    network: str
    network_id: bytes
    psk: bytes = field(repr=False)
    seal: bytes = field(repr=False)
    card: bytes = field(repr=False)
    beacon: bytes = field(repr=False)
    membership: SigningKey = field(repr=False)

    @classmethod
    def derive(cls, network: str, secret: str) -> "NetworkKeys":
        """Return the keys of the network called ``network``. Any text is a secret."""
        name = network.encode("utf-8", "surrogatepass")
        root = hkdf(secret.encode("utf-8", "surrogatepass"), SALT, b"network " + name, 32)
        return cls(
            network=network,
            network_id=hkdf_expand(root, b"id", NETWORK_ID_BYTES),
            psk=hkdf_expand(root, b"psk", 32),
            seal=hkdf_expand(root, b"seal", 32),
            card=hkdf_expand(root, b"card", 32),
            beacon=hkdf_expand(root, b"beacon", 32),
            membership=SigningKey.from_seed(hkdf_expand(root, b"membership", 32)),
        )

    @property
    def membership_key(self) -> bytes:
        """The 32-byte Ed25519 public key that the rendezvous pins for this network."""
        return self.membership.public
