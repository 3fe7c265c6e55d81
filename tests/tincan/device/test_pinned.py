"""Pinned buffers cannot move."""

import ctypes

import pytest

from tincan.device.pinned import Pinned
from tincan.record.slots import Slots


def test_a_resize_is_refused_while_the_address_is_known() -> None:
    buffer = bytearray(b"abcd")
    pinned = Pinned(buffer)
    assert ctypes.string_at(pinned.address, 4) == b"abcd"
    buffer[1:3] = b"xy"
    assert ctypes.string_at(pinned.address, 4) == b"axyd"
    with pytest.raises(BufferError):
        buffer.append(0)
    del pinned
    buffer.append(0)


def test_slots_pin_their_headers() -> None:
    headers = bytearray(160)
    slots = Slots(headers, 16, memoryview(bytearray(1000)), 100)
    with pytest.raises(BufferError):
        headers.extend(b"x")
    assert slots.count == 10
