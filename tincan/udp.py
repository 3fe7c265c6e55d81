"""UDP sockets that we own, with segmentation offload where the kernel has it.

linux/udp.h: UDP_SEGMENT 103 (send one buffer as many datagrams), UDP_GRO 104 (receive many
datagrams of one flow as one buffer; a control message tells their size).

The system calls of the hot path go through ctypes with gather lists that are built once: the
socket module builds an iovec from every buffer of the list at every call, which for the 90
buffers of a full record costs more (8 us) than the call's own overhead.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from typing import Final, TypeAlias

from tincan.errors import SystemRefusal
from tincan.vector import IOVEC_SIZE, Vector, address_of

UDP_SEGMENT: Final = 103
UDP_GRO: Final = 104
SO_SNDBUFFORCE: Final = 32
SO_RCVBUFFORCE: Final = 33
SO_MEMINFO: Final = 55
SK_MEMINFO_DROPS: Final = 8  # linux/sock_diag.h; the last of nine u32
IP_MTU_DISCOVER: Final = 10
IPV6_MTU_DISCOVER: Final = 23
PMTUDISC_PROBE: Final = 3  # set DF, ignore the kernel's path MTU: we probe ourselves (RFC 8899)
FIONREAD: Final = 0x541B
TIOCOUTQ: Final = 0x5411
SOCKET_BUFFER: Final = 16 << 20  # bytes; a burst of records must survive one late wake-up of ours
MAX_SEGMENTS: Final = 64  # UDP_MAX_SEGMENTS of kernels before 6.6
MAX_BATCH: Final = 65507  # bytes of UDP payload in one call

Address: TypeAlias = tuple[str, int]
Buffer: TypeAlias = bytes | bytearray | memoryview

_libc = ctypes.CDLL(None, use_errno=True)
_sendmsg = _libc.sendmsg
_recvmsg = _libc.recvmsg
for _call in (_sendmsg, _recvmsg):
    _call.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
    _call.restype = ctypes.c_ssize_t

_MSGHDR = struct.Struct("@PIPNPNi")  # name, namelen, iov, iovlen, control, controllen, flags
_CMSG = struct.Struct("@Nii")  # len, level, type; the data follows
_CONTROL_SIZE: Final = 24  # CMSG_SPACE(4), and of a u16 alike
_NAME_SIZE: Final = 28  # struct sockaddr_in6
_IN4 = struct.Struct("=HH4s8x")
_IN6 = struct.Struct("=HHI16sI")


class UdpSocket:
    """One non-blocking UDP socket.

    ``on_stun`` gets every datagram that is STUN (demultiplexed per segment, cookie and lengths
    checked). ``on_channel`` is set on the socket of a TURN allocation and gets the STUN that came
    inside ChannelData, with the channel's number. All else that arrives is records.
    """

    def __init__(self, host: str, port: int = 0, *, gso: bool = True, gro: bool = True) -> None:
        self.family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.on_stun: Callable[[bytes, Address], None] | None = None
        self.on_channel: Callable[[bytes, int], None] | None = None
        self.segment_offload = gso
        self.receive_offload = False
        try:
            self.sock = socket.socket(self.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        except OSError as error:  # no descriptor is left, or the kernel has no such family
            raise SystemRefusal(f"UDP socket on {host}: {error.strerror}") from None
        try:
            self._set_options(gro)
            self.sock.bind((host, port))
        except OSError as error:
            self.sock.close()
            raise SystemRefusal(f"UDP socket on {host} port {port}: {error.strerror}") from None
        name = self.sock.getsockname()
        self.address: Address = (name[0], name[1])
        self._fd = self.sock.fileno()
        self._out = bytearray(_MSGHDR.size + 8)
        self._out_at = address_of(self._out)
        self._out_control = bytearray(_CONTROL_SIZE)
        _CMSG.pack_into(self._out_control, 0, _CMSG.size + 2, socket.SOL_UDP, UDP_SEGMENT)
        self._out_control_at = address_of(self._out_control)
        self._target: Address | None = None
        self._target_name = bytearray(_NAME_SIZE)
        self._target_at = address_of(self._target_name)
        self._target_size = 0
        self._in = bytearray(_MSGHDR.size + 8)
        self._in_at = address_of(self._in)
        self._in_control = bytearray(_CONTROL_SIZE)
        self._in_control_at = address_of(self._in_control)
        self._in_name = bytearray(_NAME_SIZE)
        self._in_name_at = address_of(self._in_name)
        self._sender_name = b""
        self._sender: Address = ("", 0)
        self._waiting = bytearray(4)
        self._drops = 0

    def _set_options(self, gro: bool) -> None:
        buffers = ((SO_RCVBUFFORCE, socket.SO_RCVBUF), (SO_SNDBUFFORCE, socket.SO_SNDBUF))
        for force, plain in buffers:
            try:
                self.sock.setsockopt(socket.SOL_SOCKET, force, SOCKET_BUFFER)
            except PermissionError:
                self.sock.setsockopt(socket.SOL_SOCKET, plain, SOCKET_BUFFER)
        if self.family == socket.AF_INET6:
            self.sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self.sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)
        else:
            self.sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)
        if gro:
            with contextlib.suppress(OSError):
                self.sock.setsockopt(socket.SOL_UDP, UDP_GRO, 1)
                self.receive_offload = True

    def fileno(self) -> int:
        return self._fd

    @property
    def closed(self) -> bool:
        return self._fd < 0

    def close(self) -> None:
        self._fd = -1
        self.sock.close()

    @property
    def offloads(self) -> list[str]:
        """What the kernel does for us here: ``gso`` (UDP_SEGMENT), ``gro`` (UDP_GRO)."""
        in_use = {"gso": self.segment_offload, "gro": self.receive_offload}
        return [name for name, on in in_use.items() if on]

    # -- sending

    def sendto(self, data: Buffer, address: Address) -> None:
        """Send one datagram; raise OSError."""
        self.sock.sendto(data, address)

    def send(self, vector: Vector, first: int, count: int, size: int, address: Address) -> None:
        """Send ``count`` parts of ``vector`` from part ``first`` on; raise OSError.

        ``size`` 0: as one datagram. Else as a run of datagrams of ``size`` bytes each (the last
        may be shorter), at most MAX_SEGMENTS and MAX_BATCH bytes in all. EIO means that the
        device cannot checksum segments: the caller turns ``segment_offload`` off.
        """
        if address is not self._target:
            self._aim(address)
        control, control_size = 0, 0
        if size:
            control, control_size = self._out_control_at, _CONTROL_SIZE
            struct.pack_into("=H", self._out_control, _CMSG.size, size)
        _MSGHDR.pack_into(
            self._out,
            0,
            self._target_at,
            self._target_size,
            vector.address + first * IOVEC_SIZE,
            count,
            control,
            control_size,
            0,
        )
        if _sendmsg(self._fd, self._out_at, 0) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def _aim(self, address: Address) -> None:
        """Write the socket address that ``address`` means."""
        host, port = address
        raw = socket.inet_pton(self.family, host)
        if self.family == socket.AF_INET:
            _IN4.pack_into(self._target_name, 0, self.family, socket.htons(port), raw)
            self._target_size = _IN4.size
        else:
            _IN6.pack_into(self._target_name, 0, self.family, socket.htons(port), 0, raw, 0)
            self._target_size = _IN6.size
        self._target = address

    def unsent(self) -> int:
        """Bytes (with the kernel's overhead) that the device has not yet sent."""
        fcntl.ioctl(self._fd, TIOCOUTQ, self._waiting)
        return int.from_bytes(self._waiting, "little")

    # -- receiving

    def news_of_drops(self) -> int:
        """Datagrams lost since the last call because we did not read soon enough."""
        told = self.sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 4 * (SK_MEMINFO_DROPS + 1))
        total = int.from_bytes(told[4 * SK_MEMINFO_DROPS :], "little")
        news, self._drops = (total - self._drops) & 0xFFFFFFFF, total
        return news

    def waiting(self) -> int:
        """Bytes of the batch that comes next; 0 when there is none, or an empty datagram."""
        fcntl.ioctl(self._fd, FIONREAD, self._waiting)
        return int.from_bytes(self._waiting, "little")

    def receive(
        self, vector: Vector, count: int, first: int = 0
    ) -> tuple[int, int, Address] | None:
        """Receive one batch into ``count`` parts from part ``first`` on; None: nothing waits.

        Return its bytes, the size of each datagram in it but the last (0 when the batch did not
        fit and was cut off), and where it came from. Raise OSError for errors of earlier sends
        that surface here.
        """
        _MSGHDR.pack_into(
            self._in,
            0,
            self._in_name_at,
            _NAME_SIZE,
            vector.address + first * IOVEC_SIZE,
            count,
            self._in_control_at,
            _CONTROL_SIZE,
            0,
        )
        received = _recvmsg(self._fd, self._in_at, socket.MSG_DONTWAIT)
        if received < 0:
            number = ctypes.get_errno()
            if number in (errno.EAGAIN, errno.EWOULDBLOCK):
                return None
            raise OSError(number, os.strerror(number))
        if self._in_name != self._sender_name:
            self._sender_name = bytes(self._in_name)
            self._sender = self._address(self._in_name)
        _, _, _, _, _, control_size, flags = _MSGHDR.unpack_from(self._in)
        segment = received
        if flags & socket.MSG_TRUNC:
            segment = 0
        elif control_size >= _CMSG.size + 4:  # UDP_GRO: the only one there is
            segment = int.from_bytes(self._in_control[_CMSG.size : _CMSG.size + 4], "little")
        return received, segment, self._sender

    def _address(self, name: bytearray) -> Address:
        if self.family == socket.AF_INET:
            _, port, raw = _IN4.unpack_from(name)
        else:
            _, port, _, raw, _ = _IN6.unpack_from(name)
        return socket.inet_ntop(self.family, raw), socket.ntohs(port)


def is_refusal_of_offload(error: OSError) -> bool:
    """Whether ``error`` says that this device or kernel cannot segment for us."""
    return error.errno in (errno.EIO, errno.EINVAL, errno.ENOPROTOOPT)
