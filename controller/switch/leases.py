"""Containers that are about to get an address from a DHCP server, and will not say so.

busybox's client and its like take a lease without a word: nobody here knows of the address, and
two servers that gave it away at the same moment are not found out before both containers speak.
But a request for a lease is broadcast (RFC 2131 section 4.3.2) and names the address. So its
sender is asked, after a while, whether it has the address now; its answer is a sighting.
"""

from collections.abc import Callable
from typing import Final

from controller.node.rates import Bucket
from controller.packets.addresses import Key, Mac
from controller.packets.packets import LeaseRequest
from controller.switch.claims import Claims
from controller.switch.prober import Patience, Prober
from controller.switch.segment import Segment

ASK_AFTER: Final = (0.5, 1.5, 3.5, 7.0, 12.0)
"""When to ask, after the request. A server may take its time to confirm; and nobody is asked while
the address is being probed for, which takes up to CLAIM_S (10 s)."""
ONCE: Final = Patience((0.0,), 0.4)
RATE: Final = 20.0
BURST: Final = 200.0
"""Requests a second that are followed up."""
MAX_FOLLOWED: Final = 512


class Leases:
    def __init__(self, segment: Segment, prober: Prober, claims: Claims) -> None:
        self._segment = segment
        self._prober = prober
        self._claims = claims
        self._bucket = Bucket(RATE, BURST)
        self._followed: set[tuple[Key, Mac]] = set()

    def requested(self, packet: LeaseRequest, now: float) -> None:
        """A container here asks a server for an address."""
        key = (packet.vlan, packet.ip)
        wanted = (key, packet.mac)
        if wanted in self._followed or len(self._followed) >= MAX_FOLLOWED:
            return
        if not self._bucket.take(now):
            return
        self._segment.counters["leases_followed"] += 1
        self._followed.add(wanted)
        for number, after in enumerate(ASK_AFTER):
            last = number == len(ASK_AFTER) - 1
            self._segment.timers.call_at(now + after, self._asker(key, packet.mac, last))

    def _asker(self, key: Key, mac: Mac, last: bool) -> Callable[[float], None]:
        def ask(now: float) -> None:
            if last:
                self._followed.discard((key, mac))
            held = self._segment.table.live(key)
            if held is not None and (held.mac, held.node) == (mac, self._segment.id):
                return
            if self._claims.get(key, now) is None:
                self._prober.check(key, mac, now, ONCE, lambda alive, t: None)

        return ask
