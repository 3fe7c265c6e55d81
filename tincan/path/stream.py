"""Datagrams by a stream (TCP or TLS) to a TURN server, which makes UDP of them (RFC 8656).

The stream's end of ICE (ice.sockets) frames each datagram, once: what is handed over here begins
with our own header.
"""

from collections.abc import Callable

from tincan.device.device import Address, Socket
from tincan.path.path import Carrier, overhead
from tincan.record.batch import Batch
from tincan.record.layout import CHANNEL_SIZE, HEADER_SIZE


class Stream:
    """Carries datagrams to the TURN server at ``address`` by ``send``, which frames each.

    ``send`` never fails: it drops and counts what the stream has no room for.
    """

    channel: int | None = None
    source: Address | None = None

    def __init__(self, send: Callable[[bytes], None], address: Address) -> None:
        self._send = send
        self.address = address

    @property
    def overhead(self) -> int:
        """Bytes of IP and UDP header before a datagram of ours, behind the server."""
        return overhead(self.address)

    @property
    def offloads(self) -> list[str]:
        """Nothing: the kernel sees no datagrams here."""
        return []

    def body(self, mtu: int) -> int:
        """Return how many bytes of a record fit a datagram in an IP packet of ``mtu`` bytes."""
        return mtu - self.overhead - CHANNEL_SIZE - HEADER_SIZE

    def send(self, batch: Batch) -> bool:
        """Send a sealed batch; return True."""
        self.send_plain(list(batch.datagrams()))
        return True

    def send_plain(self, datagrams: list[bytes]) -> None:
        """Send datagrams, of a record or of a handshake."""
        for datagram in datagrams:
            self._send(datagram)

    def unsent(self) -> int:
        """Return 0: what waits in a stream is bounded by ``send``."""
        return 0

    def moved(self, sock: Socket | None, address: Address) -> Carrier | None:
        """Return None: the server tells where the peer is."""
        return None
