"""What the kernel drops before it is queued for us: most of a storm, or all while we are blocked.

There is one BPF program on the device at a time, and none while neither is the case.
"""

import logging
from collections import Counter
from heapq import nlargest
from typing import Generic

from tincan.device.device import Device
from tincan.switching.policy import PeerT, Policy
from tincan.switching.storm import MAX_KNOWN, NOTHING, Storm
from tincan.switching.table import Local

logger = logging.getLogger(__name__)


class Gate(Generic[PeerT]):
    """The filter of ``device``, renewed by ``observe``."""

    def __init__(
        self, device: Device, policy: Policy[PeerT], counters: Counter[str], now: float
    ) -> None:
        self._device = device
        self._policy = policy
        self._counters = counters
        self._storm = Storm(counters, now, self._known)
        self._program: bytes | None = None
        self._reason = "tap_queue_full"  # why the device drops a frame now
        self._dropped = device.dropped()

    def observe(self, now: float) -> None:
        """Renew the filter from what was counted since the last call. Call this every 0.25 s."""
        if self._policy.blocked:
            self._set(NOTHING, "loop_blocked")
            return
        before = self._storm.filter
        refused = self.count_dropped() if self._program is not None else 0
        neighbours = not self._policy.attached or any(
            link.up and not link.attended for link in self._policy.links
        )
        wanted = self._storm.observe(refused, neighbours, now)
        if before is None and wanted is not None:
            logger.warning("a storm from the bridge: most of it is dropped")
        elif wanted is None and before is not None:
            logger.info("the storm is over")
        if wanted is None:
            self._set(None, "tap_queue_full")
        elif wanted != before or self._reason != "storm":
            self._set(wanted.program(), "storm")

    def _known(self) -> frozenset[bytes]:
        """Return the addresses at peers that were heard last."""
        remote = (entry for entry in self._policy.table if not isinstance(entry.port, Local))
        latest = nlargest(MAX_KNOWN, remote, key=lambda entry: entry.seen)
        return frozenset(entry.mac for entry in latest)

    def count_dropped(self) -> int:
        """Count what the device has dropped since the last call; return how many frames."""
        try:
            total = self._device.dropped()
        except OSError:  # no descriptor is left: the count comes with the next look
            return 0
        news, self._dropped = total - self._dropped, total
        self._counters[f"frames_dropped.{self._reason}"] += news
        return news

    def _set(self, program: bytes | None, reason: str) -> None:
        """Have the device run ``program``; what it drops from now on is dropped for ``reason``."""
        if program == self._program:
            return
        self.count_dropped()
        self._program, self._reason = program, reason
        try:
            self._device.set_filter(program)
        except OSError as error:
            logger.warning("TAP %s takes no filter: %s", self._device.name, error.strerror)
