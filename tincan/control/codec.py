"""Typed JSON: the one module that imports msgspec.

Messages are ``Struct`` classes; ``decode`` is strict about types and names the path of what
is wrong. What a hostile sender can do to a JSON parser (depth, huge integers, broken UTF-8)
comes out as ``DecodeError`` and nothing else.
"""

from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from tincan.errors import DecodeError as DecodeError

__all__ = [
    "UNSET",
    "DecodeError",
    "Meta",
    "Raw",
    "Struct",
    "UnsetType",
    "convert",
    "decode",
    "encode",
    "field",
    "to_builtins",
]

T = TypeVar("T")


def encode(message: object) -> bytes:
    """Return ``message`` as compact JSON."""
    return msgspec.json.encode(message)


def decode(data: bytes | bytearray | memoryview, kind: type[T]) -> T:
    """Return ``data`` as ``kind``; raise DecodeError for whatever is wrong with it."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeError, ValueError, RecursionError) as error:
        raise DecodeError(str(error)) from None


def convert(value: object, kind: type[T]) -> T:
    """Return plain containers (from YAML, say) as ``kind``; raise DecodeError."""
    try:
        return msgspec.convert(value, kind, strict=True)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise DecodeError(str(error)) from None


def to_builtins(message: object) -> Any:
    """Return ``message`` as dicts, lists and scalars."""
    return msgspec.to_builtins(message)
