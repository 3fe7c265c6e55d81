"""From the sockets to the TAP: batches land in a scatter list, records are opened in place.

A *source* is one of our sockets and what it takes to read it well: the slot size seen last, and
the batch that a record's next batch must continue. On the common path a record's datagrams come
in order, in one batch or two, all of one size: nothing is copied. Everything else (other sizes,
gaps, mixtures with STUN, relays that interleave) is flattened and taken apart datagram by
datagram: correct, slower, bounded.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from tincan.crypto import AuthenticationFailed
from tincan.errors import MalformedDatagram
from tincan.forwarding import Entry
from tincan.frame import ETHERNET_SIZE
from tincan.landing import FIRST_SLOT, MIN_SLOT, Landing, Scatter, flatten
from tincan.packing import CHANNEL_SIZE
from tincan.policy import REMEMBERED_TYPES, SUSPECTS, Policy, looks_suspect
from tincan.reassembly import Reassembly
from tincan.segment import segment
from tincan.session import OpeningKey
from tincan.stun import is_stun
from tincan.tap import Tap
from tincan.udp import Address, UdpSocket
from tincan.wire import (
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

if TYPE_CHECKING:
    from tincan.link import Link
    from tincan.negotiation import Negotiation

RECEIVE_BUDGET: Final = 32  # batches per wake-up of one socket
MAX_FLOWS: Final = 8192
MAX_CONTROL: Final = 16  # items of a record that are no frames; our own records have one
SHORTEST: Final = {23: 38, 20: 58}  # bytes of a frame that looks_suspect may read

_FRAME: Final = int(Item.FRAME)  # comparing with the enum itself costs three times as much
_INDICES: Final = bytes(range(256))
_ZEROS: Final = bytes(256)


@dataclass(slots=True, eq=False)
class Source:
    """A socket that is read. ``have`` fragments of a record wait in ``held`` for their rest."""

    sock: UdpSocket
    link: "Link"
    negotiation: "Negotiation"
    lead: int = 0  # or CHANNEL_SIZE when a TURN server speaks here
    slot: int = FIRST_SLOT
    held: Landing | None = None
    have: int = 0
    header: bytes = b""  # of the record in ``held``, index 0


class Flow(NamedTuple):
    """A remembered admission."""

    source: Entry["Link"] | None
    protocol: int  # where the frame tells its L4 protocol
    shortest: int  # bytes of an item that can be judged without the policy


class Ingress:
    """Opens records and writes frames. ``keys`` maps our receiver indices to keys."""

    def __init__(self, tap: Tap, policy: Policy["Link"], counters: Counter[str]) -> None:
        self.keys: dict[int, OpeningKey] = {}
        self._write: Callable[[memoryview], int | None] = tap.write
        self._vnet_hdr = tap.offloads.vnet_hdr
        self._policy = policy
        self._counters = counters
        self._reassembly = Reassembly(counters)
        self._spare = [Landing()]
        self._flows: dict[Link, dict[bytes, Flow]] = {}
        self._generation = -1

    def wake(self, source: Source, now: float) -> None:
        """Take what waits at a socket, at most RECEIVE_BUDGET batches."""
        sock = source.sock
        if sock.closed:  # and its number reused, all in one round of the selector
            return
        if sock.on_channel is not None:
            source.lead = CHANNEL_SIZE
        for turn in range(RECEIVE_BUDGET):
            expected = sock.waiting()
            if not expected and turn:
                return
            landing = source.held or self._spare[-1]
            have = source.have
            scatter = landing.scatter(source.slot, source.lead)
            try:
                count = scatter.needed(expected, have)
                received = sock.receive(scatter.vector, count, 2 * have)
            except OSError:
                # Pending errors of earlier sends (ICMP) surface here; the socket goes on.
                self._counters["socket_errors"] += 1
                return
            if received is None:
                return
            size, segment, address = received
            if segment:
                self._batch(source, landing, scatter, size, segment, address, now)
            elif size:
                self._counters["datagrams_dropped.oversized"] += 1
            if sock.closed:
                return  # the negotiation that owned it ended meanwhile

    # -- batches

    def _batch(
        self,
        source: Source,
        landing: Landing,
        scatter: Scatter,
        size: int,
        segment: int,
        address: Address,
        now: float,
    ) -> None:
        lead, slot, first = source.lead, source.slot, source.have
        stride = lead + HEADER_SIZE
        full = slot + stride
        if size > stride and (segment == full or segment == size <= full):
            here = -(-size // full)
            at = first * stride
            head = bytes(landing.headers[at + lead : at + stride])
            kind, index, count, version, receiver, counter = HEADER.unpack(head)
            if (
                kind == RECORD
                and version == VERSION
                and index == first
                and first + here <= count
                and (here == 1 or _uniform(landing.headers, at, here, lead, first))
                and (first == 0 or head[2:] == source.header[2:])
                and (not lead or landing.headers[at] & 0xC0 == 0x40)
            ):
                length = size - here * stride
                if first + here == count:
                    source.held, source.have = None, 0
                    header = head if first == 0 else source.header
                    length += first * slot
                    self._open(
                        source, landing.body, length, header, receiver, counter, address, now
                    )
                    if first:
                        self._spare.append(landing)
                    return
                if (
                    length == here * slot
                    and (first or self._may_hold(receiver, counter))
                    and (count - 1) * slot < MAX_RECORD  # or a stranger could fill the landing
                ):
                    if first == 0:
                        source.held, source.header = landing, head
                        self._take(landing)
                    source.have = first + here
                    return
        self._scattered(source, landing, scatter, size, segment, address, now)

    def _may_hold(self, receiver: int, counter: int) -> bool:
        """Whether a record's first batch may wait here for the rest: it is for one of our keys,
        and nothing of the rest has overtaken it."""
        return receiver in self.keys and (receiver, counter) not in self._reassembly

    def _take(self, landing: Landing) -> None:
        """Keep ``landing`` for a source; have another one ready."""
        self._spare.remove(landing)
        if not self._spare:
            self._spare.append(Landing())

    def _scattered(
        self,
        source: Source,
        landing: Landing,
        scatter: Scatter,
        size: int,
        segment: int,
        address: Address,
        now: float,
    ) -> None:
        """Take a batch apart that is not the next part of one record."""
        self._counters["batches_flattened"] += 1
        flat = flatten(scatter.parts[2 * source.have :], size)
        if source.held is not None:
            self._release(source, landing, now)
        for start in range(0, size, segment):
            self._datagram(source, flat[start : start + segment], address, now)

    def _release(self, source: Source, landing: Landing, now: float) -> None:
        """Hand the fragments that a source holds to reassembly: their rest did not come next."""
        _, _, count, _, receiver, counter = HEADER.unpack(source.header)
        for i in range(source.have):
            body = bytes(landing.body[i * source.slot : (i + 1) * source.slot])
            self._fragment(source, source.header, (receiver, counter), i, count, body, None, now)
        source.held, source.have = None, 0
        self._spare.append(landing)

    def _datagram(self, source: Source, datagram: bytes, address: Address, now: float) -> None:
        """Demultiplex one datagram by its first byte (RFC 7983)."""
        first = datagram[0] if datagram else 0
        if first < 4:
            if is_stun(datagram) and source.sock.on_stun is not None:
                source.sock.on_stun(datagram, (address[0], address[1]))
            else:
                self._counters["datagrams_dropped.not_stun"] += 1
        elif first & 0xC0 == 0x40 and source.lead:
            self._channel_data(source, datagram, address, now)
        elif len(datagram) <= HEADER_SIZE:  # a record's last fragment may be shorter than its tag
            self._counters["datagrams_dropped.truncated"] += 1
        elif first == RECORD:
            self._record_fragment(source, datagram, address, now)
        elif first in (HANDSHAKE_INIT, HANDSHAKE_RESPONSE):
            source.link.handshake(datagram, source, address, now)
        else:
            self._counters["datagrams_dropped.unknown_type"] += 1

    def _channel_data(self, source: Source, datagram: bytes, address: Address, now: float) -> None:
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
        self, source: Source, datagram: bytes, address: Address, now: float
    ) -> None:
        _, index, count, version, receiver, counter = HEADER.unpack_from(datagram)
        if version != VERSION or not count:
            self._counters["datagrams_dropped.version"] += 1
            return
        body = datagram[HEADER_SIZE:]
        header = datagram[:1] + b"\0" + datagram[2:HEADER_SIZE]
        if count > 1 and index < count - 1:
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
        if not opening.window.check(key[1]):
            self._counters["datagrams_dropped.replayed"] += 1
            return
        whole = body if count == 1 else self._reassembly.add(key, index, count, body, now)
        if whole is not None:
            if count > 1:
                self._counters["records_reassembled"] += 1
            buffer = memoryview(bytearray(whole))
            self._open(source, buffer, len(whole), header, *key, address, now)

    # -- records

    def _open(
        self,
        source: Source,
        body: memoryview,
        length: int,
        header: bytes,
        receiver: int,
        counter: int,
        address: Address | None,
        now: float,
    ) -> None:
        """Decrypt the record in ``body[:length]`` where it is and act on its items."""
        key = self.keys.get(receiver)
        if key is None:
            self._counters["datagrams_dropped.unknown_receiver"] += 1
            return
        if length <= TAG_SIZE:
            self._counters["datagrams_dropped.truncated"] += 1
            return
        if not key.window.check(counter):
            self._counters["records_dropped.replayed"] += 1
            return
        end = length - TAG_SIZE
        try:
            key.aead.decrypt_into(ZERO_NONCE + header[8:], body[:length], header, body[:end])
        except AuthenticationFailed:
            self._counters["records_dropped.forged"] += 1
            return
        if not key.window.commit(counter):
            self._counters["records_dropped.replayed"] += 1
            return
        link: Link = key.owner  # type: ignore[assignment]
        link.authenticated(key, source, address, length, now)
        self._items(link, source, body, end, now)

    def _items(self, link: "Link", source: Source, body: memoryview, end: int, now: float) -> None:
        generation = self._policy.generation
        if self._generation != generation:
            self._flows.clear()
            self._generation = generation
        flows = self._flows.get(link)
        if flows is None:
            flows = self._flows[link] = {}
        at = controls = 0
        while at + ITEM_SIZE <= end:
            word = ITEM.unpack_from(body, at)[0]
            at += ITEM_SIZE
            kind, size = word >> 28, word & LENGTH_MASK
            after = at + size
            if after > end:
                self._counters["records_dropped.malformed"] += 1
                return
            if kind == _FRAME:
                start = at + VNET_SIZE
                flow = flows.get(bytes(body[start : start + ETHERNET_SIZE]))
                if (
                    flow is None
                    or size < flow.shortest
                    or (
                        body[start + flow.protocol] in SUSPECTS
                        and looks_suspect(body, start, flow.protocol)
                    )
                ):
                    if not self._admit(link, body[start:after], flows, now):
                        at = after
                        continue
                elif flow.source is not None:
                    flow.source.seen = now
                link.rx_frames += 1
                self.deliver(body[at:after])
            elif kind == Item.PADDING:
                return
            elif controls < MAX_CONTROL:  # each may cost an answer: 16,000 fit in a record
                controls += 1
                link.control(kind, bytes(body[at:after]), source, now)
            else:
                self._counters["items_dropped.too_many"] += 1
            at = after

    def _admit(self, link: "Link", frame: memoryview, flows: dict[bytes, Flow], now: float) -> bool:
        """Ask the policy about a frame; remember the answer if that is safe."""
        if len(frame) < ETHERNET_SIZE:
            self._counters["frames_dropped.malformed_frame_from_peer"] += 1
            return False
        admitted = self._policy.admit(link, frame, now)
        if admitted is None:
            return False
        if admitted.remember:
            if len(flows) >= MAX_FLOWS:
                flows.clear()
            key = bytes(frame[:ETHERNET_SIZE])
            protocol = REMEMBERED_TYPES[int.from_bytes(key[12:], "big")]
            flows[key] = Flow(admitted.source, protocol, VNET_SIZE + SHORTEST[protocol])
        return True

    def deliver(self, item: memoryview) -> None:
        """Write a frame (virtio header first) to the TAP."""
        if self._vnet_hdr:
            self._put(item)
        else:
            self._deliver_plain(item)

    def _put(self, item: memoryview) -> None:
        try:
            written = self._write(item)
        except OSError as error:
            # EIO: the TAP is down. EINVAL: the kernel refused the virtio header.
            reason = "tap_down" if error.errno == 5 else "tap_refused"
            self._counters[f"frames_dropped.{reason}"] += 1
            return
        if written is None:
            self._counters["frames_dropped.tap_full"] += 1

    def _deliver_plain(self, item: memoryview) -> None:
        """Segment and complete checksums ourselves, for a TAP that has no virtio header."""
        try:
            frames = segment(item)
        except MalformedDatagram as error:
            self._counters[f"frames_dropped.{error.reason}"] += 1
            return
        for frame in frames:
            self._put(memoryview(frame))


def _uniform(headers: bytearray, at: int, here: int, lead: int, first: int) -> bool:
    """Whether ``here`` headers from byte ``at`` on are one record's, in order from ``first``."""
    stride = lead + HEADER_SIZE
    run = headers[at : at + here * stride]
    if run[lead + 1 :: stride] != _INDICES[first : first + here]:
        return False
    run[lead + 1 :: stride] = _ZEROS[:here]
    if lead:
        run[2::stride] = _ZEROS[:here]  # ChannelData lengths: the last datagram may be shorter
        run[3::stride] = _ZEROS[:here]
    return run == run[:stride] * here
