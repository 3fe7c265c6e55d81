"""The loop's side of the hot path: which descriptors are read, what runs when they are ready."""

import asyncio
from collections import Counter
from functools import partial

from tincan.egress import Egress
from tincan.ingress import Ingress, Source
from tincan.link import Link
from tincan.policy import Policy
from tincan.tap import Tap


class Pump:
    """Reads the TAP and every socket. Owns neither."""

    def __init__(self, tap: Tap, policy: Policy[Link], counters: Counter[str]) -> None:
        self.egress = Egress(tap, policy, counters)
        self.ingress = Ingress(tap, policy, counters)
        self._loop = asyncio.get_running_loop()
        self._tap = tap

    def start(self) -> None:
        """Begin to read the TAP."""
        self._loop.add_reader(self._tap.fd, self._tap_ready)

    def stop(self) -> None:
        """Leave the TAP alone."""
        self._loop.remove_reader(self._tap.fd)

    def _tap_ready(self) -> None:
        self.egress.wake(self._loop.time())

    def watch(self, source: Source) -> None:
        """Read a socket from now on."""
        self._loop.add_reader(source.sock.fileno(), partial(self._source_ready, source))

    def unwatch(self, source: Source) -> None:
        """Read it no more."""
        self._loop.remove_reader(source.sock.fileno())

    def _source_ready(self, source: Source) -> None:
        self.ingress.wake(source, self._loop.time())
