"""Frames written to a device, and what it does not take."""

import errno
from collections import Counter

import pytest

from tincan.device.device import Offloads
from tincan.device.twin import Twin
from tincan.device.vnet import NO_VNET
from tincan.pump.delivery import Delivery

FRAME = bytes(60)


def test_a_device_without_header_gets_plain_frames() -> None:
    device = Twin(Offloads(False, False, False), keep=True)
    Delivery(device, Counter()).put(memoryview(NO_VNET + FRAME))
    assert device.written == [FRAME]


@pytest.mark.parametrize(
    ("error", "reason"), [(None, "full"), (errno.EIO, "down"), (errno.EINVAL, "refused")]
)
def test_what_is_not_taken_is_counted(error: int | None, reason: str) -> None:
    def write(_: memoryview) -> None:
        if error is not None:
            raise OSError(error, "no")

    device, counters = Twin(), Counter[str]()
    device.write = write
    Delivery(device, counters).put(memoryview(NO_VNET + FRAME))
    assert counters == {f"frames_dropped.tap_{reason}": 1}
