"""One peer: its keys, its path, its health, and the record that is being packed for it.

    CONNECTING --probe crossed--> CONNECTED --6.5 s of silence--> LOST --any record--> CONNECTED

Paths come from attempts. A new attempt never disturbs the running path: when ICE has
found a pair, the elected side runs a handshake over it, and both sides move over when a probe
has crossed it; the old one lingers for what is still in flight.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final

from tincan.device.device import Address
from tincan.errors import HandshakeFailed, LinkError
from tincan.link import items
from tincan.link.holding import NEVER, Holding
from tincan.link.listener import Events, LinkState
from tincan.link.liveness import Liveness
from tincan.link.outgoing import Outgoing
from tincan.link.pmtu import BASE
from tincan.path.attempt import ANSWER_S, VALIDATE_AGAIN_S, VALIDATE_S, Attempt, Retired
from tincan.path.description import Description
from tincan.path.path import Path
from tincan.record.batch import Batch
from tincan.record.keys import OpeningKey, Received, Recipient
from tincan.record.layout import Flags, Item, item
from tincan.record.pages import Pool
from tincan.record.port import Port
from tincan.session.session import Session
from tincan.switching.bucket import TokenBucket

LINGER_S: Final = 3.0
"""How long an old path stays open after the move to a new one."""
MAX_ATTEMPTS: Final = 3
"""Attempts of one link: the running one, and two that try to do better."""
ICC_RATE: Final = 1000.0
"""Messages a second that a peer may have our controller hear.

