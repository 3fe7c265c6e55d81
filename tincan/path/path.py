"""What carries datagrams to a peer, and how it was found.

Nothing here knows which ICE library found it, so that the pump and the link need not either.
"""

from dataclasses import dataclass, replace
from typing import Final, Protocol

from tincan.device.device import Address, Socket
from tincan.record.batch import Batch

IP4_UDP_SIZE: Final = 28
"""Bytes of IPv4 and UDP header."""
IP6_UDP_SIZE: Final = 48
"""Bytes of IPv6 and UDP header."""


def overhead(address: Address) -> int:
    """Return the bytes of IP and UDP header before what is sent to ``address``."""
    return IP6_UDP_SIZE if ":" in address[0] else IP4_UDP_SIZE


class Carrier(Protocol):
    """Takes datagrams to a peer, directly or through a relay. It is the way out of a Batch."""

    @property
    def address(self) -> Address:
        """Where datagrams go first: to the peer, or to the relay."""

    @property
    def source(self) -> Address | None:
        """Our own address; None if there is a stream instead of a socket."""

    @property
    def overhead(self) -> int:
        """Bytes of IP and UDP header before a datagram of ours."""

    @property
    def channel(self) -> int | None:
        """Which ChannelData header a sealed datagram must begin with; None: with none."""

    @property
    def offloads(self) -> list[str]:
        """The names of what the kernel does for us here: gso, gro."""

    def body(self, mtu: int) -> int:
        """Return how many bytes of a record fit a datagram in an IP packet of ``mtu`` bytes."""

    def send(self, batch: Batch) -> bool:
        """Send a sealed batch; return whether all of it left. Raise PathTooSmall.

        Call Batch.send_by instead. What has not left was counted.
        """

    def send_plain(self, datagrams: list[bytes]) -> None:
        """Send handshake datagrams, which are no records. What cannot be sent is counted."""

    def unsent(self) -> int:
        """Return how many bytes wait before our own device."""

    def moved(self, sock: Socket | None, address: Address) -> "Carrier | None":
        """Return the carrier to the peer's new ``address``, from which ``sock`` has heard.

        Return None if the peer has not moved as far as this carrier goes.
        """


@dataclass(frozen=True, slots=True)
class Path:
    """A carrier, and the pair of candidates that it was made of.

    ``local``, ``remote``: candidate types (host, srflx, prflx, relay). ``peer_address``: the peer
    as this side sees it, behind the relay if there is one. ``behind_nat``, ``peer_behind_nat``: as
    far as this family of addresses goes; None: unknown.
    """

    carrier: Carrier
    local: str
    remote: str
    peer_address: Address
    behind_nat: bool | None = None
    peer_behind_nat: bool | None = None

    @property
    def relayed(self) -> bool:
        """Whether a TURN server, ours or the peer's, forwards what goes this way."""
        return self.local == "relay" or self.remote == "relay"

    def moved(self, sock: Socket | None, address: Address) -> "Path | None":
        """Return the path to the peer's new ``address``: see Carrier.moved."""
        carrier = self.carrier.moved(sock, address)
        if carrier is None:
            return None
        return replace(self, carrier=carrier, peer_address=carrier.address)
