"""AF_PACKET sockets: the frames of one interface, filtered before they enter the queue.

The option numbers and layouts are those of linux/if_packet.h and linux/filter.h.
"""

import ctypes
import socket
import struct
from typing import Final

from controller.packets.addresses import Vlan

_SO_ATTACH_FILTER: Final = 26
_SO_RCVBUFFORCE: Final = 33
_SOL_PACKET: Final = 263
_PACKET_STATISTICS: Final = 6
_PACKET_AUXDATA: Final = 8
_ETH_P_ALL: Final = 3
_AUXDATA: Final = struct.Struct("=I12xH2x")
"""struct tpacket_auxdata: status and vlan_tci; the lengths and offsets between are skipped."""
_TP_STATUS_VLAN_VALID: Final = 1 << 4
_INSTRUCTION_BYTES: Final = 8
"""struct sock_filter."""


def open_packet_socket(
    interface: str, program: bytes, receive_buffer: int, *, vlans: bool = False
) -> socket.socket:
    """Return a non-blocking socket for the frames of ``interface`` that ``program`` accepts.

    ``program`` is one of ``packets.filters``; ``receive_buffer`` is in bytes. With ``vlans``,
    ``recvmsg`` tells the tag of each frame, which ``vlan_of`` reads. Raises OSError. Needs
    CAP_NET_RAW.
    """
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    try:
        attach_filter(sock, program)
        if vlans:
            sock.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, receive_buffer)
        except PermissionError:  # without CAP_NET_ADMIN, up to net.core.rmem_max
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        # Bound only now, so that nothing unfiltered ever enters the queue.
        sock.bind((interface, _ETH_P_ALL))
    except OSError:
        sock.close()
        raise
    return sock


def attach_filter(sock: socket.socket, program: bytes) -> None:
    """Replace the filter of ``sock``, of any family, at once. Raises OSError."""
    buffer = ctypes.create_string_buffer(program, len(program))
    filter_program = struct.pack(
        "HP", len(program) // _INSTRUCTION_BYTES, ctypes.addressof(buffer)
    )  # struct sock_fprog
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_program)


def overrun(sock: socket.socket) -> int:
    """Return how many frames found the queue full since the last call, and were dropped."""
    _, dropped = struct.unpack("=II", sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
    return int(dropped)


def vlan_of(ancillary: list[tuple[int, int, bytes]]) -> Vlan | None:
    """Return the VLAN of the tag that the kernel took off a frame; None if it took none.

    ``ancillary`` is what ``recvmsg`` returned with the frame.
    """
    status: int
    tci: int
    for level, kind, data in ancillary:
        if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA) and len(data) >= _AUXDATA.size:
            status, tci = _AUXDATA.unpack_from(data)
            return tci & 0xFFF if status & _TP_STATUS_VLAN_VALID else None
    return None
