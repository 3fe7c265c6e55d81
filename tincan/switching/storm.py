"""Storms from our own bridge, kept out of the TAP's queue by the kernel. Pure.

The policer alone holds what we *send* to its rate, but every frame of a storm still costs a read,
and takes the place of a TCP segment in the TAP's queue (1,000 frames). So while a storm lasts, a
classic BPF program on the TAP (TUNATTACHFILTER, run in tun_net_xmit) lets only a random part of
its frames in: about twice what the policer lets through. Of group frames, ARP and ND, which the
controller captures before that place and which we would leave to it anyway, stay out altogether.
Of unicast frames, those to the addresses that are known at peers come in as always.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tincan.device.filter import (
    ACCEPT,
    AND,
    JA,
    JEQ,
    JGE,
    JGT,
    JSET,
    LD_B,
    LD_H,
    LD_W,
    RANDOM,
    REFUSE,
    Steps,
    assemble,
)
from tincan.switching.policy import FLOOD_RATE

STORM_RATE: Final = 4 * FLOOD_RATE  # frames/s offered, over all kinds, from which it is a storm
ADMITTED: Final = 2 * FLOOD_RATE  # frames/s that a filter should let through
CALM_FOR: Final = 2.0  # s below half of STORM_RATE after which the filter goes
SHARE: Final = 8  # unicast or group frames that are fewer than 1 in 8 are not what storms
MAX_KNOWN: Final = 256  # addresses at peers that a filter lets through: 5 of 4096 steps each

# What tincan counts of group frames, and of unicast frames that the bridge flooded to us.
GROUP: Final = (
    "frames_left_to_controller",
    "frames_dropped.broadcast_policed",
    "frames_dropped.multicast_policed",
    "frames_dropped.dhcp",
    "frames_dropped.gateway",
    "frames_dropped.loop_beacon",
    "frames_dropped.router",
)
UNICAST: Final = ("frames_dropped.unknown_unicast_policed", "frames_dropped.local_destination")
BOTH: Final = ("frames_flooded",)

NOTHING: Final = assemble(REFUSE)
"""The program that lets no frame in."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Let ``part`` (of 65536) of the storming frames in.

    ``group``: group frames storm; ``neighbours``: ARP and ND among them are wanted, too.
    ``known``: unicast frames to anybody but these (6 bytes each) storm; None: they do not.
    """

    part: int
    neighbours: bool
    group: bool = True
    known: frozenset[bytes] | None = None

    def program(self) -> bytes:
        """Return the instructions (struct sock_filter each)."""
        group = (self._hush() if not self.neighbours else []) + self._thin()
        unicast = self._unicast()
        steps: Steps = [
            (LD_B, 0, 0, 0),
            (JSET, 0, 1, 1),  # a group frame?
            (JA, 0, 0, len(unicast)),
            *unicast,
            *(group if self.group else ACCEPT),
        ]
        return assemble(steps)

    def _unicast(self) -> Steps:
        if self.known is None:
            return ACCEPT
        steps: Steps = []
        for mac in sorted(self.known):
            high, low = int.from_bytes(mac[:2], "big"), int.from_bytes(mac[2:], "big")
            steps += [(LD_W, 0, 0, 2), (JEQ, 0, 3, low), (LD_H, 0, 0, 0), (JEQ, 0, 1, high)]
            steps += ACCEPT
        return steps + self._thin()

    def _hush(self) -> Steps:
        """Refuse ARP, neighbour solicitations and advertisements."""
        return [
            (LD_H, 0, 0, 12),
            (JEQ, 0, 1, 0x0806),
            *REFUSE,
            (JEQ, 0, 6, 0x86DD),
            (LD_B, 0, 0, 20),
            (JEQ, 0, 4, 58),  # ICMPv6
            (LD_B, 0, 0, 54),
            (JGE, 0, 2, 135),  # neighbour solicitation
            (JGT, 1, 0, 136),  # and advertisement
            *REFUSE,
        ]

    def _thin(self) -> Steps:
        return [
            (LD_W, 0, 0, RANDOM),
            (AND, 0, 0, 0xFFFF),
            (JGT, 0, 1, max(self.part - 1, 0)),
            *REFUSE,
            *ACCEPT,
        ]


class Storm:
    """Watches the counters of one TAP and says which filter there should be, if any.

    ``known``: the addresses at peers that are in use, at most MAX_KNOWN.
    """

    def __init__(
        self, counters: Counter[str], now: float, known: Callable[[], frozenset[bytes]]
    ) -> None:
        self.filter: Filter | None = None
        self._counters = counters
        self._known = known
        self._seen = self._totals()
        self._at = now
        self._calm_since = now

    def _totals(self) -> tuple[int, int, int]:
        group, unicast, both = (
            sum(self._counters[name] for name in names) for names in (GROUP, UNICAST, BOTH)
        )
        return group, unicast, both

    def observe(self, refused: int, neighbours: bool, now: float) -> Filter | None:
        """Return the filter for the time to come.

        ``refused``: frames that the filter has kept out since the last call. ``neighbours``:
        somebody at the other end of a link needs ARP and ND as frames (no controller there).
        """
        elapsed = now - self._at
        if elapsed <= 0:
            return self.filter
        totals = self._totals()
        group, unicast, both = (
            after - before for after, before in zip(totals, self._seen, strict=True)
        )
        self._seen, self._at = totals, now
        rate = (group + unicast + both + refused) / elapsed
        if rate > STORM_RATE / 2:
            self._calm_since = now
        if rate > STORM_RATE:
            before = self.filter
            if group + unicast:  # else: all of it is refused, as before
                of_group, of_unicast = group * SHARE >= unicast, unicast * SHARE >= group
            else:
                of_group = before is None or before.group
                of_unicast = before is not None and before.known is not None
            part = max(1, int(65536 * ADMITTED / rate))
            known = self._known() if of_unicast else None
            self.filter = Filter(part, neighbours, of_group, known)
        elif self.filter is not None and now - self._calm_since > CALM_FOR:
            self.filter = None
        return self.filter
