"""The TAP: a non-persistent device with a virtio header and every offload the kernel gives.

linux/if_tun.h. Flags of TUNSETOFFLOAD are per device; they say what *we* take in a read. What we
write may carry any virtio header, whatever the flags are (tun_get_user).
"""

import ctypes
import errno
import fcntl
import io
import os
import socket
import struct
from typing import Final

from tincan.device.device import Offloads
from tincan.device.vnet import guarded
from tincan.errors import SystemRefusal
from tincan.record.layout import VNET_SIZE

TUNSETIFF: Final = 0x400454CA
TUNGETIFF: Final = 0x800454D2
TUNSETOFFLOAD: Final = 0x400454D0
TUNSETVNETHDRSZ: Final = 0x400454D8
TUNATTACHFILTER: Final = 0x401054D5
TUNDETACHFILTER: Final = 0x401054D6
IFF_TAP: Final = 0x0002
IFF_NO_PI: Final = 0x1000
IFF_VNET_HDR: Final = 0x4000
IFF_TUN_EXCL: Final = 0x8000
TUN_F_CSUM: Final = 0x01
TUN_F_TSO4: Final = 0x02
TUN_F_TSO6: Final = 0x04
TUN_F_TSO_ECN: Final = 0x08
TUN_F_USO4: Final = 0x20
TUN_F_USO6: Final = 0x40
SIOCSIFHWADDR: Final = 0x8924
ARPHRD_ETHER: Final = 1
IFNAMSIZ: Final = 16

_IFREQ = struct.Struct("16sH22x")
_FPROG = struct.Struct("@HP")
"""struct sock_fprog: how many instructions, and where."""
_IFREQ_MAC = struct.Struct("16sH6s16x")

# The ioctl numbers above say the size of what they take, in bits 16 to 29.
assert _FPROG.size == TUNATTACHFILTER >> 16 & 0x3FFF, "64-bit pointers"
assert _IFREQ.size == _IFREQ_MAC.size == 40

DEVICE: Final = "/dev/net/tun"
"""The file behind which TAPs are made."""

_read = ctypes.CDLL(None, use_errno=True).read
_read.argtypes = [ctypes.c_int, ctypes.c_size_t, ctypes.c_size_t]
_read.restype = ctypes.c_ssize_t


