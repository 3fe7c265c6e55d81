"""Gather and scatter lists for the kernel, built once: arrays of struct iovec over our buffers."""

import ctypes
import struct
from collections.abc import Sequence
from typing import Final

IOVEC = struct.Struct("@PN")  # base, length
IOVEC_SIZE: Final = IOVEC.size


def address_of(buffer: bytearray | memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


class Vector:
    """An iovec array over ``parts``, which stay where they are as long as it lives."""

    __slots__ = ("_array", "_parts", "address")

    def __init__(self, parts: Sequence[memoryview]) -> None:
        self._parts = parts
        self._array = bytearray(IOVEC.size * len(parts))
        for i, part in enumerate(parts):
            IOVEC.pack_into(self._array, i * IOVEC.size, address_of(part), len(part))
        self.address = address_of(self._array)

    def __len__(self) -> int:
        return len(self._parts)

    def resize(self, index: int, size: int) -> None:
        """Let part ``index`` count with its first ``size`` bytes."""
        at = index * IOVEC.size
        start = IOVEC.unpack_from(self._array, at)[0]
        IOVEC.pack_into(self._array, at, start, size)
