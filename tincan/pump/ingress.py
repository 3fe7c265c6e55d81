"""From the sockets to the TAP: batches land in slots, records are opened in place.

A *source* is one of our sockets and what it takes to read it well: the slot size seen last, and
the landing in which a record waits for its rest. On the common path datagrams come in order and
have one size; where batches end, and where records do, does not matter: nothing is copied.
Everything else (other sizes, gaps, mixtures with STUN, relays that interleave) is taken apart
datagram by datagram: correct, slower, bounded.
"""

import errno
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tincan.crypto.primitives import AuthenticationFailed
from tincan.device.segment import segment
from tincan.device.tap import Tap
from tincan.device.udp import Address, UdpSocket
from tincan.errors import MalformedDatagram
from tincan.ice.stun import is_stun
from tincan.record.keys import OpeningKey
from tincan.record.landing import FIRST_SLOT, MIN_SLOT, Landing, flatten
from tincan.record.layout import (
    CHANNEL_SIZE,
    HANDSHAKE_INIT,
    HANDSHAKE_RESPONSE,
    HEADER,
    HEADER_SIZE,
    ITEM,
    ITEM_SIZE,
    LENGTH_MASK,
    MAX_RECORD,
    RECORD,
    TAG_SIZE,
    VERSION,
    VNET_SIZE,
    ZERO_NONCE,
    Item,
)
from tincan.record.reassembly import Reassembly
from tincan.record.slots import Slots
from tincan.switching.frame import ETHERNET, ETHERNET_SIZE
from tincan.switching.policy import SUSPECTS, Policy, looks_suspect

if TYPE_CHECKING:
    from tincan.link.link import Link
    from tincan.path.attempt import Negotiation

RECEIVE_BUDGET: Final = 32  # batches per wake-up of one socket
MAX_CONTROL: Final = 16  # items of a record that are no frames; our own records have one

RECEIVER_COUNTER = struct.Struct(">IQ")  # of a header, from byte 4 on
_FRAME: Final = int(Item.FRAME)  # comparing with the enum itself costs three times as much
_INDICES: Final = bytes(range(256))
_BUDGET: Final = range(RECEIVE_BUDGET)


@dataclass(slots=True, eq=False)
class Source:
    """A socket that is read. In slots ``first`` up to ``have`` of its landing a record waits for
    its rest, up to slot ``until``; between two wake-ups that landing is ``held``. The next batch
    goes behind."""

    sock: UdpSocket
    link: "Link"
    negotiation: "Negotiation"
    lead: int = 0  # or CHANNEL_SIZE when a TURN server speaks here
    slot: int = FIRST_SLOT
    held: Landing | None = None
    first: int = 0
    have: int = 0  # 0: nothing waits
    until: int = 0


