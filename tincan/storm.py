"""Storms of group frames from our own bridge, kept out of the TAP's queue by the kernel. Pure.

The policer alone holds what we *send* to its rate, but every frame of a storm still costs a read,
and takes the place of a TCP segment in the TAP's queue (1,000 frames). So while a storm lasts, a
classic BPF program on the TAP (TUNATTACHFILTER, run in tun_net_xmit) lets only a random part of
the group frames in: about twice what the policer lets through. ARP and ND, which the controller
captures before that place and which we would leave to it anyway, stay out altogether.
"""

import struct
from collections import Counter
from dataclasses import dataclass
from typing import Final

from tincan.policy import FLOOD_RATE

STORM_RATE: Final = 4 * FLOOD_RATE  # frames/s offered, over all kinds, from which it is a storm
ADMITTED: Final = 2 * FLOOD_RATE  # frames/s that a filter should let through
CALM_FOR: Final = 2.0  # s below half of STORM_RATE after which the filter goes
WATCHED: Final = (
    "frames_flooded",
    "frames_left_to_controller",
    "frames_dropped.broadcast_policed",
    "frames_dropped.multicast_policed",
)

# linux/filter.h
_LD_H, _LD_B, _LD_W = 0x28, 0x30, 0x20
_AND, _JEQ, _JGT, _JGE, _JSET, _RET = 0x54, 0x15, 0x25, 0x35, 0x45, 0x06
_RANDOM: Final = 0xFFFFF000 + 56  # SKF_AD_OFF + SKF_AD_RANDOM
_ALL: Final = 0xFFFFFFFF
_INSTRUCTION = struct.Struct("=HBBI")

NOTHING: Final = _INSTRUCTION.pack(_RET, 0, 0, 0)
"""The program that lets no frame in."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Let ``part`` (of 65536) of the group frames in; ``neighbours``: ARP and ND of them, too."""

    part: int
    neighbours: bool

    def program(self) -> bytes:
        """Return the instructions (struct sock_filter each)."""
        steps: list[tuple[int, int, int, int]] = [
            (_LD_B, 0, 0, 0),
            (_JSET, 1, 0, 1),  # a group frame?
            (_RET, 0, 0, _ALL),
        ]
        if not self.neighbours:
            steps += [
                (_LD_H, 0, 0, 12),
                (_JEQ, 0, 1, 0x0806),
                (_RET, 0, 0, 0),
                (_JEQ, 0, 6, 0x86DD),
                (_LD_B, 0, 0, 20),
                (_JEQ, 0, 4, 58),  # ICMPv6
                (_LD_B, 0, 0, 54),
                (_JGE, 0, 2, 135),  # neighbour solicitation
                (_JGT, 1, 0, 136),  # and advertisement
                (_RET, 0, 0, 0),
            ]
        steps += [
            (_LD_W, 0, 0, _RANDOM),
            (_AND, 0, 0, 0xFFFF),
            (_JGT, 0, 1, max(self.part - 1, 0)),
            (_RET, 0, 0, 0),
            (_RET, 0, 0, _ALL),
        ]
        return b"".join(_INSTRUCTION.pack(*step) for step in steps)


class Storm:
    """Watches the counters of one TAP and says which filter there should be, if any."""

    def __init__(self, counters: Counter[str], now: float) -> None:
        self.filter: Filter | None = None
        self._counters = counters
        self._seen = self._total()
        self._at = now
        self._calm_since = now

    def _total(self) -> int:
        return sum(self._counters[name] for name in WATCHED)

    def observe(self, refused: int, neighbours: bool, now: float) -> Filter | None:
        """Return the filter for the time to come.

        ``refused``: frames that the filter has kept out since the last call. ``neighbours``:
        somebody at the other end of a link needs ARP and ND as frames (no controller there).
        """
        elapsed = now - self._at
        if elapsed <= 0:
            return self.filter
        total = self._total()
        rate = (total - self._seen + refused) / elapsed
        self._seen, self._at = total, now
        if rate > STORM_RATE / 2:
            self._calm_since = now
        if rate > STORM_RATE:
            self.filter = Filter(max(1, int(65536 * ADMITTED / rate)), neighbours)
        elif self.filter is not None and now - self._calm_since > CALM_FOR:
            self.filter = None
        return self.filter
