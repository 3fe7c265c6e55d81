"""The virtio header before every frame, and the door to every device's queue.

``struct virtio_net_hdr`` (linux/virtio_net.h), 10 bytes in the byte order of the host, which is
little-endian wherever we run::

     0       1          2         4          6            8            10
    +-------+----------+---------+----------+------------+-------------+-------
    | flags | gso_type | hdr_len | gso_size | csum_start | csum_offset | frame
    +-------+----------+---------+----------+------------+-------------+-------

hdr_len is never looked at: the kernel itself fills it with hints that are wrong for forwarded
frames.
"""

import errno
import struct
import sys
from collections.abc import Callable
from typing import Final

from tincan.device.device import Buffer, Write
from tincan.record.layout import VNET_SIZE

VNET = struct.Struct("<BBHHHH")
NEEDS_CSUM: Final = 1
GSO_NONE: Final = 0
GSO_TCPV4: Final = 1
GSO_TCPV6: Final = 4
GSO_UDP_L4: Final = 5
GSO_ECN: Final = 0x80

NO_VNET: Final = bytes(VNET_SIZE)
"""The header of a frame that is complete as it is."""

assert VNET.size == VNET_SIZE
assert sys.byteorder == "little", "virtio headers travel in the byte order of the host"

Check = Callable[[Buffer], bool]


def check(header: Buffer) -> bool:
    """Return whether a header from a peer may reach a kernel: all that the kernel itself takes."""
    return True


def guarded(write: Write, rule: Check = check) -> Write:
    """Return ``write``, behind ``rule``: every device gives itself out by this door alone.

    What the rule refuses raises OSError(EINVAL), as the kernel does. ``check`` refuses nothing, so
    nothing is put before ``write`` for it: a Python function there costs 0.1 us a frame.
    """
    if rule is check:
        return write

    def write_checked(item: memoryview) -> int | None:
        if not rule(item):
            raise OSError(errno.EINVAL, "the virtio header is refused")
        return write(item)

    return write_checked
