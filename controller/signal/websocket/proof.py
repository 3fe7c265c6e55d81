"""The proof to a rendezvous that a node is a member, and which node it is. Pure.

    statement = label || nonce || rendezvous key || node key || session || SHA-256(card) || name
                         32       32                32          16         32               rest
    signature = Ed25519(membership key, statement)
    proof     = HMAC-SHA256(DH(node key, rendezvous key), statement)

The signature needs the network's secret, the proof needs the node's private key: nobody can
take another member's place. The nonce is fresh for each connection and the rendezvous key for
each of its runs, so neither can be used again.
"""

from typing import Final

from controller.errors import SignalError
from controller.signal.keys import NetworkKeys
from controller.signal.websocket.messages import VERSION, Challenge, Join
from tincan.crypto.primitives import CryptoError, PrivateKey, hmac_sha256, same, sha256, verify

LABEL: Final = b"switchmode 1 membership"


def _statement(
    challenge: Challenge, node: bytes, session: bytes, card: bytes, network: str
) -> bytes:
    """Return what the signature and the proof are about."""
    fixed = (LABEL, challenge.nonce, challenge.key, node, session, sha256(card))
    return b"".join(fixed) + network.encode("utf-8", "surrogatepass")


def join(
    challenge: Challenge, keys: NetworkKeys, private: PrivateKey, session: bytes, card: bytes
) -> Join:
    """Return the answer to ``challenge``; raise SignalError for one that cannot be answered."""
    if challenge.version != VERSION:
        raise SignalError("signal_version")
    statement = _statement(challenge, private.public, session, card, keys.network)
    try:
        shared = private.exchange(challenge.key)
    except CryptoError:
        raise SignalError("signal_malformed") from None
    return Join(
        version=VERSION,
        network=keys.network,
        key=keys.membership_key,
        signature=keys.membership.sign(statement),
        node=private.public.hex(),
        proof=hmac_sha256(shared, statement),
        session=session,
        card=card,
    )


def proven(answer: Join, challenge: Challenge, private: PrivateKey) -> bool:
    """Return whether ``answer`` proves membership under ``answer.key`` and its node's key.

    ``private`` belongs to ``challenge.key``. Takes about 0.2 ms and allocates nothing lasting.
    """
    node = bytes.fromhex(answer.node)
    statement = _statement(challenge, node, answer.session, answer.card, answer.network)
    if not verify(answer.key, statement, answer.signature):
        return False
    try:
        shared = private.exchange(node)
    except CryptoError:
        return False
    return same(hmac_sha256(shared, statement), answer.proof)
