"""The last step of a frame's way in: the device's ``write``, and what it does not take."""

import errno
from collections import Counter

from tincan.device.device import Device, Write
from tincan.device.segment import segment
from tincan.errors import MalformedDatagram


class Delivery:
    """Writes frames to ``device``.

    ``write``: takes a frame, virtio header first, whether the device wants that header or not. Its
    caller counts what it does not take: ``full`` and ``refused``. ``put`` does all of that.
    """

    def __init__(self, device: Device, counters: Counter[str]) -> None:
        self.write: Write = device.write if device.offloads.vnet_hdr else self._segment_and_write
        self._device_write = device.write
        self._counters = counters

    def put(self, item: memoryview) -> None:
        """Write one frame, virtio header first, or count it."""
        self._put(self.write, item)

    def full(self) -> None:
        """Count a frame for which the device had no room."""
        self._counters["frames_dropped.tap_full"] += 1

    def refused(self, error: OSError) -> None:
        """Count a frame that the device did not take."""
        # EIO: the TAP is down. EINVAL: the virtio header was refused.
        reason = "tap_down" if error.errno == errno.EIO else "tap_refused"
        self._counters[f"frames_dropped.{reason}"] += 1

    def _put(self, write: Write, frame: memoryview) -> None:
        try:
            if write(frame) is None:
                self.full()
        except OSError as error:
            self.refused(error)

    def _segment_and_write(self, item: memoryview) -> int:
        """Segment and complete checksums ourselves, for a device without virtio header."""
        try:
            frames = segment(item)
        except MalformedDatagram as error:
            self._counters[f"frames_dropped.{error.reason}"] += 1
            return 0
        for frame in frames:
            self._put(self._device_write, memoryview(frame))
        return len(item)
