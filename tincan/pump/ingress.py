"""From the sockets to the TAP: batches land in slots, records are opened in place.

The methods stand in the order of a frame's way:

1. ``wake``: a socket is readable; batches are received behind each other into one landing.
2. ``_batch``: the records of a batch are found; one that is not whole waits (record.port).
3. ``_open``: a record is decrypted where it lies, and its recipient told.
4. ``_items``: its frames go where the policy says, other items to the recipient.

On the common path datagrams come in order and have one size; where batches end, and where records
do, does not matter: nothing is copied. Everything else (other sizes, gaps, mixtures with STUN,
relays that interleave) is taken apart datagram by datagram (pump.demux).
"""

import struct
from collections import Counter
from typing import Any, Final

from tincan.crypto.primitives import AuthenticationFailed
from tincan.device.device import Address
from tincan.pump.delivery import Delivery
from tincan.pump.demux import Demux
from tincan.record.keys import OpeningKey, Recipient
from tincan.record.landing import Landing, flatten
from tincan.record.layout import (
    CHANNEL_SIZE,
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
from tincan.record.pages import Pool
from tincan.record.port import Port
from tincan.record.slots import Slots
from tincan.switching.frame import ETHERNET, ETHERNET_SIZE
from tincan.switching.policy import SUSPECTS, Policy, looks_suspect

RECEIVE_BUDGET: Final = 32
"""Batches in one wake-up of one socket."""
MAX_CONTROL: Final = 16
"""Items of one record that are no frames; our own records have one."""

_RECEIVER_COUNTER = struct.Struct(">IQ")
"""Of a header, from byte 4 on."""
NOWHERE: Final[Address] = ("", 0)
"""Sender of what came by no socket of ours."""
_FRAME: Final = int(Item.FRAME)
"""Comparing with the enum itself costs three times as much."""
_INDICES: Final = bytes(range(256))
_BUDGET: Final = range(RECEIVE_BUDGET)


class Ingress:
    """Opens records and writes frames. ``keys`` maps our receiver indices to keys.

    ``policy`` is the one that knows the owners of these keys.
    """

    def __init__(
        self, delivery: Delivery, policy: Policy[Any], counters: Counter[str], pool: Pool
    ) -> None:
        self.keys: dict[int, OpeningKey] = {}
        self._delivery = delivery
        self._policy = policy
        self._counters = counters
        self._pool = pool
        self._demux = Demux(self.keys, self._open, counters)
        self._spare = [Landing(pool)]
        self._delivered = 0  # frames

    # --- 1. sockets

    def wake(self, port: Port, now: float) -> bool:
        """Take what waits at a socket, at most RECEIVE_BUDGET batches.

        Return whether frames came out of it.
        """
        sock = port.sock
        assert sock is not None
        delivered = self._delivered
        landing = port.held or self._spare[-1]
        if sock.on_channel is not None:
            port.lead = CHANNEL_SIZE
        slots = landing.slots(port.slot, port.lead)
        for turn in _BUDGET:
            have = port.filled_to
            if have > slots.last_start:
                have = self._make_room(port, slots)
            try:
                received = sock.receive(slots.iovs[have])
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
                    after < port.whole_at
                    and not size % segment
                    and slots.all_of_record(port.waiting_from, have, after)
                ):
                    port.filled_to = after  # we look at it when all must have come
                    continue
                self._batch(port, slots, size, address, now)
            elif size == segment < slots.full:
                self._batch(port, slots, size, address, now)
                if not turn:
                    break  # more waits rarely, and epoll says so for less than a call
            elif segment:
                flat = flatten(slots, have, size)
                if have:
                    self._release(port, slots, now)
                self._demux.take_apart(port, flat, segment, address, now)
                slots = landing.slots(port.slot, port.lead)
            elif size:
                self._counters["datagrams_dropped.oversized"] += 1
            if sock.closed:  # what came has ended its negotiation
                break
        if port.filled_to:
            self._hold(port, landing)
        elif port.held is not None:
            self._spare.append(port.held)
            port.held = None
        return self._delivered != delivered

    def relayed(self, port: Port, datagram: bytes, now: float) -> None:
        """Take a datagram that came through a relay over a stream."""
        self._demux.datagram(port, datagram, NOWHERE, now)

    def land(
        self, port: Port, header: bytes | bytearray, body: memoryview, at: Address, now: float
    ) -> None:
        """Take one datagram as if it had come by ``port`` from ``at``. For rehearsals only."""
        landing = self._spare[-1]
        landing.headers[:HEADER_SIZE] = header
        landing.body[: len(body)] = body
        size = HEADER_SIZE + len(body)
        self._batch(port, landing.slots(port.slot, port.lead), size, at, now)

    # --- 2. batches

    def _batch(self, port: Port, slots: Slots, size: int, address: Address, now: float) -> None:
        """Take a batch whose datagrams lie in a slot each."""
        lead, slot, stride, headers = port.lead, slots.size, slots.stride, slots.headers
        have = port.filled_to
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
                self._release(port, slots, now)
            self._demux.take_apart(port, flat, slots.full, address, now)
            return
        first = port.waiting_from
        port.waiting_from = port.filled_to = port.whole_at = 0
        while first < end:
            at = first * stride
            header = headers[at + lead : at + stride]
            kind, index, count, version, receiver, counter = HEADER.unpack(header)
            after = first + count
            unseen = have if first < have else first  # what has waited is alike
            ours = kind == RECORD and version == VERSION and count > 0
            if lead and headers[at] & 0xC0 != 0x40:
                ours = False
            if ours and index == count and self._demux.is_spare(receiver, counter):
                self._counters["parities_spare"] += 1
                first += 1
                continue
            if ours and not index:
                if after > end:
                    # What is not of it must not wait with it: its rest may be lost.
                    goes_on = last == slot and slots.all_of_record(first, unseen, end)
                    if goes_on and self._may_wait(receiver, counter, count, slots):
                        port.waiting_from, port.filled_to, port.whole_at = first, end, after
                        port.slot = slot  # a datagram in between may have asked for another
                        return
                elif count == 1 or (
                    slots.all_of_record(first, unseen, after)
                    and headers[at + lead + 1 : after * stride : stride] == _INDICES[:count]
                ):
                    stop = after * slot if after < end else (end - 1) * slot + last
                    # Only of the batch that has come do we know where it is from.
                    known = address if after > have else None
                    self._open(port, slots.bodies, first * slot, stop, header, known, now)
                    first = after
                    continue
            body = slot if first < end - 1 else last
            known = address if first >= have else None
            self._demux.datagram(port, slots.datagram(first, body), known, now)
            first += 1

    def _may_wait(self, receiver: int, counter: int, count: int, slots: Slots) -> bool:
        """Return whether a record of ``count`` datagrams may wait in a landing for its rest.

        It may if it is for one of our keys and no longer than a record can be, and if nothing of
        the rest has overtaken it.
        """
        return (
            receiver in self.keys
            and (count - 1) * slots.size < MAX_RECORD
            and count <= slots.last_start + 1
            and (receiver, counter) not in self._demux.partial
        )

    def _make_room(self, port: Port, slots: Slots) -> int:
        """Move what waits for its rest to the front of the landing; return the slot behind it."""
        first, have, stride, size = port.waiting_from, port.filled_to, slots.stride, slots.size
        count = have - first
        slots.headers[: count * stride] = slots.headers[first * stride : have * stride]
        slots.bodies[: count * size] = slots.bodies[first * size : have * size]
        port.waiting_from, port.filled_to, port.whole_at = 0, count, port.whole_at - first
        return count

    def _hold(self, port: Port, landing: Landing) -> None:
        """Keep the landing for the rest of a record, which comes with another wake-up."""
        if port.held is None:
            port.held = landing
            self._spare.remove(landing)
            if not self._spare:
                self._spare.append(Landing(self._pool))

    def _release(self, port: Port, slots: Slots, now: float) -> None:
        """Hand the fragments that wait to reassembly: their rest did not come next."""
        flat = flatten(slots, port.waiting_from, (port.filled_to - port.waiting_from) * slots.full)
        port.waiting_from = port.filled_to = port.whole_at = 0
        self._demux.take_apart(port, flat, slots.full, None, now)

    # --- 3. records

    def _open(
        self,
        port: Port,
        body: memoryview,
        begin: int,
        stop: int,
        header: bytes | bytearray,
        address: Address | None,
        now: float,
    ) -> None:
        """Decrypt the record in ``body[begin:stop]`` where it is; act on its items."""
        receiver, counter = _RECEIVER_COUNTER.unpack_from(header, 4)
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
        recipient = key.owner
        rx = recipient.rx
        rx.bytes += stop - begin
        if address is key.last_address and address is not None:
            rx.heard = now
        else:
            recipient.heard(key, port, address, now)
        if window.gap:
            recipient.missed(key, now)
        self._items(recipient, port, body, begin, end, now)

    # --- 4. items

    def _items(
        self, recipient: Recipient, port: Port, body: memoryview, at: int, end: int, now: float
    ) -> None:
        """Act on the items in ``body[at:end]``."""
        admissions, admit = self._policy.admissions, self._policy.admit
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
                known = deliver = None
                if start + ETHERNET_SIZE <= after:
                    known = admissions.get(ethernet(body, start)[0])
                if known is not None:
                    owner, entry, protocol, shortest, deliver = known
                    if (
                        owner is not recipient
                        or after - start < shortest
                        or (
                            body[start + protocol] in SUSPECTS
                            and looks_suspect(body, start, protocol)
                        )
                    ):
                        deliver = None
                    elif entry is not None:
                        entry.seen = now
                if deliver is None:
                    deliver = admit(recipient, body[start:after], now)
                    if deliver is None:
                        at = after
                        continue
                frames += 1
                try:
                    if deliver(body[at:after]) is None:
                        self._delivery.full()
                except OSError as error:
                    self._delivery.refused(error)
            elif word >> 28 == Item.PADDING:
                break
            elif controls < MAX_CONTROL:  # each may cost an answer: 16,000 fit in a record
                controls += 1
                recipient.control(word >> 28, bytes(body[at:after]), port, now)
            else:
                self._counters["items_dropped.too_many"] += 1
            at = after
        if frames:
            recipient.rx.frames += frames
            self._delivered += frames
