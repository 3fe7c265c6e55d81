"""Buffers whose address in memory is known to somebody else: to the kernel, or to ctypes."""

import ctypes


class Pinned:
    """The address of ``buffer``, good for as long as this object lives.

    The object keeps an export of the buffer: resizing a bytearray that has one raises BufferError
    instead of moving memory that the kernel is about to write to. Assigning a slice of the same
    length is no resizing.
    """

    __slots__ = ("_export", "address")

    def __init__(self, buffer: bytearray | memoryview) -> None:
        self._export = ctypes.c_char.from_buffer(buffer)
        self.address = ctypes.addressof(self._export)
