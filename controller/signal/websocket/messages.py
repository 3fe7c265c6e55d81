"""What a node and the rendezvous say to each other: JSON, one message per websocket message.

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
from tincan.control.codec import DecodeError, Meta, Struct, decode, encode, field

__all__ = [
    "MAX_BODY",
    "MAX_CARD",
    "MAX_MESSAGE",
    "MAX_PAYLOAD",
    "NONCE_SIZE",
    "PAGE_MEMBERS",
    "SESSION_SIZE",
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
MAX_MESSAGE: Final = 64 * 1024
"""Bytes of one websocket message; what either side will buffer."""
MAX_PAYLOAD: Final = 32 * 1024
"""Bytes of one node's words to another: an offer has about 2 KiB."""
MAX_BODY: Final = MAX_PAYLOAD + 52
"""Sealed: nonce 12, session 16, sequence 8, tag 16."""
MAX_CARD: Final = 512
"""Bytes; the rendezvous keeps one per member and repeats it to all others."""
MAX_NETWORK_NAME: Final = 64
"""Characters."""
PAGE_MEMBERS: Final = 50
"""Members in one message: 50 * (684 + 64 + 24 + keys) < MAX_MESSAGE."""
NONCE_SIZE: Final = 32
"""Bytes of a challenge."""
SESSION_SIZE: Final = 16
"""Bytes; random, so that no two sessions ever share one."""

NodeId: TypeAlias = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", min_length=64, max_length=64)]
Key: TypeAlias = Annotated[bytes, Meta(min_length=32, max_length=32)]
Nonce: TypeAlias = Annotated[bytes, Meta(min_length=NONCE_SIZE, max_length=NONCE_SIZE)]
Signature: TypeAlias = Annotated[bytes, Meta(min_length=64, max_length=64)]
Session: TypeAlias = Annotated[bytes, Meta(min_length=SESSION_SIZE, max_length=SESSION_SIZE)]
Card: TypeAlias = Annotated[bytes, Meta(max_length=MAX_CARD)]
Body: TypeAlias = Annotated[bytes, Meta(max_length=MAX_BODY)]
Version: TypeAlias = Annotated[int, Meta(ge=0, le=65535)]
NetworkName: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_NETWORK_NAME)]


class Reason(enum.StrEnum):
    """Why the rendezvous hangs up. A node decides by it how soon to come back."""

    WRONG_SECRET = "wrong secret"  # the network is there, under another membership key
    UNKNOWN_NETWORK = "unknown network"  # this rendezvous serves named networks only
    REPLACED = "replaced"  # another connection proved to be the same node
    NETWORK_FULL = "network full"
    RENDEZVOUS_FULL = "rendezvous full"
    BAD_PROOF = "bad proof"
    VERSION = "version"
    MALFORMED = "malformed"


class Challenge(Struct, frozen=True, tag="challenge", tag_field="m"):
    """The first message: what a member has to sign, and the key to prove its own against."""

    version: Version
    nonce: Nonce
    key: Key  # X25519, of this run of the rendezvous


class Join(Struct, frozen=True, tag="join", tag_field="m"):
    """The answer to a challenge."""

    version: Version
    network: NetworkName
    key: Key  # membership key, Ed25519
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
    """A page of the members there are, without the node itself. Receiving it means: joined."""

    members: Annotated[list[Member], Meta(max_length=PAGE_MEMBERS)]
    more: bool


class Joined(Struct, frozen=True, tag="joined", tag_field="m"):
    """A member came, or came again with a newer session."""

    id: NodeId
    session: Session
    card: Card


class Left(Struct, frozen=True, tag="left", tag_field="m"):
    """A member's connection ended."""

    id: NodeId


class Send(Struct, frozen=True, tag="send", tag_field="m"):
    """A sealed message for another member. Nothing is said when it is not there any more."""

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
    if len(data) > MAX_MESSAGE:
        raise SignalError("signal_oversized")
    try:
        return decode(data, kind)
    except DecodeError:
        raise SignalError("signal_malformed") from None