If too much waited there, the controller would lose its socket.
"""
ICC_BURST: Final = 1000.0
CLOSE_RATE: Final = 1.0
"""Goodbyes a second: any record revives the link."""
CLOSE_BURST: Final = 4.0


class Link:
    """A link to ``peer`` (its node id). Everything runs on the event loop's thread.

    For egress it is an Outlet (pump.outlet), for ingress a Recipient (record.keys), for the policy
    a Peer (switching.policy).
    """

    def __init__(
        self,
        peer: str,
        *,
        elected: bool,
        make_session: Callable[[Recipient], Session],
        events: Events,
        counters: Counter[str],
        pool: Pool,
        attached: Callable[[], bool],
        blocked: Callable[[], bool] = lambda: False,
        refuse: Callable[[str], bool] = lambda _: False,
        mtu_probing: bool = True,
        clock: Callable[[], float],
    ) -> None:
        now = clock()
        self.peer = peer
        self.elected = elected
        self.state = LinkState.CONNECTING
        self.up = False
        self.attended = True  # the peer's controller is there, until told otherwise
        self.blocked = False  # the peer's TAP is
        self.active: Attempt | None = None
        self.pending: dict[int, Attempt] = {}
        self.indices: set[int] = set()  # of our receiver indices, those that are registered
        self.rx = Received(heard=now)
        self.session = make_session(self)
        self.record = Batch(pool)
        self.outgoing = Outgoing(self.record, self.session, counters, self._arm, now)
        self.flush = self.outgoing.flush
        self.liveness = Liveness(elected, now)
        self._counters = counters
        self._events = events
        self._attached = attached
        self._blocked = blocked
        self._refuse = refuse
        self._clock = clock
        self._mtu_probing = mtu_probing
        self._told_rtt: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._armed = NEVER  # when the timer runs out
        self._closed = False
        self._holding = Holding(counters)
        self._icc_policer = TokenBucket(ICC_RATE, ICC_BURST)
        self._close_policer = TokenBucket(CLOSE_RATE, CLOSE_BURST)
        self._retired = Retired()

    # --- what status shows

    @property
    def path(self) -> Path | None:
        """The path in use, None before there is one."""
        return self.active.path if self.active is not None else None

    @property
    def rtt(self) -> float | None:
        """Smoothed round trip, seconds: measured here, or told by the side that probes."""
        own = self.liveness.rtt
        return self._told_rtt if own is None else own

    def news_of_drops(self) -> int:
        """Return how many datagrams our sockets lost since the last call for want of room."""
        attempts = [*self.pending.values(), *([self.active] if self.active else [])]
        return sum(attempt.news_of_drops() for attempt in attempts)

    # --- what is sent

    def hold(self, item_: bytes, now: float) -> None:
        """Keep a frame (virtio header first) until the link is up again, within bounds."""
        if self._closed:  # a pin may outlive its link
            self._counters["frames_dropped.link_removed"] += 1
            return
        self._holding.add(item_, now)
        self._arm(self._holding.deadline)

    def _release_held(self, now: float) -> None:
        """Send what was held."""
        for held in self._holding.take(now):
            self.record.append(item(Item.FRAME, held), frames=1)
            self.flush(now)

    def send_icc(self, channel: int, payload: bytes, now: float) -> bool:
        """Send a controller's message; return whether it left."""
        if not self.up or len(payload) > items.MAX_ICC:
            return False
        return self.outgoing.send(items.icc(channel, payload), now)

    def announce_flags(self, now: float) -> None:
        """Tell the peer at once that our controller came or went, or that we block our TAP."""
        if self.up:
            self._send_probes([0], now)

    def _send_probes(self, numbers: list[int], now: float) -> None:
        for number in numbers:
            self.outgoing.send(self._echo(Item.PROBE, number), now)

    def _echo(self, kind: Item, number: int) -> bytes:
        """Return a probe or its answer, with what we have to say of ourselves."""
        flags = Flags.ATTENDED if self._attached() else Flags(0)
        if self._blocked():
            flags |= Flags.BLOCKED
        return items.echo(kind, number, flags, self.liveness.rtt)

    # --- records in: a Recipient

    def heard(self, key: OpeningKey, port: Port, address: Address | None, now: float) -> None:
        """Take note of the first record from an address: see Recipient.

        ``key.last_address`` is set here, and forgotten when the path or the state changes.
        """
        if not key.confirmed:
            self.session.opened(key, now)
        if self.active is None or port.owner is not self.active:
            return
        self.liveness.received(now)
        if self.state is LinkState.LOST:
            self._connected(now)
        path = self.path
        moved = path.moved(port.sock, address) if path is not None and address else None
        if moved is not None:
            if self._refuse(moved.peer_address[0]):
                # It leads into the overlay: each datagram would become another.
                self._counters["paths_roamed.refused"] += 1
                return
            # The peer's NAT gave it another address: follow what has authenticated.
            self.active.path = moved
            self.outgoing.follow(moved.carrier)
            self._counters["paths_roamed"] += 1
        if key.confirmed and address is not None:
            key.last_address = address

    def _forget_last_address(self) -> None:
        """Have ``heard`` called for the next record under every key."""
        for key in self.session.opening.values():
            key.last_address = None

    def missed(self, key: OpeningKey, now: float) -> None:
        """Take note that a record came before others that have not come."""
        key.window.gap = False
        report = self.outgoing.loss.gap(key.window, now)
        if report and self.up:
            self.outgoing.send(report, now)

    def control(self, kind: int, payload: bytes, port: Port, now: float) -> None:
        """Act on an item that is no frame."""
        items.act(self, kind, payload, port, now, self._counters)

    # --- items: an Actor

    def probed(self, number: int, flags: Flags, rtt: float | None, port: Port, now: float) -> None:
        """Answer a probe; on the passive side, move to the path that it came by."""
        self._peer_flags(flags)
        self._told_rtt = rtt
        attempt = _attempt(port)
        if attempt is not self.active and attempt.path is not None and not self.elected:
            self._move(attempt, now)
        self._reply(attempt, self._echo(Item.PROBE_REPLY, number), now)

    def probe_answered(self, number: int, flags: Flags, port: Port, now: float) -> None:
        """Take an answer; on the elected side, move to the path that it came by."""
        self._peer_flags(flags)
        attempt = _attempt(port)
        if attempt is not self.active and self.elected:
            self._move(attempt, now)
        self.liveness.probe_answered(number, now)
        self._arm(self._deadline())

    def _peer_flags(self, flags: Flags) -> None:
        attended, blocked = Flags.ATTENDED in flags, Flags.BLOCKED in flags
        if (attended, blocked) != (self.attended, self.blocked):
            self.attended, self.blocked = attended, blocked
            self._events.link_changed(self.peer, blocked)

    def icc_received(self, channel: int, payload: bytes, now: float) -> None:
        """Hand a message to our controller, within bounds."""
        if len(payload) > items.MAX_ICC:
            self._counters["icc_dropped.oversized"] += 1
        elif not self._icc_policer.allow(now):
            self._counters["icc_dropped.policed"] += 1
        else:
            self._events.icc(self.peer, channel, payload)

    def mtu_probed(self, size: int, port: Port, now: float) -> None:
        """Say that a packet of ``size`` bytes has arrived."""
        self._reply(_attempt(port), items.mtu_reply(size), now)

    def mtu_answered(self, size: int, port: Port, now: float) -> None:
        """Note that a packet of ``size`` bytes has arrived at the peer."""
        if port.owner is self.active:
            self.outgoing.mtu_answered(size, now)
            self._arm(self._deadline())

    def loss_reported(self, report: bytes, now: float) -> None:
        """Take the peer's report; raise struct.error if it is none."""
        sent = self.outgoing
        sent.loss.reported(report, sent.tx_records, sent.tx_datagrams, now)

    def closed_by_peer(self, now: float) -> None:
        """Note that the peer leaves."""
        if self.state is LinkState.CONNECTED and self._close_policer.allow(now):
            self._lost("closed by the peer", now)
        else:
            self._counters["items_dropped.close"] += 1

    def _reply(self, attempt: Attempt, answer: bytes, now: float) -> None:
        """Send items back by the way that a record came."""
        path = attempt.path
        if path is not None:
            body = self.outgoing.body or path.carrier.body(BASE)
            self.outgoing.send(answer, now, by=path.carrier, body=body)

    # --- handshakes

    def handshake(self, datagram: bytes, port: Port, address: Address, now: float) -> None:
        """Take a handshake datagram that arrived by ``port``."""
        attempt = _attempt(port)
        if attempt.path is None:
            attempt.early = (datagram, port)  # ICE is about to tell us the way back
            return
        try:
            replies = self.session.receive(datagram, now)
        except HandshakeFailed as error:
            self._counters[f"handshakes_dropped.{error.reason}"] += 1
            return
        attempt.path.carrier.send_plain(replies)
        if self.elected:
            self._validate(attempt, attempt.path, now)
        self._arm(self._deadline())

    def _validate(self, attempt: Attempt, path: Path, now: float) -> None:
        """Send a probe by a path that may become ours: its answer moves us there.

        Repeated until then: the peer moves with the first that arrives, and would be alone on
        the new path if the answer to the only one were lost.
        """
        attempt.probe_at = now + VALIDATE_AGAIN_S
        if self.session.sealing is not None:
            probe = self._echo(Item.PROBE, 0)
            self.outgoing.send(probe, now, by=path.carrier, body=path.carrier.body(BASE))

    # --- attempts

    def begin(self, attempt: Attempt) -> None:
        """Take up a new attempt; the oldest one gives way when there are too many."""
        while len(self.pending) + 1 >= MAX_ATTEMPTS:
            self._end(self.pending.pop(next(iter(self.pending))), 0.0)
        self.pending[attempt.number] = attempt
        attempt.deadline = self._clock() + ANSWER_S
        self._arm(attempt.deadline)

    async def connect(self, attempt: Attempt, remote: Description) -> None:
        """Run ICE to its end and validate what it found. Never raises for the network's sake."""
        agent = attempt.agent
        assert agent is not None
        try:
            path = await agent.connect(remote)
        except LinkError as error:
            if self.pending.pop(attempt.number, None) is not None:
                await attempt.end()
                self._events.link_wanted(self.peer, f"no path: {error}")
            return
        if self.pending.get(attempt.number) is not attempt:
            return
        now = self._clock()
        attempt.path = path
        attempt.deadline = now + VALIDATE_S
        if self.elected:
            path.carrier.send_plain(self.session.start(now))
            self._validate(attempt, path, now)
        elif attempt.early is not None:
            datagram, port = attempt.early
            attempt.early = None
            self.handshake(datagram, port, path.carrier.address, now)
        self._arm(self._deadline())

    def path_changed(self, attempt: Attempt, path: Path) -> None:
        """Take over another pair that ICE nominated in the same attempt."""
        attempt.path = path
        if attempt is self.active:
            self._new_path(self._clock())

    def _move(self, attempt: Attempt, now: float) -> None:
        """Send frames by this attempt's path from now on."""
        if attempt.path is None or self.pending.pop(attempt.number, None) is None:
            return
        old, self.active = self.active, attempt
        attempt.deadline = NEVER
        if attempt.agent is not None:
            attempt.agent.stop_consent()
        for number in [n for n in self.pending if n < attempt.number]:
            self._end(self.pending.pop(number), LINGER_S)
        if old is not None:
            self._end(old, LINGER_S)
        self._new_path(now)
        self._connected(now)

    def _new_path(self, now: float) -> None:
        """Begin anew with a path of which nothing is known."""
        path = self.path
        assert path is not None
        self._forget_last_address()
        self.outgoing.begin(path.carrier, self._mtu_probing, now)
        self.liveness = Liveness(self.elected, now)
        self._arm(self._deadline())

    def set_mtu_probing(self, on: bool) -> None:
        """Search for the path MTU, or be content with the base."""
        if on != self._mtu_probing:
            self._mtu_probing = on
            if self.active is not None:
                self._new_path(self._clock())

    def _connected(self, now: float) -> None:
        path = self.path
        assert path is not None
        self.state = LinkState.CONNECTED
        self.up = True
        if self.liveness.dead:
            self.liveness = Liveness(self.elected, now)
        self._events.link_changed(self.peer, self.blocked)
        self._events.link_connected(self.peer, path)
        self._release_held(now)
        self._arm(self._deadline())

    def _lost(self, reason: str, now: float) -> None:
        if self.state is LinkState.CONNECTED:
            self.state = LinkState.LOST
            self.up = False
            self._forget_last_address()
            self._events.link_changed(self.peer, self.blocked)
            self._events.link_disconnected(self.peer, reason)
        self._events.link_wanted(self.peer, reason)

    def _end(self, attempt: Attempt, linger: float) -> None:
        """End an attempt after ``linger`` seconds."""
        self._retired.add(attempt, self._clock() + linger)
        self._arm(self._clock() + linger)

    def addresses_changed(self, local: list[str]) -> None:
        """Ask for a new path if ours goes out from an address that is not among ``local``."""
        source = self.path.carrier.source if self.path is not None else None
        if source is not None and source[0] not in local:
            self._events.link_wanted(self.peer, f"our address {source[0]} is gone")

    # --- time

    def tick(self) -> None:
        """Do what is due. The link's own timer calls this at ``_deadline``, or earlier."""
        now = self._clock()
        self._timer, self._armed = None, NEVER
        handshakes = self.session.tick(now)
        if handshakes:
            path = self._handshake_path()
            if path is not None:
                path.carrier.send_plain(handshakes)
        if self.active is not None:
            self.liveness.heard = max(self.liveness.heard, self.rx.heard)
            self._send_probes([probe.id for probe in self.liveness.tick(now)], now)
            if self.liveness.dead and self.state is LinkState.CONNECTED:
                self._lost("silent", now)
            self.outgoing.probe_mtu(now)
        for number, attempt in list(self.pending.items()):
            if now >= attempt.deadline:
                self._end(self.pending.pop(number), 0.0)
                if attempt.path is not None:
                    reason = "a path was found, but nothing crosses it"
                    self._events.link_wanted(self.peer, reason)
            elif now >= attempt.probe_at and attempt.path is not None:
                self._validate(attempt, attempt.path, now)
        self._retired.end(now)
        self._holding.expire(now)
        self._arm(self._deadline())

    def _handshake_path(self) -> Path | None:
        """Return the newest path: a handshake shows whether it carries anything."""
        for attempt in reversed(self.pending.values()):
            if attempt.path is not None:
                return attempt.path
        return self.path

    def _arm(self, at: float) -> None:
        """Make sure that tick runs at ``at``, or earlier."""
        if at >= self._armed or self._closed:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._armed = at
        self._timer = asyncio.get_running_loop().call_at(at, self.tick)

    def _deadline(self) -> float:
        """Return when something is due next."""
        deadlines = [
            self.session.deadline,
            self._holding.deadline,
            self._retired.deadline,
            *(min(each.deadline, each.probe_at) for each in self.pending.values()),
        ]
        if self.active is not None:
            deadlines += self.liveness.deadline, self.outgoing.deadline
        return min(deadlines)

    async def close(self) -> None:
        """Say goodbye and free everything."""
        if self.up:
            self.outgoing.send(items.close(), self._clock())
        self.up = False
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        attempts = [*self.pending.values(), *self._retired.take()]
        if self.active is not None:
            attempts.append(self.active)
        self.pending.clear()
        self.active = None
        self.outgoing.end()
        for attempt in attempts:
            await attempt.end()


def _attempt(port: Port) -> Attempt:
    """Return the attempt that opened ``port``."""
    assert isinstance(port.owner, Attempt)
    return port.owner
