"""What crosses between two nodes before there is a path, and what a TURN server is.

Descriptions travel through the controllers and the rendezvous as they are.
"""

from dataclasses import dataclass, field
from typing import Annotated, Final, Literal, TypeAlias

from tincan.control.codec import Meta, Struct

MAX_CANDIDATES: Final = 24
"""Candidates in one description, ours or a peer's."""
MAX_CANDIDATE_LENGTH: Final = 256
"""Characters of one SDP candidate attribute."""

Transport: TypeAlias = Literal["udp", "tcp", "tls"]
"""How a TURN server is reached."""


class Description(Struct, frozen=True, forbid_unknown_fields=True):
    """One side's half of an ICE negotiation (RFC 8839): what an offer or an answer carries."""

    ufrag: Annotated[str, Meta(pattern=r"\A[a-zA-Z0-9+/]{4,256}\Z")]
    pwd: Annotated[str, Meta(pattern=r"\A[a-zA-Z0-9+/]{22,256}\Z")]
    candidates: Annotated[
        list[Annotated[str, Meta(max_length=MAX_CANDIDATE_LENGTH)]],
        Meta(max_length=MAX_CANDIDATES),
    ]


@dataclass(frozen=True, slots=True)
class TurnServer:
    """A TURN server (RFC 8656) with long-term credentials; ``host`` is a name or an address."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    transport: Transport = "udp"
