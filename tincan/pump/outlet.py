"""What egress needs of whatever takes frames: a link today."""

from typing import Protocol, TypeVar

from tincan.record.batch import Batch
from tincan.switching.policy import Peer


class Outlet(Peer, Protocol):
    """Takes frames for one peer. While it is ``up``, egress packs them into ``record``."""

    @property
    def record(self) -> Batch:
        """Where frames are packed; ``flush`` must follow before the wake-up ends."""

    def flush(self, now: float) -> None:
        """Send what was packed, or drop and count it; the record is empty afterwards."""

    def hold(self, item: bytes, now: float) -> None:
        """Keep a frame (virtio header first) until ``up``, within bounds."""


OutletT = TypeVar("OutletT", bound=Outlet)
