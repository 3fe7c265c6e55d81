"""Datagrams that did not land as a record does: looked at one by one, correct, slower, bounded.

1. ``take_apart``: a batch that lies across its slots becomes datagrams.
2. ``datagram``: the first byte tells what one is (RFC 7983): STUN (0 to 3), ChannelData (64 to 79),
   ours (128 and above).
3. ``_channel_data``: what a TURN server has wrapped is demultiplexed again.
4. ``_fragment``: a datagram of a record, or its parity, goes to reassembly.
5. A record that is whole goes back to ingress.
"""

from collections import Counter
from collections.abc import Callable
from typing import Final, TypeAlias

from tincan.device.device import Address
from tincan.ice.stun import is_stun
from tincan.record.keys import OpeningKey
from tincan.record.landing import MIN_SLOT
from tincan.record.layout import (
    CHANNEL,
    CHANNEL_SIZE,
    HANDSHAKE_INIT,
    HANDSHAKE_RESPONSE,
    HEADER,
    HEADER_SIZE,
    RECORD,
    VERSION,
)
from tincan.record.port import Port
from tincan.record.reassembly import Reassembly

Open: TypeAlias = Callable[
    [Port, memoryview, int, int, bytes | bytearray, Address | None, float], None
]
"""Opens a record: port, memory, where it begins and stops there, header, sender, time."""

_HANDSHAKES: Final = frozenset({HANDSHAKE_INIT, HANDSHAKE_RESPONSE})


class Demux:
    """Takes datagrams one by one. ``keys``: those of ingress; ``open_record``: its last step.

    ``partial``: the records of which pieces wait here. An ``address`` is that of the sender, None
    if unknown.
    """

    def __init__(
        self, keys: dict[int, OpeningKey], open_record: Open, counters: Counter[str]
    ) -> None:
        self._reassembly = Reassembly(counters)
        self.partial = self._reassembly.partial
        self._keys = keys
        self._open = open_record
        self._counters = counters

    def take_apart(
        self, port: Port, flat: bytes, step: int, address: Address | None, now: float
    ) -> None:
        """Take the datagrams of a batch, of ``step`` bytes each but the last, one by one."""
        self._counters["batches_flattened"] += 1
        for start in range(0, len(flat), step):
            self.datagram(port, flat[start : start + step], address, now)

    def datagram(self, port: Port, datagram: bytes, address: Address | None, now: float) -> None:
        """Take one datagram that came by ``port``."""
        first = datagram[0] if datagram else 0
        if first < 4:
            on_stun = port.sock.on_stun if port.sock is not None else None
            if address and is_stun(datagram) and on_stun is not None:
                on_stun(datagram, (address[0], address[1]))
            else:
                self._counters["datagrams_dropped.not_stun"] += 1
        elif first & 0xC0 == 0x40 and port.lead:
            self._channel_data(port, datagram, address, now)
        elif len(datagram) <= HEADER_SIZE:  # a record's last fragment may be shorter than its tag
            self._counters["datagrams_dropped.truncated"] += 1
        elif first == RECORD:
            self._fragment(port, datagram, address, now)
        elif first in _HANDSHAKES and address:
            port.handshake(datagram, port, address, now)
        else:
            self._counters["datagrams_dropped.unknown_type"] += 1

    def _channel_data(
        self, port: Port, datagram: bytes, address: Address | None, now: float
    ) -> None:
        """Unwrap TURN ChannelData: what is inside may be STUN or ours."""
        if len(datagram) < CHANNEL_SIZE:
            self._counters["datagrams_dropped.truncated"] += 1
            return
        channel, length = CHANNEL.unpack_from(datagram)
        inner = datagram[CHANNEL_SIZE : CHANNEL_SIZE + length]
        if len(inner) != length:
            self._counters["datagrams_dropped.truncated"] += 1
        elif inner and inner[0] < 4:
            on_channel = port.sock.on_channel if port.sock is not None else None
            if is_stun(inner) and on_channel is not None:
                on_channel(inner, channel)
            else:
                self._counters["datagrams_dropped.not_stun"] += 1
        elif inner and inner[0] & 0x80:
            self.datagram(port, inner, address, now)
        else:
            self._counters["datagrams_dropped.unknown_type"] += 1

    def _fragment(self, port: Port, datagram: bytes, address: Address | None, now: float) -> None:
        """Take a datagram of a record; open the record if it was the last one needed."""
        _, index, count, version, receiver, counter = HEADER.unpack_from(datagram)
        if version != VERSION or not count:
            self._counters["datagrams_dropped.version"] += 1
            return
        opening = self._keys.get(receiver)
        if opening is None:
            self._counters["datagrams_dropped.unknown_receiver"] += 1
            return
        body = datagram[HEADER_SIZE:]
        if count > 1 and index < count - 1 and not port.filled_to:
            port.slot = max(len(body), MIN_SLOT)  # the next batch should fit
        window, key = opening.window, (receiver, counter)
        if index == count and self.is_spare(receiver, counter):
            self._counters["parities_spare"] += 1
            return
        if not window.check(counter):
            if self._reassembly.was_late(key, index):
                self._counters["datagrams_late"] += 1
                window.restored -= 1
            else:
                self._counters["datagrams_dropped.replayed"] += 1
            return
        restored, came = False, window.count
        if count > 1:
            found = self._reassembly.add(key, index, count, body, now)
            if found is None:
                return
            body, restored = found
        header = datagram[:1] + b"\0" + datagram[2:HEADER_SIZE]
        self._open(port, memoryview(bytearray(body)), 0, len(body), header, address, now)
        if count > 1 and window.count > came:
            self._counters["records_restored" if restored else "records_reassembled"] += 1
            if restored:
                window.restored += 1
                window.gap = True

    def is_spare(self, receiver: int, counter: int) -> bool:
        """Return whether no fragment waits in reassembly for this parity of a key of ours."""
        return receiver in self._keys and (receiver, counter) not in self.partial