class Ingress:
    """Opens records and writes frames. ``keys`` maps our receiver indices to keys."""

    def __init__(self, tap: Tap, policy: Policy["Link"], counters: Counter[str]) -> None:
        self.keys: dict[int, OpeningKey] = {}
        self._write: Callable[[memoryview], int | None] = tap.write
        self._write_item: Callable[[memoryview], int | None] = (
            tap.write if tap.offloads.vnet_hdr else self._segment_and_write
        )
        self._policy = policy
        self._counters = counters
        self._reassembly = Reassembly(counters)
        self._spare = [Landing()]
        self._delivered = 0  # frames

    def wake(self, source: Source, now: float) -> bool:
        """Take what waits at a socket, at most RECEIVE_BUDGET batches; return whether frames came
        out of it."""
        sock = source.sock
        delivered = self._delivered
        landing = source.held or self._spare[-1]
        if sock.on_channel is not None:
            source.lead = CHANNEL_SIZE
        slots = landing.slots(source.slot, source.lead)
        for turn in _BUDGET:
            have = source.have
            if have > slots.last_start:
                have = self._make_room(source, slots)
            try:
                received = sock.receive(slots, have)
            except OSError:
                # Pending errors of earlier sends (ICMP) surface here; the socket goes on.
                self._counters["socket_errors"] += 1
                break
            if received is None:
                break
            size, segment, address = received
            if segment == slots.full:
                after = have + size // segment
                if (
                    after < source.until
                    and not size % segment
                    and slots.alike(source.first, have, after)
                ):
                    source.have = after  # we look at it when all must have come
                    continue
                self._batch(source, slots, size, address, now)
            elif size == segment < slots.full:
                self._batch(source, slots, size, address, now)
                if not turn:
                    break  # rarely more waits, and if so, epoll says so for less than a call
            elif segment:
                flat = flatten(slots, have, size)
                if have:
                    self._release(source, slots, now)
                self._take_apart(source, flat, segment, address, now)
                slots = landing.slots(source.slot, source.lead)
            elif size:
                self._counters["datagrams_dropped.oversized"] += 1
            if sock.closed:  # what came has ended its negotiation
                break
        if source.have:
            self._hold(source, landing)
        elif source.held is not None:
            self._spare.append(source.held)
            source.held = None
        return self._delivered != delivered

    def land(
        self, source: Source, header: bytes | bytearray, body: memoryview, at: Address, now: float
    ) -> None:
        """Take one datagram as if it had come to ``source`` from ``at``."""
        landing = self._spare[-1]
        landing.headers[:HEADER_SIZE] = header
        landing.body[: len(body)] = body
        size = HEADER_SIZE + len(body)
        self._batch(source, landing.slots(source.slot, source.lead), size, at, now)

    # -- batches

    def _batch(self, source: Source, slots: Slots, size: int, address: Address, now: float) -> None:
        """Take a batch whose datagrams lie in a slot each."""
        lead, slot, stride, headers = source.lead, slots.size, slots.stride, slots.headers
        have = source.have
        here = -(-size // slots.full)
        end = have + here
        last = size - (here - 1) * slots.full - stride  # bytes of body in the last slot
        if lead:  # a server may pad ChannelData to 4 bytes (RFC 8656 section 12.5)
            told = (end - 1) * stride + 2
            length = int.from_bytes(headers[told : told + 2], "big") - HEADER_SIZE
            if 0 < length <= last < length + 4:
                last = length
        at = have * stride + lead
        if headers[at] != RECORD or last <= 0:  # not ours to land
            flat = flatten(slots, have, size)
            if here > 1 and have:  # the rest of what waits may be in it
                self._release(source, slots, now)
            self._take_apart(source, flat, slots.full, address, now)
            return
        first = source.first
        source.first = source.have = source.until = 0
        while first < end:
            at = first * stride
            header = headers[at + lead : at + stride]
            kind, index, count, version, receiver, counter = HEADER.unpack(header)
            after = first + count
            unseen = have if first < have else first  # what has waited is alike
            ours = kind == RECORD and version == VERSION and count > 0
            if lead and headers[at] & 0xC0 != 0x40:
                ours = False
            if ours and index == count and self._is_spare(receiver, counter):
                self._counters["parities_spare"] += 1
                first += 1
                continue
            if ours and not index:
                if after > end:
                    # What is not of it must not wait with it: its rest may be lost.
                    goes_on = last == slot and slots.alike(first, unseen, end)
                    if goes_on and self._may_wait(receiver, counter, count, slots):
                        source.first, source.have, source.until = first, end, after
                        source.slot = slot  # a datagram in between may have asked for another
                        return
                elif count == 1 or (
                    slots.alike(first, unseen, after)
                    and headers[at + lead + 1 : after * stride : stride] == _INDICES[:count]
                ):
                    stop = after * slot if after < end else (end - 1) * slot + last
                    # Only of the batch that has come do we know where it is from.
                    known = address if after > have else None
                    self._open(source, slots.bodies, first * slot, stop, header, known, now)
                    first = after
                    continue
            body = slot if first < end - 1 else last
            known = address if first >= have else None
            self._datagram(source, slots.datagram(first, body), known, now)
            first += 1

    def _is_spare(self, receiver: int, counter: int) -> bool:
        """Whether nothing waits for this parity: its record came whole, or not at all."""
        return receiver in self.keys and (receiver, counter) not in self._reassembly

    def _may_wait(self, receiver: int, counter: int, count: int, slots: Slots) -> bool:
        """Whether a record of ``count`` datagrams may wait in a landing for its rest: it is for one
        of our keys, no longer than a record can be, and nothing of the rest has overtaken it."""
        return (
            receiver in self.keys
            and (count - 1) * slots.size < MAX_RECORD
            and count <= slots.last_start + 1
            and (receiver, counter) not in self._reassembly
        )

    def _make_room(self, source: Source, slots: Slots) -> int:
        """Begin at the front of the landing again, with what waits for its rest; return the slot
        behind that."""
        first, have, stride, size = source.first, source.have, slots.stride, slots.size
        count = have - first
        slots.headers[: count * stride] = slots.headers[first * stride : have * stride]
        slots.bodies[: count * size] = slots.bodies[first * size : have * size]
        source.first, source.have, source.until = 0, count, source.until - first
        return count

    def _hold(self, source: Source, landing: Landing) -> None:
        """Keep the landing for the rest of a record, which comes with another wake-up."""
        if source.held is None:
            source.held = landing
            self._spare.remove(landing)
            if not self._spare:
                self._spare.append(Landing())

    def _release(self, source: Source, slots: Slots, now: float) -> None:
        """Hand the fragments that wait to reassembly: their rest did not come next."""
        flat = flatten(slots, source.first, (source.have - source.first) * slots.full)
        source.first = source.have = source.until = 0
        self._take_apart(source, flat, slots.full, None, now)

    def _take_apart(
        self, source: Source, flat: bytes, step: int, address: Address | None, now: float
    ) -> None:
        """Take the datagrams of a batch, of ``step`` bytes each but the last, one by one."""
        self._counters["batches_flattened"] += 1
        for start in range(0, len(flat), step):
            self._datagram(source, flat[start : start + step], address, now)

    def _datagram(
        self, source: Source, datagram: bytes, address: Address | None, now: float
    ) -> None:
        """Demultiplex one datagram by its first byte (RFC 7983). ``address``: None if unknown."""
        first = datagram[0] if datagram else 0
        if first < 4:
            if address and is_stun(datagram) and source.sock.on_stun is not None:
                source.sock.on_stun(datagram, (address[0], address[1]))
            else:
                self._counters["datagrams_dropped.not_stun"] += 1
        elif first & 0xC0 == 0x40 and source.lead:
            self._channel_data(source, datagram, address, now)
        elif len(datagram) <= HEADER_SIZE:  # a record's last fragment may be shorter than its tag
            self._counters["datagrams_dropped.truncated"] += 1
        elif first == RECORD:
            self._record_fragment(source, datagram, address, now)
        elif first in (HANDSHAKE_INIT, HANDSHAKE_RESPONSE) and address:
            source.link.handshake(datagram, source, address, now)
        else:
            self._counters["datagrams_dropped.unknown_type"] += 1

    def _channel_data(
        self, source: Source, datagram: bytes, address: Address | None, now: float
    ) -> None:
        """Unwrap TURN ChannelData: what is inside may be STUN or ours."""
        if len(datagram) < CHANNEL_SIZE:
            self._counters["datagrams_dropped.truncated"] += 1
            return
        length = int.from_bytes(datagram[2:4], "big")
        inner = datagram[CHANNEL_SIZE : CHANNEL_SIZE + length]
        if len(inner) != length:
            self._counters["datagrams_dropped.truncated"] += 1
        elif inner and inner[0] < 4:
            if is_stun(inner) and source.sock.on_channel is not None:
                source.sock.on_channel(inner, int.from_bytes(datagram[:2], "big"))
            else:
                self._counters["datagrams_dropped.not_stun"] += 1
        elif inner and inner[0] & 0x80:
            self._datagram(source, inner, address, now)
        else:
            self._counters["datagrams_dropped.unknown_type"] += 1

    def relayed(self, source: Source, datagram: bytes, now: float) -> None:
        """Take a datagram that came through a relay over a stream."""
        self._datagram(source, datagram, source.sock.address, now)

    def _record_fragment(
        self, source: Source, datagram: bytes, address: Address | None, now: float
    ) -> None:
        _, index, count, version, receiver, counter = HEADER.unpack_from(datagram)
        if version != VERSION or not count:
            self._counters["datagrams_dropped.version"] += 1
            return
        body = datagram[HEADER_SIZE:]
        header = datagram[:1] + b"\0" + datagram[2:HEADER_SIZE]
        if count > 1 and index < count - 1 and not source.have and receiver in self.keys:
            source.slot = max(len(body), MIN_SLOT)  # the next batch should fit
        self._fragment(source, header, (receiver, counter), index, count, body, address, now)

    def _fragment(
        self,
        source: Source,
        header: bytes,
        key: tuple[int, int],
        index: int,
        count: int,
        body: bytes,
        address: Address | None,
        now: float,
    ) -> None:
        opening = self.keys.get(key[0])
        if opening is None:
            self._counters["datagrams_dropped.unknown_receiver"] += 1
            return
        window = opening.window
        if index == count and self._is_spare(*key):
            self._counters["parities_spare"] += 1
            return
        if not window.check(key[1]):
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
        self._open(source, memoryview(bytearray(body)), 0, len(body), header, address, now)
        if count > 1 and window.count > came:
            self._counters["records_restored" if restored else "records_reassembled"] += 1
            if restored:
                window.restored += 1
                window.gap = True

    # -- records

    def _open(
        self,
        source: Source,
        body: memoryview,
        begin: int,
        stop: int,
        header: bytes | bytearray,
        address: Address | None,
        now: float,
    ) -> None:
        """Decrypt the record in ``body[begin:stop]`` where it is; act on its items."""
        receiver, counter = RECEIVER_COUNTER.unpack_from(header, 4)
        key = self.keys.get(receiver)
        if key is None:
            self._counters["datagrams_dropped.unknown_receiver"] += 1
            return
        end = stop - TAG_SIZE
        if end <= begin:
            self._counters["datagrams_dropped.truncated"] += 1
            return
        window = key.window
        if counter <= window.top and not window.check(counter):
            self._counters["records_dropped.replayed"] += 1
            return
        try:
            key.aead.decrypt_into(
                ZERO_NONCE + header[8:], body[begin:stop], header, body[begin:end]
            )
        except AuthenticationFailed:
            self._counters["records_dropped.forged"] += 1
            return
        if not window.commit(counter):
            self._counters["records_dropped.replayed"] += 1
            return
        link: Link = key.owner  # type: ignore[assignment]
        link.rx_bytes += stop - begin
        if address is key.last_address and address is not None:
            link.liveness.heard = now
        else:
            link.authenticated(key, source, address, now)
        if window.gap:
            link.missed(key, now)
        self._items(link, source, body, begin, end, now)

    def _items(
        self, link: "Link", source: Source, body: memoryview, at: int, end: int, now: float
    ) -> None:
        """Act on the items in ``body[at:end]``."""
        admissions, write = self._policy.admissions, self._write_item
        item, ethernet = ITEM.unpack_from, ETHERNET.unpack_from
        controls = frames = 0
        last = end - ITEM_SIZE
        while at <= last:
            word = item(body, at)[0]
            at += ITEM_SIZE
            after = at + (word & LENGTH_MASK)
            if after > end:
                self._counters["records_dropped.malformed"] += 1
                break
            if word >> 28 == _FRAME:
                start = at + VNET_SIZE
                known = None
                if start + ETHERNET_SIZE <= after:
                    known = admissions.get(ethernet(body, start)[0])
                if known is not None:
                    owner, entry, protocol, shortest = known
                    if (
                        owner is not link
                        or after - start < shortest
                        or (
                            body[start + protocol] in SUSPECTS
                            and looks_suspect(body, start, protocol)
                        )
                    ):
                        known = None
                    elif entry is not None:
                        entry.seen = now
                if known is None and not self._policy.admit(link, body[start:after], now):
                    at = after
                    continue
                frames += 1
                try:
                    if write(body[at:after]) is None:
                        self._counters["frames_dropped.tap_full"] += 1
                except OSError as error:
                    self._refused(error)
            elif word >> 28 == Item.PADDING:
                break
            elif controls < MAX_CONTROL:  # each may cost an answer: 16,000 fit in a record
                controls += 1
                link.control(word >> 28, bytes(body[at:after]), source, now)
            else:
                self._counters["items_dropped.too_many"] += 1
            at = after
        if frames:
            link.rx_frames += frames
            self._delivered += frames

    # -- the TAP

    def deliver(self, item: memoryview) -> None:
        """Write a frame (virtio header first) to the TAP."""
        self._put(self._write_item, item)

    def _put(self, write: Callable[[memoryview], int | None], item: memoryview) -> None:
        """Write, and count what is not taken."""
        try:
            if write(item) is None:
                self._counters["frames_dropped.tap_full"] += 1
        except OSError as error:
            self._refused(error)

    def _refused(self, error: OSError) -> None:
        """Count a frame that the TAP did not take."""
        # EIO: the TAP is down. EINVAL: the kernel refused the virtio header.
        reason = "tap_down" if error.errno == errno.EIO else "tap_refused"
        self._counters[f"frames_dropped.{reason}"] += 1

    def _segment_and_write(self, item: memoryview) -> int | None:
        """Segment and complete checksums ourselves, for a TAP that has no virtio header."""
        try:
            frames = segment(item)
        except MalformedDatagram as error:
            self._counters[f"frames_dropped.{error.reason}"] += 1
            return 0
        for frame in frames:
            self._put(self._write, memoryview(frame))
        return len(item)
