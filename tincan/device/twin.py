"""A network device in memory: the TAP's twin for tests and benches.

What stands in ``waiting`` is read, in order; what is written stands in ``written`` if that is
wanted, and is counted in any case. A bench that hands out the same frames again and again fills
``waiting`` anew before each wake-up.
"""

import ctypes

from tincan.device.device import Offloads
from tincan.device.vnet import guarded
from tincan.record.layout import VNET_SIZE


class Twin:
    """A TAP without a kernel. It has no descriptor, so no loop can wait for it."""

    fd = -1
    name = "twin"

    def __init__(self, offloads: Offloads | None = None, *, keep: bool = False) -> None:
        self.offloads = Offloads() if offloads is None else offloads
        self.waiting: list[bytes] = []
        """What is read, the first one first: virtio header and frame."""
        self.keep = keep
        self.written: list[bytes] = []
        """What was written, as it came, if ``keep`` is set."""
        self.frames = 0
        """How many frames were written."""
        self.broken = False
        """Whether a read fails for another reason than that nothing waits."""
        self.filters: list[bytes | None] = []
        """The BPF programs that were set, in order."""
        self.drops = 0
        """What ``dropped`` returns."""
        self._skip = 0 if self.offloads.vnet_hdr else VNET_SIZE
        self._taken = 0  # bytes written
        self.write = guarded(self._take)

    def read(self, _: int, address: int, size: int) -> int:
        """Copy the next frame to ``address``; return its size, or -1 if none waits."""
        if not self.waiting:
            return -1
        frame = self.waiting.pop(0)
        if self._skip:
            frame = frame[self._skip :]
        assert len(frame) <= size, "the frame does not fit"
        ctypes.memmove(address, frame, len(frame))
        return len(frame)

    def _take(self, item: memoryview) -> int:
        self.frames += 1
        size = len(item)
        self._taken += size
        if self.keep:
            self.written.append(bytes(item))
        return size

    @property
    def total(self) -> int:
        """The bytes of all frames that were written, without virtio headers."""
        return self._taken - self.frames * (VNET_SIZE - self._skip)

    def refused(self) -> bool:
        """Return whether the last ``read`` failed though it did not have to wait."""
        return self.broken

    def dropped(self) -> int:
        """Return what a test has said."""
        return self.drops

    def set_filter(self, program: bytes | None) -> None:
        """Remember the program."""
        self.filters.append(program)
