"""Datagrams by a UDP socket of ours, with segmentation offload or without it."""

import errno
from collections import Counter

from tincan.device.device import Address, Socket
from tincan.device.udp import is_refusal_of_offload
from tincan.errors import PathTooSmall
from tincan.path.path import Carrier, overhead
from tincan.record.batch import Batch
from tincan.record.layout import HEADER_SIZE


class Direct:
    """Carries datagrams from ``sock`` to ``address``, which is the peer's."""

    channel: int | None = None

    def __init__(self, sock: Socket, address: Address, counters: Counter[str]) -> None:
        self._sock = sock
        self.address = address
        self._counters = counters

    @property
    def source(self) -> Address | None:
        """Our own address."""
        return self._sock.address

    @property
    def overhead(self) -> int:
        """Bytes of IP and UDP header before a datagram of ours."""
        return overhead(self.address)

    @property
    def offloads(self) -> list[str]:
        """The names of what the kernel does for us here: gso, gro."""
        return self._sock.offloads

    def body(self, mtu: int) -> int:
        """Return how many bytes of a record fit a datagram in an IP packet of ``mtu`` bytes."""
        return mtu - self.overhead - HEADER_SIZE

    def send(self, batch: Batch) -> bool:
        """Send a sealed batch; return whether all of it left. Raise PathTooSmall.

        Full calls come first: at 1500 bytes 44 datagrams, so that a full super-frame (45) takes
        two, and three of them in one record (135) take four.
        """
        sock, address = self._sock, self.address
        send = sock.send
        sent = segment = 0
        try:
            for iov, segment in batch.calls(sock.segment_offload):
                send(iov, segment, address)
                sent += 1
        except OSError as error:
            # Or, in older kernels, that the segments are larger than the device's MTU: then the
            # datagrams are refused one by one, too, and it is not to blame.
            if segment and is_refusal_of_offload(error):
                return self._one_by_one(batch, sent)
            return self._refused(error, batch)
        return True

    def _one_by_one(self, batch: Batch, sent: int) -> bool:
        """Send what ``sent`` calls have left without the offload; if that goes, give it up."""
        sock = self._sock
        try:
            for iov, segment in batch.rest(sent):
                sock.send(iov, segment, self.address)
                if sock.segment_offload:
                    sock.segment_offload = False
                    self._counters["offload_fallbacks.udp_segment"] += 1
        except OSError as error:
            return self._refused(error, batch)
        return True

    def _refused(self, error: OSError, batch: Batch) -> bool:
        """Count what the kernel has not taken: as if none of what was sealed had left."""
        if error.errno == errno.EMSGSIZE:
            raise PathTooSmall from None
        reason = "socket_full" if isinstance(error, BlockingIOError) else "send_error"
        self._counters[f"records_dropped.{reason}"] += batch.records
        return False

    def send_plain(self, datagrams: list[bytes]) -> None:
        """Send handshake datagrams, which are no records. What cannot be sent is counted."""
        for datagram in datagrams:
            try:
                self._sock.sendto(datagram, self.address)
            except OSError:
                self._counters["handshakes_dropped.send_error"] += 1

    def unsent(self) -> int:
        """Return how many bytes wait before our own device."""
        return self._sock.unsent()

    def moved(self, sock: Socket | None, address: Address) -> Carrier | None:
        """Return the carrier to the peer's new ``address``, from which our ``sock`` has heard."""
        if sock is not self._sock or address == self.address:
            return None
        return Direct(self._sock, address, self._counters)
