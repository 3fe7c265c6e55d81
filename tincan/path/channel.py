"""Datagrams by a UDP socket of ours, each in ChannelData through a TURN server (RFC 8656)."""

from collections import Counter

from tincan.device.device import Address, Socket
from tincan.path.direct import Direct
from tincan.path.path import Carrier
from tincan.record.layout import CHANNEL, CHANNEL_SIZE


class Channel(Direct):
    """Carries datagrams from ``sock`` to the TURN server at ``address``, to a bound ``channel``.

    The header of a record's datagram is part of its gather list, so a batch is sealed with it.
    """

    def __init__(
        self, sock: Socket, address: Address, channel: int, counters: Counter[str]
    ) -> None:
        super().__init__(sock, address, counters)
        self.channel: int = channel

    def body(self, mtu: int) -> int:
        """Return how many bytes of a record fit a datagram in an IP packet of ``mtu`` bytes."""
        return super().body(mtu) - CHANNEL_SIZE

    def send_plain(self, datagrams: list[bytes]) -> None:
        """Send handshake datagrams, which are no records. What cannot be sent is counted."""
        channel = self.channel
        super().send_plain([CHANNEL.pack(channel, len(each)) + each for each in datagrams])

    def moved(self, sock: Socket | None, address: Address) -> Carrier | None:
        """Return None: the server tells where the peer is."""
        return None