class Tap:
    """An open TAP. ``fd`` is non-blocking; the device lives as long as any duplicate of it."""

    def __init__(self, fd: int, name: str, mac: bytes, offloads: Offloads) -> None:
        self.fd = fd
        self.name = name
        self.mac = mac
        self.offloads = offloads
        file = io.FileIO(fd, "r+", closefd=False)
        self.read = _read
        """(descriptor, address in memory, size) -> bytes read, or -1: see ``refused``.

        Not by way of the file, which would make an exception of it when there is nothing: with its
        message, in the language of the user, which reads more memory than all that a frame takes.
        """
        self.write = guarded(file.write)
        """(buffer) -> bytes written, or None when the device would block; raises OSError."""
        self._file = file

    @staticmethod
    def refused() -> bool:
        """Return whether the last ``read`` failed for another reason than that nothing waits."""
        return ctypes.get_errno() != errno.EAGAIN

    def set_filter(self, program: bytes | None) -> None:
        """Have the kernel run a classic BPF program on what it would queue for us, or none.

        What the program refuses counts as dropped by the device. Raise OSError.
        """
        if program is None:
            fcntl.ioctl(self.fd, TUNDETACHFILTER, _FPROG.pack(0, 0))
            return
        buffer = ctypes.create_string_buffer(program, len(program))
        fcntl.ioctl(
            self.fd,
            TUNATTACHFILTER,
            _FPROG.pack(len(program) // 8, ctypes.addressof(buffer)),
        )

    def dropped(self) -> int:
        """Return how many frames for us the device dropped: filtered, or its queue was full."""
        with open("/proc/net/dev") as lines:
            for line in lines:
                name, _, numbers = line.partition(":")
                if name.strip() == self.name:
                    return int(numbers.split()[11])
        return 0

    def gone(self) -> bool:
        """Return whether somebody deleted the device."""
        try:
            fcntl.ioctl(self.fd, TUNGETIFF, bytes(_IFREQ.size))
        except OSError:
            return True
        return False

    def close(self) -> None:
        """Give up our descriptor."""
        os.close(self.fd)


def open_tap(name: str, mac: bytes, wanted: Offloads, descriptor: int | None = None) -> Tap:
    """Create the TAP ``name`` with address ``mac``; raise SystemRefusal.

    With ``descriptor``, take over the device behind it instead, whose last user died.
    TUNSETIFF comes before anything registers the descriptor with an event loop: an fd without
    a device polls as an error.
    """
    if descriptor is not None:
        return _take_over(descriptor, name, mac, wanted)
    try:
        fd = os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise SystemRefusal(
            f"{DEVICE}: {error.strerror}; load the tun module, or run as root or with CAP_NET_ADMIN"
        ) from None
    try:
        vnet_hdr = _create(fd, name, wanted.vnet_hdr)
        got = _set_offloads(fd, wanted) if vnet_hdr else Offloads(False, False, False)
        _configure(name, mac)
    except BaseException:
        os.close(fd)
        raise
    return Tap(fd, name, mac, got)


def _take_over(fd: int, name: str, mac: bytes, wanted: Offloads) -> Tap:
    try:
        request = fcntl.ioctl(fd, TUNGETIFF, bytes(_IFREQ.size))
    except OSError as error:
        os.close(fd)
        raise SystemRefusal(f"TAP {name}: the device is gone: {error.strerror}") from None
    found, flags = _IFREQ.unpack(request)
    vnet_hdr = bool(flags & IFF_VNET_HDR)
    got = _set_offloads(fd, wanted) if vnet_hdr else Offloads(False, False, False)
    os.set_blocking(fd, False)
    return Tap(fd, found.rstrip(b"\0").decode(), mac, got)


def _create(fd: int, name: str, vnet_hdr: bool) -> bool:
    flags = IFF_TAP | IFF_NO_PI | IFF_TUN_EXCL
    for extra in (IFF_VNET_HDR, 0) if vnet_hdr else (0,):
        try:
            fcntl.ioctl(fd, TUNSETIFF, _IFREQ.pack(name.encode(), flags | extra))
        except OSError as error:
            if error.errno == errno.EINVAL and extra:  # a kernel without virtio headers
                continue
            cure = {
                errno.EBUSY: "another program holds a device of that name; choose another 'tap'",
                errno.EPERM: "run as root or give CAP_NET_ADMIN",
            }.get(error.errno or 0, "choose another 'tap' name")
            raise SystemRefusal(f"TAP {name}: {error.strerror}; {cure}") from None
        if extra:
            fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("=i", VNET_SIZE))
        return bool(extra)
    raise SystemRefusal(f"TAP {name}: the kernel takes no flags we know")


def _set_offloads(fd: int, wanted: Offloads) -> Offloads:
    """Ask for all that is wanted, then for less and less: old kernels refuse unknown flags."""
    tso = TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN if wanted.tso else 0
    uso = TUN_F_USO4 | TUN_F_USO6 if wanted.uso else 0
    for flags in (TUN_F_CSUM | tso | uso, TUN_F_CSUM | tso, TUN_F_CSUM, 0):
        try:
            fcntl.ioctl(fd, TUNSETOFFLOAD, flags)
        except OSError:
            continue
        return Offloads(True, bool(flags & TUN_F_TSO4), bool(flags & TUN_F_USO4))
    return Offloads(True, False, False)


def _configure(name: str, mac: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            fcntl.ioctl(sock, SIOCSIFHWADDR, _IFREQ_MAC.pack(name.encode(), ARPHRD_ETHER, mac))
        except OSError as error:
            raise SystemRefusal(f"TAP {name}: cannot set its address: {error.strerror}") from None
