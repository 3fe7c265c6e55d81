"""Where records are put together and taken apart: pieces of memory on huge pages.

A full record is copied, encrypted and copied again, 64 KiB each time. On pages of 4 KiB that takes
sixteen entries of the processor's translation buffer each time, and on a virtual machine a miss
costs two walks: on huge pages a bare loop takes 6 % less processor time for a TCP flow, tincan 2 to
4 %.

The kernel gives them where it can (/sys/kernel/mm/transparent_hugepage/enabled: ``always`` or
``madvise``). MAX_HUGE bounds what that may cost: a huge page is there as a whole from its first
byte on. Pieces beyond are on ordinary pages, of which only those exist that were used.
"""

import contextlib
import mmap
import weakref
from typing import Final

from tincan.device.pinned import Pinned

PAGE: Final = 4096
HUGE: Final = 2 << 20
"""Bytes of a huge page."""
PIECE: Final = HUGE // 6 // PAGE * PAGE
"""Bytes of a piece: room for the longest record, and for the batch that comes behind it."""
MAX_HUGE: Final = 8
"""Huge pages of one pool: for 48 links and what is received."""


class Pool:
    """The pieces of one process. Whoever needs memory for records is handed the pool."""

    def __init__(self) -> None:
        self._free: list[memoryview] = []
        self._huge = 0  # pages taken

    def take(self, owner: object) -> memoryview:
        """Return PIECE bytes, whatever is in them, that are ``owner``'s as long as it lives.

        No slice of them may outlive the owner: the next one gets the same memory.
        """
        if not self._free:
            self._free.extend(self._block())
        taken = self._free.pop()
        weakref.finalize(owner, self._free.append, taken).atexit = False
        return taken

    def _block(self) -> list[memoryview]:
        """Return the pieces of one more huge page, or of as much ordinary memory."""
        # Twice the size: one huge page lies somewhere in it. What is not touched does not exist.
        memory = mmap.mmap(-1, 2 * HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        start = -Pinned(memoryview(memory)).address % HUGE
        if self._huge < MAX_HUGE:
            with contextlib.suppress(OSError):  # a kernel without them
                memory.madvise(mmap.MADV_HUGEPAGE, start, HUGE)
                self._huge += 1
        page = memoryview(memory)[start : start + HUGE]
        return [page[at : at + PIECE] for at in range(0, HUGE - PIECE + 1, PIECE)]
