"""UDP sockets that we own, with segmentation offload where the kernel has it.

linux/udp.h: UDP_SEGMENT 103 (send one buffer as many datagrams), UDP_GRO 104 (receive many
datagrams of one flow as one buffer; a control message tells their size).
"""

import contextlib
import errno
import socket
import struct
from collections.abc import Callable, Sequence
from typing import TypeAlias

from tincan.errors import SystemRefusal

UDP_SEGMENT = 103
UDP_GRO = 104
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33
IP_MTU_DISCOVER = 10
IPV6_MTU_DISCOVER = 23
PMTUDISC_PROBE = 3  # set DF, ignore the kernel's path MTU: we probe for ourselves (RFC 8899)
SOCKET_BUFFER = 16 << 20  # bytes; a burst of records must survive one late wake-up of ours
MAX_SEGMENTS = 64  # UDP_MAX_SEGMENTS of kernels before 6.6
MAX_BATCH = 65507  # bytes of UDP payload in one call

Address: TypeAlias = tuple[str, int]
Buffer: TypeAlias = bytes | bytearray | memoryview


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
        self.sock = socket.socket(self.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._set_options(gro)
            self.sock.bind((host, port))
        except OSError as error:
            self.sock.close()
            raise SystemRefusal(f"UDP socket on {host} port {port}: {error.strerror}") from None
        name = self.sock.getsockname()
        self.address: Address = (name[0], name[1])

    def _set_options(self, gro: bool) -> None:
        for force, plain in (
            (SO_RCVBUFFORCE, socket.SO_RCVBUF),
            (SO_SNDBUFFORCE, socket.SO_SNDBUF),
        ):
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
        return self.sock.fileno()

    def sendto(self, data: Buffer, address: Address) -> None:
        """Send one datagram; raise OSError."""
        self.sock.sendto(data, address)

    def send_batch(self, parts: Sequence[Buffer], size: int, address: Address) -> None:
        """Send ``parts``, together a run of datagrams of ``size`` bytes each (the last shorter).

        At most MAX_SEGMENTS datagrams and MAX_BATCH bytes. Raise OSError; EIO means that the
        device cannot checksum segments: the caller turns ``segment_offload`` off.
        """
        self.sock.sendmsg(
            parts, ((socket.SOL_UDP, UDP_SEGMENT, struct.pack("=H", size)),), 0, address
        )

    def close(self) -> None:
        self.sock.close()


def segment_size(ancillary: list[tuple[int, int, bytes]], received: int) -> int:
    """Return the size in bytes of each datagram (but the last) in a received batch."""
    for level, kind, data in ancillary:
        if level == socket.SOL_UDP and kind == UDP_GRO:
            return int.from_bytes(data[:4], "little")
    return received


def is_refusal_of_offload(error: OSError) -> bool:
    """Whether ``error`` says that this device or kernel cannot segment for us."""
    return error.errno in (errno.EIO, errno.EINVAL, errno.ENOPROTOOPT)
