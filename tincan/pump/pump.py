"""The loop's side of the hot path: which descriptors are read, what runs when they are ready."""

from collections import Counter
from functools import partial

from tincan.device.tap import Tap
from tincan.link.link import Link
from tincan.pump.egress import Egress
from tincan.pump.ingress import Ingress, Source
from tincan.pump.loop import HotSelector
from tincan.pump.rehearsal import Rehearsal
from tincan.switching.policy import Policy


class Pump:
    """Reads the TAP and every socket. Owns neither."""

    def __init__(
        self, tap: Tap, policy: Policy[Link], counters: Counter[str], selector: HotSelector
    ) -> None:
        self.egress = Egress(tap, policy, counters)
        self.ingress = Ingress(tap, policy, counters)
        self._rehearsal = Rehearsal(self.ingress)
        self._selector = selector
        self._latest: Source | None = None  # that has delivered a frame
        self._tap = tap

    def start(self) -> None:
        """Begin to read the TAP."""
        self._selector.rehearse = self._rehearse
        self._selector.watch(self._tap.fd, self.egress.wake)

    def stop(self) -> None:
        """Leave the TAP alone."""
        self._selector.unwatch(self._tap.fd)

    def watch(self, source: Source) -> None:
        """Read a socket from now on."""
        self._selector.watch(source.sock.fileno(), partial(self._source_ready, source))

    def unwatch(self, source: Source) -> None:
        """Read it no more."""
        self._selector.unwatch(source.sock.fileno())
        if source is self._latest:
            self._latest = None

    def _source_ready(self, source: Source, now: float) -> bool:
        """Deliver, then look at the TAP at once: a container's stack answers within our write."""
        delivered = self.ingress.wake(source, now)
        if delivered:
            self._latest = source
        return self.egress.wake(now) or delivered

    def _rehearse(self, now: float) -> None:
        """Go the way of a small frame in both directions, as far as nobody sees it."""
        self.egress.wake(now)
        self._rehearsal.go(now)
        if self._latest is not None:
            self.ingress.wake(self._latest, now)
