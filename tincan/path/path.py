"""What negotiation and the data path tell each other: descriptions, servers, sockets, paths.

Nothing here knows which ICE library made a path, so that the pump and the link need not either.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal, Protocol, TypeAlias

from tincan.control.codec import Meta, Struct
from tincan.record.layout import CHANNEL_SIZE, HEADER_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tincan.device.udp import Address, UdpSocket

MAX_CANDIDATES = 24  # in one description, ours or a peer's
MAX_CANDIDATE_LENGTH = 256  # characters of one SDP candidate attribute

Transport: TypeAlias = Literal["udp", "tcp", "tls"]


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


@dataclass(frozen=True, slots=True)
class Path:
    """Where datagrams for a peer go.

    Three kinds: direct (``socket``, no ``channel``), through a TURN server over UDP (``socket``
    and ``channel``: every datagram is preceded by a ChannelData header, ``>HH`` channel and
    length, RFC 8656 section 12.4), through a TURN server over a stream (``relay_send`` alone).
    """

    socket: UdpSocket | None
    address: Address  # where sendmsg goes: the peer, or the TURN server
    channel: int | None
    local: str  # candidate type: host, srflx, prflx or relay
    remote: str
    peer_address: Address  # the peer as this side sees it, behind the relay if there is one
    relay_send: Callable[[bytes], None] | None = None
    behind_nat: bool | None = None  # this host, as far as its family of addresses goes
    peer_behind_nat: bool | None = None

    @property
    def relayed(self) -> bool:
        """Whether a TURN server, ours or the peer's, forwards what goes this way."""
        return self.local == "relay" or self.remote == "relay"

    @property
    def overhead(self) -> int:
        """Bytes of IP and UDP header before what we send."""
        return 48 if ":" in self.address[0] else 28

    def body(self, mtu: int) -> int:
        """How many bytes of a record fit a datagram, if the IP packet may have ``mtu`` bytes."""
        return mtu - self.overhead - (0 if self.channel is None else CHANNEL_SIZE) - HEADER_SIZE


class Sockets(Protocol):
    """Who opens sockets and reads them: the pump."""

    def open(self, host: str, port: int = 0) -> UdpSocket:
        """Bind a socket and start reading it; raise SystemRefusal."""

    def close(self, sock: UdpSocket) -> None:
        """Stop reading and close."""
