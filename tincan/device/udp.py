"""UDP sockets that we own, with segmentation offload where the kernel has it.

linux/udp.h: UDP_SEGMENT 103 (send one buffer as many datagrams), UDP_GRO 104 (receive many
datagrams of one flow as one buffer; a control message tells their size).

The system calls of the hot path go through ctypes with gather lists that are built once: the
socket module builds an iovec from every buffer of the list at every call, which for the 90
buffers of a full record costs more (8 us) than the call's own overhead. For the same reason the
message headers stay, and a call writes only what has changed.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from typing import Final

from tincan.device.device import Address as Address
from tincan.device.device import Buffer as Buffer
from tincan.device.pinned import Pinned
from tincan.errors import SystemRefusal

UDP_SEGMENT: Final = 103
UDP_GRO: Final = 104
SO_SNDBUFFORCE: Final = 32
SO_RCVBUFFORCE: Final = 33
SO_MEMINFO: Final = 55
SK_MEMINFO_DROPS: Final = 8
"""Index in SO_MEMINFO's nine u32 (linux/sock_diag.h)."""
IP_MTU_DISCOVER: Final = 10
IPV6_MTU_DISCOVER: Final = 23
PMTUDISC_PROBE: Final = 3
"""Set DF, and ignore the kernel's path MTU: we probe ourselves (RFC 8899)."""
TIOCOUTQ: Final = 0x5411
SOCKET_BUFFER: Final = 16 << 20
"""Bytes: a burst of records must survive one late wake-up of ours."""

_libc = ctypes.CDLL(None, use_errno=True)
_sendmsg = _libc.sendmsg
_recvmsg = _libc.recvmsg
for _call in (_sendmsg, _recvmsg):
    _call.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
    _call.restype = ctypes.c_ssize_t

_MSGHDR = struct.Struct("@PIPNPNi")
"""struct msghdr: name, namelen, iov, iovlen, control, controllen, flags."""
_CONTROL_FLAGS = struct.Struct("@Ni")
"""controllen, flags."""
_IOV_AT: Final = 16
_CONTROL_AT: Final = 32
_CONTROLLEN_AT: Final = 40
_FLAGS_AT: Final = 48
_CONTROL = struct.Struct("@PN")
"""control, controllen."""

# The offsets are those of 64-bit pointers and sizes.
assert (_MSGHDR.size, struct.calcsize("@PI4xP"), struct.calcsize("@PN")) == (52, 24, 16)
assert _CONTROL_AT - _IOV_AT == _CONTROL.size == _FLAGS_AT - _CONTROL_AT

