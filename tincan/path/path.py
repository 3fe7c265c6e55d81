"""What negotiation tells the data path: a path.

Nothing here knows which ICE library made a path, so that the pump and the link need not either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tincan.record.layout import CHANNEL_SIZE, HEADER_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tincan.device.udp import Address, UdpSocket


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
