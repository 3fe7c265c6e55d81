"""The messages between a node and the rendezvous: JSON, one in each websocket message. Pure.

    rendezvous                              node
    challenge {version, nonce, key}   ->
                                      <-    join {version, network, key, signature, node, proof,
                                                  session, card}
    members {members, more}           ->          (pages; more=false ends the list)
    joined {id, session, card}        ->          (also a member's newer session)
    left {id}                         ->
                                      <-    send {to, body}
    message {from, body}              ->          (the body as the sender gave it)
    refused {reason, text}            ->          (then the connection closes)

Byte strings are base64. ``id``, ``node``, ``to`` and ``from`` are node ids: X25519 public keys
as 64 lowercase hexadecimal digits. ``session`` names one connection of a node. ``card`` and
``body`` are opaque to the rendezvous (sealing.py). proof.py says what is signed.

``decode_from_node`` and ``decode_from_rendezvous`` raise SignalError, whatever they are given.
"""

import enum
from typing import Annotated, Final, TypeAlias, TypeVar

from controller.errors import SignalError
from controller.packets.addresses import NODE_ID
from controller.signal.sealing import MAX_BODY_BYTES, SESSION_BYTES
from tincan.control.codec import DecodeError, Meta, Struct, decode, encode, field

__all__ = [
    "MAX_CARD_BYTES",
    "MAX_MESSAGE_BYTES",
    "NONCE_BYTES",
    "PAGE_MEMBERS",
    "VERSION",
    "Challenge",
    "Join",
    "Joined",
    "Left",
    "Member",
    "Members",
    "Message",
    "NodeId",
    "Reason",
    "Refused",
    "Send",
    "decode_from_node",
    "decode_from_rendezvous",
    "encode",
]

VERSION: Final = 1
MAX_MESSAGE_BYTES: Final = 64 * 1024
"""The longest websocket message; what either side will buffer."""
MAX_CARD_BYTES: Final = 512
"""The longest card; the rendezvous keeps one for each member and repeats it to all others."""
MAX_NETWORK_NAME: Final = 64
"""Characters of a network's name."""
PAGE_MEMBERS: Final = 50
"""Members in one message: 50 * (684 + 64 + 24 + keys) < MAX_MESSAGE_BYTES."""
NONCE_BYTES: Final = 32
"""The length of a challenge's nonce."""

NodeId: TypeAlias = Annotated[
    str, Meta(pattern=f"^{NODE_ID.pattern}$", min_length=64, max_length=64)
]
Key: TypeAlias = Annotated[bytes, Meta(min_length=32, max_length=32)]
Nonce: TypeAlias = Annotated[bytes, Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
Signature: TypeAlias = Annotated[bytes, Meta(min_length=64, max_length=64)]
Session: TypeAlias = Annotated[bytes, Meta(min_length=SESSION_BYTES, max_length=SESSION_BYTES)]
Card: TypeAlias = Annotated[bytes, Meta(max_length=MAX_CARD_BYTES)]
Body: TypeAlias = Annotated[bytes, Meta(max_length=MAX_BODY_BYTES)]
Version: TypeAlias = Annotated[int, Meta(ge=0, le=65535)]
NetworkName: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_NETWORK_NAME)]


class Reason(enum.StrEnum):
    """Why the rendezvous hangs up; a node decides by it how soon to come back."""

    WRONG_SECRET = "wrong secret"
    """The network is there, under another membership key."""
    UNKNOWN_NETWORK = "unknown network"
    """This rendezvous serves named networks only."""
    REPLACED = "replaced"
    """Another connection proved to be the same node."""
    NETWORK_FULL = "network full"
    RENDEZVOUS_FULL = "rendezvous full"
    BAD_PROOF = "bad proof"
    VERSION = "version"
    MALFORMED = "malformed"


class Challenge(Struct, frozen=True, tag="challenge", tag_field="m"):
    """The first message: what a member has to sign, and the key to prove its own against."""

    version: Version
    nonce: Nonce
    key: Key
    """An X25519 public key, of this run of the rendezvous."""


class Join(Struct, frozen=True, tag="join", tag_field="m"):
    """The answer to a challenge."""

    version: Version
    network: NetworkName
    key: Key
    """The membership key, an Ed25519 public key."""
    signature: Signature
    node: NodeId
    proof: Key
    session: Session
    card: Card


class Member(Struct, frozen=True):
    """One member as others see it."""

    id: NodeId
    session: Session
    card: Card


class Members(Struct, frozen=True, tag="members", tag_field="m"):
    """A page of the list of members, without the receiver. The first one says that it joined."""

    members: Annotated[list[Member], Meta(max_length=PAGE_MEMBERS)]
    more: bool


class Joined(Struct, frozen=True, tag="joined", tag_field="m"):
    """A member joined, or joined again with a newer session."""

    id: NodeId
    session: Session
    card: Card


class Left(Struct, frozen=True, tag="left", tag_field="m"):
    """The connection of a member ended."""

    id: NodeId


class Send(Struct, frozen=True, tag="send", tag_field="m"):
    """A sealed message for another member. There is no answer if that is not there any more."""

    to: NodeId
    body: Body


class Message(Struct, frozen=True, tag="message", tag_field="m"):
    """A sealed message from another member."""

    sender: NodeId = field(name="from")
    body: Body


class Refused(Struct, frozen=True, tag="refused", tag_field="m"):
    """The rendezvous is about to hang up. ``reason`` is a Reason, or one of a newer version."""

    reason: Annotated[str, Meta(max_length=64)]
    text: Annotated[str, Meta(max_length=256)] = ""


FromNode: TypeAlias = Join | Send
FromRendezvous: TypeAlias = Challenge | Members | Joined | Left | Message | Refused

T = TypeVar("T")


def decode_from_node(data: bytes) -> FromNode:
    """Return what a node said; raise SignalError."""
    return _decode(data, FromNode)  # type: ignore[arg-type]


def decode_from_rendezvous(data: bytes) -> FromRendezvous:
    """Return what the rendezvous said; raise SignalError."""
    return _decode(data, FromRendezvous)  # type: ignore[arg-type]


def _decode(data: bytes, kind: type[T]) -> T:
    if len(data) > MAX_MESSAGE_BYTES:
        raise SignalError("signal_oversized")
    try:
        return decode(data, kind)
    except DecodeError:
        raise SignalError("signal_malformed") from None
