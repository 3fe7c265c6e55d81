"""Whether a link is alive.

The elected side asks (``Probe``), the other side answers; whatever else authenticates is a sign of
life too. The elected side has two moods::

    CALM       a probe every 3 s, with traffic or without: the passive side lives on them
    SUSPICION  a probe every 0.5 s: from the start until the first answer, after 3.5 s of silence,
               or when a probe stays unanswered for longer than the path should need

Dead after 6.5 s of silence (as long as Tailscale trusts a silent UDP path). The passive side only
watches the silence.

An idle link carries one probe and one answer in 3 s, of 73 IP bytes each on IPv4 (28 of IP and
UDP, 16 header, 13 item, 16 tag) and 93 on IPv6: 62 B/s at most in both directions together. Rekeys
(tincan.session) add 2.6 B/s.
"""

import math
from enum import Enum, auto
from typing import Final, NamedTuple

PROBE_INTERVAL: Final = 3.0  # s
SUSPICIOUS_INTERVAL: Final = 0.5  # s
SUSPICION_AFTER: Final = 3.5  # s of silence
MIN_PATIENCE: Final = 0.5  # s that an answer may take at least before it is missed
DEAD_AFTER: Final = 6.5  # s of silence
STALL: Final = 1.0  # s; a tick later than this says that we slept, not that the peer was silent
MAX_OUTSTANDING: Final = 16  # probes whose answers are still known; 13 fit in DEAD_AFTER
MAX_ID: Final = 0xFFFFFFFF


class Mood(Enum):
    CALM = auto()
    SUSPICION = auto()


class Probe(NamedTuple):
    """Send a PROBE item with this number: 1 to 2**32 - 1. 0 is free for probes of others."""

    id: int


class Liveness:
    """The liveness of one link. ``elected``: we are the side that probes. Times in seconds.

    ``heard``: when something last authenticated; the hot path may set it instead of calling
    ``received``. ``dead``: for good. ``rtt``: smoothed round trip (RFC 6298 section 2), None before
    the first answer and on the passive side. ``deadline``: when to tick next.
    """

    __slots__ = (
        "_elected",
        "_last_probe",
        "_next_id",
        "_outstanding",
        "dead",
        "deadline",
        "heard",
        "mood",
        "rtt",
        "rtt_variation",
    )

    def __init__(self, elected: bool, now: float) -> None:
        self._elected = elected
        self.heard = now
        self.mood = Mood.SUSPICION if elected else Mood.CALM
        self.dead = False
        self.rtt: float | None = None
        self.rtt_variation = 0.0
        self._next_id = 1
        self._last_probe = -math.inf
        self._outstanding: dict[int, float] = {}  # id: when sent, oldest first
        self.deadline = now

    def received(self, now: float) -> None:
        """Something from the peer has authenticated."""
        self.heard = now

    def suspect(self, now: float) -> None:
        """There is a reason to doubt the path (an address or a route of ours has changed)."""
        if self._elected and not self.dead:
            self.mood = Mood.SUSPICION
            self.deadline = now

    def probe_answered(self, id: int, now: float) -> None:
        """The answer to probe ``id`` has come. Numbers that we do not know change nothing."""
        sent = self._outstanding.get(id)
        if sent is None or self.dead:
            return
        self.heard = now
        for each in list(self._outstanding):  # earlier ones are lost or late: no reason to worry
            del self._outstanding[each]
            if each == id:
                break
        self._measure(now - sent)
        self.mood = Mood.CALM
        self._schedule()

    def tick(self, now: float) -> list[Probe]:
        """Return the probes to send now."""
        if self.dead:
            return []
        if now > self.deadline + STALL:
            self.heard = max(self.heard, now - SUSPICION_AFTER)
        if now >= self.heard + DEAD_AFTER:
            self.dead = True
            self.deadline = math.inf
            return []
        probes = []
        if self._elected:
            if now >= min(self.heard + SUSPICION_AFTER, self._patience_ends()):
                self.mood = Mood.SUSPICION
            if now >= self._next_probe():
                probes.append(self._probe(now))
        self._schedule()
        return probes

    def _probe(self, now: float) -> Probe:
        probe = Probe(self._next_id)
        self._next_id = self._next_id % MAX_ID + 1
        self._last_probe = now
        if len(self._outstanding) == MAX_OUTSTANDING:
            del self._outstanding[next(iter(self._outstanding))]
        self._outstanding[probe.id] = now
        return probe

    def _next_probe(self) -> float:
        calm = self.mood is Mood.CALM
        return self._last_probe + (PROBE_INTERVAL if calm else SUSPICIOUS_INTERVAL)

    def _patience_ends(self) -> float:
        """When the oldest unanswered probe is overdue: RFC 6298's timeout, half a round trip on
        top, since its variation settles at zero."""
        oldest = next(iter(self._outstanding.values()), math.inf)
        return oldest + max(MIN_PATIENCE, 1.5 * (self.rtt or 0.0) + 4 * self.rtt_variation)

    def _measure(self, sample: float) -> None:
        if self.rtt is None:
            self.rtt, self.rtt_variation = sample, sample / 2
        else:
            self.rtt_variation += (abs(self.rtt - sample) - self.rtt_variation) / 4
            self.rtt += (sample - self.rtt) / 8

    def _schedule(self) -> None:
        self.deadline = self.heard + DEAD_AFTER
        if self._elected:
            self.deadline = min(self.deadline, self._next_probe())
            if self.mood is Mood.CALM:
                doubt = min(self.heard + SUSPICION_AFTER, self._patience_ends())
                self.deadline = min(self.deadline, doubt)
