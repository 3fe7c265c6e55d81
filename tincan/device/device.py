"""What the data path needs of a network device and of a UDP socket: the ports to the kernel.

device.tap and device.twin are devices, device.udp is the socket. Nothing here does anything.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

Address: TypeAlias = tuple[str, int]
"""Host, as a numeric address, and port."""

Buffer: TypeAlias = bytes | bytearray | memoryview

Write: TypeAlias = Callable[[memoryview], int | None]
"""Writes one frame; returns the bytes taken, or None when the device would block; raises OSError.
"""


@dataclass(frozen=True, slots=True)
class Offloads:
    """What a device hands over unsegmented. Asked for at opening; ``Device`` tells what was got."""

    vnet_hdr: bool = True
    tso: bool = True
    uso: bool = True


class Device(Protocol):
    """A network device whose other end is a process: a TAP.

    With ``offloads.vnet_hdr`` a virtio header (device.vnet) precedes every frame, both ways.
    """

    @property
    def fd(self) -> int:
        """The descriptor that is readable while a frame waits."""

    @property
    def name(self) -> str:
        """The interface's name."""

    @property
    def offloads(self) -> Offloads:
        """What the kernel agreed to."""

    @property
    def read(self) -> Callable[[int, int, int], int]:
        """Read one frame: (descriptor, address in memory, size) -> bytes, or -1.

        After -1, ``refused`` tells why.
        """

    @property
    def write(self) -> Write:
        """Write one frame; see ``Write``. What is written has gone through vnet.guarded."""

    def refused(self) -> bool:
        """Return whether the last ``read`` failed though it did not have to wait."""

    def dropped(self) -> int:
        """Return how many frames for us the device has dropped so far."""

    def set_filter(self, program: bytes | None) -> None:
        """Set the BPF program (device.filter) that frames for us must pass; raise OSError."""


class Socket(Protocol):
    """A non-blocking UDP socket, as the data path uses it: see device.udp."""

    on_stun: Callable[[bytes, Address], None] | None
    on_channel: Callable[[bytes, int], None] | None
    segment_offload: bool

    @property
    def address(self) -> Address:
        """Our own address."""

    @property
    def closed(self) -> bool:
        """Whether somebody has closed it."""

    @property
    def offloads(self) -> list[str]:
        """The names of what the kernel does for us here."""

    def fileno(self) -> int:
        """Return the descriptor."""

    def sendto(self, data: Buffer, address: Address) -> None:
        """Send one datagram; raise OSError."""

    def send(self, iov: bytes, segment: int, address: Address) -> None:
        """Send what ``iov`` gathers, in datagrams of ``segment`` bytes; raise OSError."""

    def unsent(self) -> int:
        """Return how many bytes our own device has not sent yet."""

    def receive(self, iov: bytes) -> tuple[int, int, Address] | None:
        """Receive one batch into what ``iov`` lists: bytes, bytes of each datagram, sender."""
