"""One peer: its keys, its path, its health, and the record that is being packed for it.

    CONNECTING --probe crossed--> CONNECTED --6.5 s of silence--> LOST --any record--> CONNECTED

Paths come from negotiations. A new negotiation never disturbs the running path: when ICE has
found a pair, the elected side runs a handshake over it, and both sides move over when a probe
has crossed it; the old one lingers for what is still in flight.
"""

import asyncio
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from tincan.device.udp import Address
from tincan.errors import HandshakeFailed, LinkError
from tincan.ice.description import Description
from tincan.link.holding import NEVER, Holding
from tincan.link.listener import Events, LinkState
from tincan.link.liveness import Liveness
from tincan.link.outgoing import Sender
from tincan.link.pmtu import BASE, PathMtu
from tincan.path.attempt import ANSWER, VALIDATE, VALIDATE_AGAIN, Lingering, Negotiation
from tincan.path.direct import send_plain
from tincan.path.path import Path
from tincan.pump.ingress import Source
from tincan.record.keys import OpeningKey
from tincan.record.layout import ECHO, SIZE, Item, item
from tincan.switching.bucket import TokenBucket

LINGER: Final = 3.0  # s an old path stays open after the move to a new one
MAX_NEGOTIATIONS: Final = 3  # the running one and two attempts
MAX_ICC: Final = 32768  # bytes of one controller message
# What a peer may have our controller hear; if too much waited there, it would lose its socket.
ICC_RATE: Final = 1000.0  # messages/s
ICC_BURST: Final = 1000.0
CLOSE_RATE: Final = 1.0  # goodbyes/s; any record revives the link
CLOSE_BURST: Final = 4.0


