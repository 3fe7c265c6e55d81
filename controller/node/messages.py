"""Messages between nodes: JSON objects told apart by their field ``m``, the tag.

They ride on the link itself, one message a datagram, and may be lost, repeated or reordered;
nothing may rely on any of them arriving. Each service brings its own types, subclasses of
``PeerMessage``; one ``Decoder`` reads those of all services. A tag that no service knows is no
fault of the sender: nodes of different versions mix.
"""

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final, Union

from controller.errors import RpcError
from controller.packets.addresses import Ip, Mac, usable_ip, usable_mac
from tincan.control.codec import DecodeError, Struct
from tincan.control.codec import decode as decode_json
from tincan.control.codec import encode as encode_json

MAX_MESSAGE_BYTES: Final = 16384
"""The size of one message; larger ones are refused before they are parsed."""


class PeerMessage(
    Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="m"
):
    """The base of all messages between nodes; never sent itself. Subclasses set ``tag``."""

    def mentioned(self) -> Iterable[tuple[Ip, Mac | None]]:
        """Return every address of a container that the message speaks about, for checking."""
        return ()


class _Tagged(Struct):
    """Any message, reduced to its tag."""

    m: str


class Decoder:
    """Reads the messages of all services of a node.

    ``kinds`` are the types of all services. Raises ValueError if a tag has two owners.
    """

    def __init__(self, kinds: Iterable[type[PeerMessage]]) -> None:
        self._kinds: dict[str, type[PeerMessage]] = {}
        for kind in kinds:
            tag = tag_of(kind)
            if tag in self._kinds:
                raise ValueError(f"two services take messages with the tag {tag!r}")
            self._kinds[tag] = kind
        self._any: Any = Union[tuple(self._kinds.values())]  # noqa: UP007 - made at run time

    def decode(self, data: bytes) -> PeerMessage:
        """Return the message in ``data``, every address in it canonical and of a usable kind.

        Raises RpcError: "oversized"; "unknown" for a tag that no service has; "malformed";
        "bad_address".
        """
        if len(data) > MAX_MESSAGE_BYTES:
            raise RpcError("oversized")
        try:
            message: PeerMessage = decode_json(data, self._any)
        except DecodeError:
            raise RpcError("malformed" if self._knows_tag(data) else "unknown") from None
        for ip, mac in message.mentioned():
            if not _canonical(ip) or not usable_ip(ip) or (mac is not None and not usable_mac(mac)):
                raise RpcError("bad_address")
        return message

    def _knows_tag(self, data: bytes) -> bool:
        """Return False for a message that is sound but for its tag, which no service has."""
        try:
            return decode_json(data, _Tagged).m in self._kinds
        except DecodeError:
            return True


def tag_of(kind: type[PeerMessage]) -> str:
    """Return the tag of a type of message: its name on the link and in the counters."""
    return str(kind.__struct_config__.tag)


def encode(message: PeerMessage) -> bytes:
    """Return ``message`` as at most MAX_MESSAGE_BYTES bytes of JSON."""
    return encode_json(message)


@lru_cache(maxsize=16384)
def _canonical(ip: Ip) -> bool:
    try:
        return "%" not in ip and str(ipaddress.ip_address(ip)) == ip
    except ValueError:
        return False
