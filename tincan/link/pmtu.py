"""The path MTU of a link, found by probing (RFC 8899, datagram packetization layer PMTUD).

No ICMP is needed and none is believed. All sizes are those of the IP packet.

Search. First the MTUs that are common below 1500, all at once, so that the usual answer is there
after one round trip; then the common jumbo ones; then what lies between the largest size that
arrived and the smallest that did not, several sizes at once, down to the byte. A size is lost when
three probes of it were, or when the kernel refused it (EMSGSIZE): that one at once. The size that
ends a search is asked for twice as often before it is believed to be too large.

Confirmation. While datagrams larger than the base are sent, the present size is probed every
0.5 s. If it and two repetitions are lost, the path has become a black hole for that size: back to
the base, and search again. With a TCP flow inside this is over before its third retransmission
timeout, 1.4 s after the path changed. Without such traffic there are no probes at all.
"""

import math
from dataclasses import dataclass
from typing import Final

BASE: Final = 1200  # RFC 8899 section 5.1.2; paths below it are not supported
CEILING: Final = 65535  # what IPv4, and our field for the size, can say
LADDERS: Final = ((1280, 1400, 1420, 1492, 1500), (9000, CEILING))
PARALLEL: Final = 6  # sizes tried at once between the bounds, and the one above the lower bound
TRIES: Final = 3  # RFC 8899 MAX_PROBES
CONFIRM_INTERVAL: Final = 0.5  # s
RAISE_INTERVAL: Final = 600.0  # s, RFC 8899 PMTU_RAISE_TIMER
FIRST_PATIENCE: Final = 0.5  # s that an answer may take while no round trip is known
MIN_PATIENCE: Final = 0.25  # s that it may take at least after that
MAX_PATIENCE: Final = 3.0  # s


@dataclass(slots=True)
class _Attempt:
    """A size that has been asked for, how often, and when patience with the last one ends."""

    size: int
    tries: int
    ends: float