class Link(Sender):
    """A link to ``peer`` (its node id). Everything runs on the event loop's thread."""

    def __init__(
        self,
        peer: str,
        *,
        elected: bool,
        events: Events,
        counters: Counter[str],
        attached: Callable[[], bool],
        blocked: Callable[[], bool] = lambda: False,
        refuse: Callable[[str], bool] = lambda _: False,
        mtu_probing: bool = True,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(counters, clock())
        self.peer = peer
        self.elected = elected
        self.state = LinkState.CONNECTING
        self.up = False
        self.attended = True  # the peer's controller is there, until told otherwise
        self.blocked = False  # the peer's TAP is
        self.active: Negotiation | None = None
        self.pending: dict[int, Negotiation] = {}
        self.rx_bytes = self.rx_frames = 0  # bytes of records, tags included
        self.indices: set[int] = set()  # of our receiver indices, those that are registered
        self._events = events
        self._attached = attached
        self._blocked = blocked
        self._refuse = refuse
        self._clock = clock
        self._mtu_probing = mtu_probing
        self.liveness = Liveness(elected, clock())
        self._told_rtt: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._armed = NEVER  # when the timer runs out
        self._closed = False
        self._holding = Holding(counters)
        self._icc_policer = TokenBucket(ICC_RATE, ICC_BURST)
        self._close_policer = TokenBucket(CLOSE_RATE, CLOSE_BURST)
        self._lingering = Lingering()

    # -- what status shows

    @property
    def path(self) -> Path | None:
        return self.active.path if self.active is not None else None

    @property
    def rtt(self) -> float | None:
        """Smoothed round trip, seconds: measured here, or told by the side that probes."""
        own = self.liveness.rtt
        return self._told_rtt if own is None else own

    def news_of_drops(self) -> int:
        """Datagrams that our sockets have lost since the last call for want of room."""
        negotiations = [*self.pending.values(), *([self.active] if self.active else [])]
        return sum(negotiation.news_of_drops() for negotiation in negotiations)

    def hold(self, item_: bytes, now: float) -> None:
        """Keep a frame (virtio header first) until the link is up again, within bounds."""
        if self._closed:  # a pin may outlive its link
            self._counters["frames_dropped.link_removed"] += 1
            return
        self._holding.add(item_, now)
        self._arm(self._holding.deadline)

    def _release_held(self, now: float) -> None:
        for held in self._holding.take(now):
            self.record.append(item(Item.FRAME, held))
            self.record.frames += 1
            self.flush(now)

    def send_icc(self, channel: int, payload: bytes, now: float) -> bool:
        """Send a controller's message; return whether it left."""
        if not self.up or len(payload) > MAX_ICC:
            return False
        return self._send(self.path, now, items=item(Item.ICC, SIZE.pack(channel) + payload))

    # -- records in

    def authenticated(
        self, key: OpeningKey, source: Source, address: Address | None, now: float
    ) -> None:
        """Note that a record opened: the first one under ``key`` from ``address``.

        The hot path skips this while ``key.last_address`` is that very address. It is set here
        and forgotten when the path or the state changes.
        """
        if not key.confirmed:
            self.session.opened(key, now)
        if source.negotiation is not self.active:
            return
        self.liveness.received(now)
        if self.state is LinkState.LOST:
            self._connected(now)
        path = self.path
        if (
            address is not None
            and path is not None
            and path.channel is None
            and path.socket is source.sock
            and address is not source.sock.address  # what came by a stream has no other
            and (address[0], address[1]) != path.address
        ):
            if self._refuse(address[0]):  # into the overlay: each datagram would become another
                self._counters["paths_roamed.refused"] += 1
                return
            # The peer's NAT gave it another address: follow the newest authenticated record.
            roamed = (address[0], address[1])
            source.negotiation.path = replace(path, address=roamed, peer_address=roamed)
            self._counters["paths_roamed"] += 1
        if key.confirmed and address is not None:
            key.last_address = address

    def _forget_addresses(self) -> None:
        for key in self.session.opening.values():
            key.last_address = None

    def missed(self, key: OpeningKey, now: float) -> None:
        """Note that a record came before others that have not come."""
        key.window.gap = False
        report = self.loss.gap(key.window, now)
        if report and self.up:
            self._send(self.path, now, items=report)

    def control(self, kind: int, payload: bytes, source: Source, now: float) -> None:
        """Act on an item that is not a frame."""
        try:
            if kind == Item.PROBE:
                self._probed(payload, source, now)
            elif kind == Item.PROBE_REPLY:
                self._probe_answered(payload, source, now)
            elif kind == Item.ICC:
                self._icc_received(SIZE.unpack_from(payload)[0], payload[SIZE.size :], now)
            elif kind == Item.MTU_PROBE:
                size = SIZE.pack(*SIZE.unpack_from(payload))
                self._reply(source, item(Item.MTU_REPLY, size), now)
            elif kind == Item.MTU_REPLY:
                if self._pmtu is not None and source.negotiation is self.active:
                    self._pmtu.acknowledged(SIZE.unpack(payload)[0], now)
                    self._resize()
                    self._arm(self._deadline())
            elif kind == Item.LOSS:
                self.loss.reported(payload, self.tx_records, self.tx_datagrams, now)
            elif kind == Item.CLOSE:
                self._closed_by_peer(now)
            else:
                self._counters["items_dropped.unknown_kind"] += 1
        except struct.error:
            self._counters["items_dropped.malformed"] += 1

    def _icc_received(self, channel: int, payload: bytes, now: float) -> None:
        if len(payload) > MAX_ICC:
            self._counters["icc_dropped.oversized"] += 1
        elif not self._icc_policer.allow(now):
            self._counters["icc_dropped.policed"] += 1
        else:
            self._events.icc(self, channel, payload)

    def _closed_by_peer(self, now: float) -> None:
        if self.state is LinkState.CONNECTED and self._close_policer.allow(now):
            self._lost("closed by the peer", now)
        else:
            self._counters["items_dropped.close"] += 1

    def _reply(self, source: Source, items: bytes, now: float) -> None:
        """Send items back by the way that a record came."""
        path = source.negotiation.path
        if path is None:
            return
        self._send(path, now, self.body or path.body(BASE), items)

    def _probed(self, payload: bytes, source: Source, now: float) -> None:
        number, flags, rtt = ECHO.unpack(payload)
        self._peer_flags(flags)
        self._told_rtt = rtt / 1e6 if rtt else None
        negotiation = source.negotiation
        if negotiation is not self.active and negotiation.path is not None and not self.elected:
            self._move(negotiation, now)
        self._reply(source, self._echo(Item.PROBE_REPLY, number), now)

    def _probe_answered(self, payload: bytes, source: Source, now: float) -> None:
        number, flags, _ = ECHO.unpack(payload)
        self._peer_flags(flags)
        if source.negotiation is not self.active and self.elected:
            self._move(source.negotiation, now)
        self.liveness.probe_answered(number, now)
        self._arm(self._deadline())

    def _echo(self, kind: Item, number: int) -> bytes:
        flags = (1 if self._attached() else 0) | (2 if self._blocked() else 0)
        measured = min(int((self.liveness.rtt or 0.0) * 1e6), 0xFFFFFFFF)
        return item(kind, ECHO.pack(number, flags, measured))

    def _peer_flags(self, flags: int) -> None:
        attended, blocked = bool(flags & 1), bool(flags & 2)
        if (attended, blocked) != (self.attended, self.blocked):
            self.attended, self.blocked = attended, blocked
            self._events.link_changed(self)

    def announce_flags(self, now: float) -> None:
        """Tell the peer at once that our controller came or went, or that we block our TAP."""
        if self.up:
            self._send_probes([0], now)

    # -- handshakes

    def handshake(self, datagram: bytes, source: Source, address: Address, now: float) -> None:
        """Take a handshake datagram that arrived by ``source``."""
        negotiation = source.negotiation
        if negotiation.path is None:
            negotiation.early = (datagram, source)  # ICE is about to tell us the way back
            return
        try:
            replies = self.session.receive(datagram, now)
        except HandshakeFailed as error:
            self._counters[f"handshakes_dropped.{error.reason}"] += 1
            return
        send_plain(negotiation.path, replies, self._counters)
        if self.elected:
            self._validate(negotiation, negotiation.path, now)
        self._arm(self._deadline())

    def _validate(self, negotiation: Negotiation, path: Path, now: float) -> None:
        """Send a probe by a path that may become ours: its answer moves us there.

        Repeated until then: the peer moves with the first that arrives, and would be alone on
        the new path if the answer to the only one were lost.
        """
        negotiation.probe_at = now + VALIDATE_AGAIN
        if self.session.sealing is not None:
            self._send(path, now, path.body(BASE), self._echo(Item.PROBE, 0))

    # -- negotiations

    def begin(self, negotiation: Negotiation) -> None:
        """Take up a new attempt; the oldest one gives way when there are too many."""
        while len(self.pending) + 1 >= MAX_NEGOTIATIONS:
            self._end(self.pending.pop(next(iter(self.pending))), 0.0)
        self.pending[negotiation.number] = negotiation
        negotiation.deadline = self._clock() + ANSWER
        self._arm(negotiation.deadline)

    async def connect(self, negotiation: Negotiation, remote: Description) -> None:
        """Run ICE to its end and validate what it found. Never raises for the network's sake."""
        agent = negotiation.agent
        assert agent is not None
        try:
            path = await agent.connect(remote)
        except LinkError as error:
            if self.pending.pop(negotiation.number, None) is not None:
                await negotiation.end()
                self._events.link_wanted(self, f"no path: {error}")
            return
        if self.pending.get(negotiation.number) is not negotiation:
            return
        now = self._clock()
        negotiation.path = path
        negotiation.deadline = now + VALIDATE
        if self.elected:
            send_plain(path, self.session.start(now), self._counters)
            self._validate(negotiation, path, now)
        elif negotiation.early is not None:
            datagram, source = negotiation.early
            negotiation.early = None
            self.handshake(datagram, source, path.address, now)
        self._arm(self._deadline())

    def path_changed(self, negotiation: Negotiation, path: Path) -> None:
        """ICE nominated another pair of the same negotiation."""
        negotiation.path = path
        if negotiation is self.active:
            self._new_path(self._clock())

    def _move(self, negotiation: Negotiation, now: float) -> None:
        """Frames go by this negotiation's path from now on."""
        if negotiation.path is None or self.pending.pop(negotiation.number, None) is None:
            return
        old, self.active = self.active, negotiation
        negotiation.deadline = NEVER
        if negotiation.agent is not None:
            negotiation.agent.stop_consent()
        for number in [n for n in self.pending if n < negotiation.number]:
            self._end(self.pending.pop(number), LINGER)
        if old is not None:
            self._end(old, LINGER)
        self._new_path(now)
        self._connected(now)

    def _new_path(self, now: float) -> None:
        path = self.path
        assert path is not None
        self._forget_addresses()
        self._begin(PathMtu(path.overhead, now) if self._mtu_probing else None, now)
        self.liveness = Liveness(self.elected, now)
        self._arm(self._deadline())

    def set_mtu_probing(self, on: bool) -> None:
        """Search for the path MTU, or be content with the base."""
        if on != self._mtu_probing:
            self._mtu_probing = on
            if self.active is not None:
                self._new_path(self._clock())

    def _connected(self, now: float) -> None:
        self.state = LinkState.CONNECTED
        self.up = True
        if self.liveness.dead:
            self.liveness = Liveness(self.elected, now)
        self._events.link_changed(self)
        self._events.link_connected(self)
        self._release_held(now)
        self._arm(self._deadline())

    def _lost(self, reason: str, now: float) -> None:
        if self.state is LinkState.CONNECTED:
            self.state = LinkState.LOST
            self.up = False
            self._forget_addresses()
            self._events.link_changed(self)
            self._events.link_disconnected(self, reason)
        self._events.link_wanted(self, reason)

    def _end(self, negotiation: Negotiation, linger: float) -> None:
        self._lingering.add(negotiation, self._clock() + linger)
        self._arm(self._clock() + linger)

    # -- time

    def tick(self) -> None:
        """Do what is due."""
        now = self._clock()
        self._timer, self._armed = None, NEVER
        handshakes = self.session.tick(now)
        if handshakes:
            path = self._handshake_path()
            if path is not None:
                send_plain(path, handshakes, self._counters)
        if self.active is not None:
            self._send_probes([probe.id for probe in self.liveness.tick(now)], now)
            if self.liveness.dead and self.state is LinkState.CONNECTED:
                self._lost("silent", now)
            self._probe_mtu(now)
        for number, negotiation in list(self.pending.items()):
            if now >= negotiation.deadline:
                self._end(self.pending.pop(number), 0.0)
                if negotiation.path is not None:
                    self._events.link_wanted(self, "a path was found, but nothing crosses it")
            elif now >= negotiation.probe_at and negotiation.path is not None:
                self._validate(negotiation, negotiation.path, now)
        self._lingering.end(now)
        self._holding.expire(now)
        self._arm(self._deadline())

    def _handshake_path(self) -> Path | None:
        for negotiation in reversed(self.pending.values()):
            if negotiation.path is not None:
                return negotiation.path
        return self.path

    def _send_probes(self, numbers: list[int], now: float) -> None:
        for number in numbers:
            self._send(self.path, now, items=self._echo(Item.PROBE, number))

    def _arm(self, at: float) -> None:
        """Make sure that tick runs at ``at``, or earlier."""
        if at >= self._armed or self._closed:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._armed = at
        self._timer = asyncio.get_running_loop().call_at(at, self.tick)

    def _deadline(self) -> float:
        """When something is due next."""
        deadlines = [
            self.session.deadline,
            self._holding.deadline,
            *(min(n.deadline, n.probe_at) for n in self.pending.values()),
        ]
        deadlines.append(self._lingering.deadline)
        if self.active is not None:
            deadlines.append(self.liveness.deadline)
            if self._pmtu is not None:
                deadlines.append(self._pmtu.deadline)
        return min(deadlines)

    def addresses_changed(self, local: list[str]) -> None:
        """The host has these addresses now: a path from one that is gone will not carry on."""
        path = self.path
        if path is not None and path.socket is not None and path.socket.address[0] not in local:
            self._events.link_wanted(self, f"our address {path.socket.address[0]} is gone")

    async def close(self) -> None:
        """Say goodbye and free everything."""
        if self.up:
            self._send(self.path, self._clock(), items=item(Item.CLOSE, b""))
        self.up = False
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        negotiations = [*self.pending.values(), *self._lingering.take()]
        if self.active is not None:
            negotiations.append(self.active)
        self.pending.clear()
        self.active = None
        for negotiation in negotiations:
            await negotiation.end()
