"""The door to every device."""

import errno

import pytest

from tincan.device.twin import Twin
from tincan.device.vnet import NO_VNET, check, guarded


def test_what_a_rule_refuses_is_not_written() -> None:
    device = Twin(keep=True)
    write = guarded(device.write, lambda header: header[0] == 0)
    good, bad = memoryview(NO_VNET + b"frame"), memoryview(b"\xff" + NO_VNET[1:] + b"frame")
    assert write(good) == len(good)
    with pytest.raises(OSError, match="virtio") as refused:
        write(bad)
    assert refused.value.errno == errno.EINVAL
    assert device.written == [bytes(good)]
    assert check(good)