class PathMtu:
    """The MTU of one path; make a new one, or ``restart``, when the path is another.

    ``overhead``: bytes of IP and UDP header, 28 or 48. ``mtu``: what may be used now.
    ``deadline``: when to tick next; ``sent``, ``acknowledged`` and ``too_big`` can make it earlier.
    ``settled``: the search is over. ``black_holes``: how often a confirmed size ceased to pass.
    """

    __slots__ = (
        "_asked",
        "_confirmation",
        "_confirmed",
        "_lost",
        "_open",
        "_overhead",
        "_raise_at",
        "_refused",
        "_rtt",
        "_traffic",
        "_variation",
        "_verified",
        "black_holes",
        "deadline",
        "mtu",
        "settled",
    )

    def __init__(self, overhead: int, now: float) -> None:
        self._overhead = overhead
        self._rtt: float | None = None
        self._variation = 0.0
        self._traffic = -math.inf  # when a large datagram was last sent
        self._asked: dict[int, float] = {}  # size: when first asked for; only these answers count
        self._open: dict[int, _Attempt] = {}
        self._lost: set[int] = set()
        self._refused: set[int] = set()  # of these, the ones lost without doubt
        self._verified = False  # that the size above ``mtu`` is lost
        self._raise_at = math.inf
        self._confirmation: _Attempt | None = None
        self._confirmed = now  # when the present size was last confirmed or asked for
        self.black_holes = 0
        self.settled = False
        self.deadline = now
        self.mtu = BASE

    @property
    def payload(self) -> int:
        """Bytes of UDP payload that fit."""
        return self.mtu - self._overhead

    def restart(self, now: float) -> None:
        """Know nothing: back to the base, and search."""
        self._search(now)
        self.mtu = BASE
        self._confirmation = None
        self._confirmed = now

    def sent(self, size: int, now: float) -> None:
        """A datagram of ``size`` (of the IP packet) was sent: cheap, for the hot path."""
        if size >= BASE:
            self._traffic = now
            if now >= self._raise_at:
                self.deadline = now
            elif self._confirmation is None and self.mtu > BASE:
                self.deadline = min(self.deadline, max(now, self._confirmation_due()))

    def acknowledged(self, size: int, now: float) -> None:
        """The peer says that a probe of ``size`` has arrived. What we did not ask is ignored."""
        asked = self._asked.pop(size, None)
        if asked is None:
            return
        self._measure(now - asked)
        if size >= self.mtu:
            self._confirmation = None
            self._confirmed = now
        if size > self.mtu:
            self.mtu = size
            self._verified = False
            self._lost.discard(size)
            self.settled = False
        for each in [each for each in self._open if each <= self.mtu]:
            del self._open[each]
        self._schedule(now)

    def too_big(self, size: int, now: float) -> None:
        """The kernel refused to send a datagram of ``size`` (EMSGSIZE)."""
        if size <= BASE:
            return
        if size <= self.mtu:
            self.restart(now)
        self._open.pop(size, None)
        self._lost.add(size)
        self._refused.add(size)
        self.settled = False
        self._schedule(now)

    def tick(self, now: float, rtt: float | None = None) -> list[int]:
        """Return the sizes of the probes to send now. ``rtt``: the link's, if it knows it."""
        patience = self._patience(rtt)
        sizes = self._confirm(now, patience)
        if self.settled and self._traffic >= self._raise_at and now >= self._raise_at:
            self._search(now)
        for attempt in list(self._open.values()):
            if now < attempt.ends:
                continue
            if attempt.tries == TRIES:
                del self._open[attempt.size]
                self._lost.add(attempt.size)
                continue
            attempt.tries += 1
            attempt.ends = now + patience
            sizes.append(attempt.size)
        if not self.settled and not self._open:
            for size in self._next_sizes():
                self._open[size] = _Attempt(size, 1, now + patience)
                self._asked[size] = now
                sizes.append(size)
            if not self._open:
                self.settled = True
                self._raise_at = now + RAISE_INTERVAL
        self._schedule(now)
        return sizes

    def _confirm(self, now: float, patience: float) -> list[int]:
        attempt = self._confirmation
        if attempt is not None:
            if now < attempt.ends:
                return []
            if attempt.tries > 1:
                self.black_holes += 1
                self.restart(now)
                return []
            attempt.tries += 1
            attempt.ends = now + patience
            return [attempt.size, attempt.size]
        if self._traffic <= self._confirmed or now < self._confirmation_due():
            return []
        self._confirmation = _Attempt(self.mtu, 1, now + patience)
        self._confirmed = now
        self._asked[self.mtu] = now
        return [self.mtu]

    def _confirmation_due(self) -> float:
        """When the present size is to be confirmed, if there is traffic by then."""
        return self._confirmed + CONFIRM_INTERVAL if self.mtu > BASE else math.inf

    def _search(self, now: float) -> None:
        # A confirmation may be under way: its late answer undoes a retreat.
        self._asked = {size: at for size, at in self._asked.items() if size == self.mtu}
        self._open = {}
        self._lost = set()
        self._refused = set()
        self._verified = False
        self._raise_at = math.inf
        self.settled = False
        self.deadline = now

    def _next_sizes(self) -> list[int]:
        low = self.mtu
        high = min((size for size in self._lost if size > low), default=CEILING + 1)
        for ladder in LADDERS:
            if rungs := [size for size in ladder if low < size < high]:
                return rungs
        if high > low + 1:
            step = (high - low) / (PARALLEL + 1)
            spread = {low + round(step * number) for number in range(1, PARALLEL + 1)}
            return sorted((spread | {low + 1}) - {low, high})
        if high <= CEILING and high not in self._refused and not self._verified:
            self._verified = True
            self._lost.discard(high)
            return [high]
        return []

    def _patience(self, rtt: float | None) -> float:
        if self._rtt is None and rtt is None:
            return FIRST_PATIENCE
        known = max(self._rtt or 0.0, rtt or 0.0)
        return min(max(MIN_PATIENCE, 1.5 * known + 4 * self._variation), MAX_PATIENCE)

    def _measure(self, sample: float) -> None:
        """RFC 6298 section 2. Of a repeated probe the first counts: rather too long."""
        if self._rtt is None:
            self._rtt, self._variation = sample, sample / 2
        else:
            self._variation += (abs(self._rtt - sample) - self._variation) / 4
            self._rtt += (sample - self._rtt) / 8

    def _schedule(self, now: float) -> None:
        if not self.settled and not self._open:
            self.deadline = now
            return
        ends = [attempt.ends for attempt in self._open.values()]
        if self._confirmation is not None:
            ends.append(self._confirmation.ends)
        elif self._traffic > self._confirmed or now < self._confirmation_due():
            ends.append(self._confirmation_due())
        if self._traffic >= self._raise_at:
            ends.append(self._raise_at)
        self.deadline = max(now, min(ends, default=math.inf))