# As plain numbers: the enumeration of the socket module takes 2 us for an "and".
_DONTWAIT: Final = int(socket.MSG_DONTWAIT)
_TRUNC: Final = int(socket.MSG_TRUNC)
_CMSG = struct.Struct("@Nii")
"""struct cmsghdr: len, level, type; the data follows."""
_CONTROL_SIZE: Final = 24
"""CMSG_SPACE of an int, and of a u16 alike."""
_ROOM_FOR_CONTROL: Final = struct.pack("@N", _CONTROL_SIZE)
_SEGMENT = struct.Struct("@H")
"""Data of UDP_SEGMENT."""
_GRO_SIZE = struct.Struct("@i")
"""Data of UDP_GRO."""
_NAME_SIZE: Final = 28
"""Bytes of a struct sockaddr_in6."""
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
        self._pins: list[Pinned] = []
        self._out_at = self._pin(self._out)
        self._out_control = bytearray(_CONTROL_SIZE)
        _CMSG.pack_into(self._out_control, 0, _CMSG.size + 2, socket.SOL_UDP, UDP_SEGMENT)
        self._out_control_at = self._pin(self._out_control)
        self._target: Address | None = None
        self._target_name = bytearray(_NAME_SIZE)
        self._target_at = self._pin(self._target_name)
        self._segment = 0  # what _out says of the datagrams' size; 0: a single one
        self._in = bytearray(_MSGHDR.size + 8)
        self._in_at = self._pin(self._in)
        self._in_control = bytearray(_CONTROL_SIZE)
        self._in_name = bytearray(_NAME_SIZE)
        control = self._pin(self._in_control)
        _MSGHDR.pack_into(self._in, 0, self._pin(self._in_name), _NAME_SIZE, 0, 0, control, 0, 0)
        self._sender_name = b""
        self._sender: Address = ("", 0)
        self._unsent = bytearray(4)
        self._drops = 0

    def _pin(self, buffer: bytearray) -> int:
        """Return the address of ``buffer``, which stays there as long as this socket."""
        self._pins.append(Pinned(buffer))
        return self._pins[-1].address

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
        """Return the descriptor, -1 after ``close``."""
        return self._fd

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._fd < 0

    def close(self) -> None:
        """Close the socket. Whoever watches the descriptor must stop before."""
        self._fd = -1
        self.sock.close()

    @property
    def offloads(self) -> list[str]:
        """The names of what the kernel does for us here: gso (UDP_SEGMENT), gro (UDP_GRO)."""
        in_use = {"gso": self.segment_offload, "gro": self.receive_offload}
        return [name for name, on in in_use.items() if on]

    # --- sending

    def sendto(self, data: Buffer, address: Address) -> None:
        """Send one datagram; raise OSError."""
        self.sock.sendto(data, address)

    def send(self, iov: bytes, segment: int, address: Address) -> None:
        """Send what ``iov`` gathers (its address and length: Slots.iov); raise OSError.

        ``segment`` 0: as one datagram. Else as a run of datagrams of ``segment`` bytes each (the
        last may be shorter), at most MAX_SEGMENTS and MAX_BATCH bytes in all. EIO means that the
        device cannot checksum segments: the caller turns ``segment_offload`` off.
        """
        if address is not self._target:
            self._aim(address)
        if segment != self._segment:
            self._set_segment(segment)
        self._out[_IOV_AT:_CONTROL_AT] = iov
        if _sendmsg(self._fd, self._out_at, 0) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def _aim(self, address: Address) -> None:
        """Write ``address`` into the message header."""
        host, port = address
        raw = socket.inet_pton(self.family, host)
        if self.family == socket.AF_INET:
            name = _IN4.pack(self.family, socket.htons(port), raw)
        else:
            name = _IN6.pack(self.family, socket.htons(port), 0, raw, 0)
        self._target_name[: len(name)] = name
        _MSGHDR.pack_into(self._out, 0, self._target_at, len(name), 0, 0, 0, 0, 0)
        self._target, self._segment = address, 0

    def _set_segment(self, size: int) -> None:
        """Have the message header say that datagrams of ``size`` bytes follow; 0: a single one."""
        if size:
            _SEGMENT.pack_into(self._out_control, _CMSG.size, size)
            _CONTROL.pack_into(self._out, _CONTROL_AT, self._out_control_at, _CONTROL_SIZE)
        else:
            _CONTROL.pack_into(self._out, _CONTROL_AT, 0, 0)
        self._segment = size

    def unsent(self) -> int:
        """Return how many bytes (with the kernel's overhead) the device has not yet sent."""
        fcntl.ioctl(self._fd, TIOCOUTQ, self._unsent)
        return int.from_bytes(self._unsent, "little")

    # --- receiving

    def news_of_drops(self) -> int:
        """Return how many datagrams were lost since the last call for want of room."""
        told = self.sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 4 * (SK_MEMINFO_DROPS + 1))
        total = int.from_bytes(told[4 * SK_MEMINFO_DROPS :], "little")
        news, self._drops = (total - self._drops) & 0xFFFFFFFF, total
        return news

    def receive(self, iov: bytes) -> tuple[int, int, Address] | None:
        """Receive one batch into what ``iov`` lists (Slots.iovs); return None if nothing waits.

        The buffers must live until this returns: a Slots keeps its own.

        Return its bytes, the size of each datagram in it but the last (0 when the batch did not
        fit and was cut off), and where it came from: the same object as the last time, if it is
        the same address. Raise OSError for errors of earlier sends that surface here.
        """
        message = self._in
        # The name's length stays as the kernel left it: all names of a family have one length.
        message[_IOV_AT:_CONTROL_AT] = iov
        message[_CONTROLLEN_AT:_FLAGS_AT] = _ROOM_FOR_CONTROL
        received = _recvmsg(self._fd, self._in_at, _DONTWAIT)
        if received < 0:
            number = ctypes.get_errno()
            if number in (errno.EAGAIN, errno.EWOULDBLOCK):
                return None
            raise OSError(number, os.strerror(number))
        if self._in_name != self._sender_name:
            self._sender_name = bytes(self._in_name)
            self._sender = self._address(self._in_name)
        control_size, flags = _CONTROL_FLAGS.unpack_from(message, _CONTROLLEN_AT)
        if flags & _TRUNC:
            return received, 0, self._sender
        if control_size:  # UDP_GRO: the only one there is
            return received, _GRO_SIZE.unpack_from(self._in_control, _CMSG.size)[0], self._sender
        return received, received, self._sender

    def _address(self, name: bytearray) -> Address:
        if self.family == socket.AF_INET:
            _, port, raw = _IN4.unpack_from(name)
        else:
            _, port, _, raw, _ = _IN6.unpack_from(name)
        return socket.inet_ntop(self.family, raw), socket.ntohs(port)


def is_refusal_of_offload(error: OSError) -> bool:
    """Return whether ``error`` says that this device or kernel cannot segment for us."""
    return error.errno in (errno.EIO, errno.EINVAL, errno.ENOPROTOOPT)
