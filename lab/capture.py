"""Frames seen on an interface, through an AF_PACKET socket that was opened in its namespace.

No tcpdump process: the socket is open when the context is entered, so that nothing is missed,
and every frame that was on the interface before it is left is in the list.
"""

from __future__ import annotations

import ctypes
import functools
import os
import select
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from lab.errors import LabError

ETH_P_ALL = 3
SOL_PACKET = 263
PACKET_ADD_MEMBERSHIP = 1
PACKET_AUXDATA = 8
PACKET_MR_PROMISC = 1
PACKET_OUTGOING = 4
SO_ATTACH_FILTER = 26
SO_RCVBUFFORCE = 33
TP_STATUS_VLAN_VALID = 1 << 4
TP_STATUS_VLAN_TPID_VALID = 1 << 6


@dataclass(frozen=True)
class Frame:
    """An Ethernet frame: when it was seen (time.monotonic()), its bytes with the VLAN tag put
    back, and whether this namespace was sending it."""

    time: float
    data: bytes
    outgoing: bool

    @property
    def packet(self) -> Any:
        """The frame as a scapy packet."""
        from scapy.layers import inet, inet6, l2  # noqa: F401  (the import registers the layers)

        return l2.Ether(self.data)


@functools.cache
def compile_filter(expression: str) -> bytes:
    """The classic BPF program for `expression`, as an array of struct sock_filter."""
    result = subprocess.run(
        ["tcpdump", "-ddd", "-y", "EN10MB", "-s", "65535", expression],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin"},
    )
    if result.returncode:
        raise LabError(f"filter {expression!r}: {result.stderr.strip()}")
    lines = result.stdout.split("\n")[1:]
    return b"".join(struct.pack("=HBBI", *map(int, line.split())) for line in lines if line)


@dataclass
class Capture:
    """Frames on `interface`: iterate, `len()`, `wait()`, while it runs or afterwards."""

    open_socket: Callable[[], socket.socket]
    interface: str
    filter: str = ""
    frames: list[Frame] = field(default_factory=list)
    dropped: int = 0

    def __enter__(self) -> Capture:
        sock = self.open_socket()
        # Unbound, a socket of protocol 0 receives nothing: filter first, then bind.
        if self.filter:
            program = compile_filter(self.filter)
            buffer = ctypes.create_string_buffer(program, len(program))
            header = struct.pack("HL", len(program) // 8, ctypes.addressof(buffer))
            sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, header)
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 32 << 20)
        sock.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        sock.bind((self.interface, ETH_P_ALL))
        index = struct.unpack("I", self._ifindex(sock))[0]
        membership = struct.pack("IHH8s", index, PACKET_MR_PROMISC, 0, b"")
        sock.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, membership)
        sock.setblocking(False)
        self._socket = sock
        self._stop_read, self._stop_write = os.pipe()
        self._thread = threading.Thread(target=self._read, name=f"capture {self.interface}")
        self._thread.daemon = True
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._stop_write)
        self._thread.join()
        os.close(self._stop_read)
        statistics = self._socket.getsockopt(SOL_PACKET, 6, 8)  # PACKET_STATISTICS
        self.dropped = struct.unpack("II", statistics)[1]
        self._socket.close()

    def __iter__(self) -> Iterator[Frame]:
        return iter(list(self.frames))

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def packets(self) -> list[Any]:
        """The frames as scapy packets."""
        return [frame.packet for frame in list(self.frames)]

    def wait(
        self, count: int = 1, timeout: float = 5, where: Callable[[Any], bool] = lambda _: True
    ) -> list[Any]:
        """Wait for `count` frames for whose scapy packet `where` is true, and return them.

        Raises LabError after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        seen = 0
        found: list[Any] = []
        while True:
            new = self.frames[seen:]
            seen += len(new)
            found += [packet for frame in new if where(packet := frame.packet)]
            if len(found) >= count:
                return found
            if time.monotonic() > deadline:
                raise LabError(
                    f"{self.interface}: {len(found)} of {count} frames ({self.filter or 'any'}) "
                    f"within {timeout} s"
                )
            time.sleep(0.01)

    def clear(self) -> None:
        """Forget what was seen so far."""
        self.frames = []

    def summary(self) -> str:
        """The frames as scapy's one-line summaries."""
        return "\n".join(packet.summary() for packet in self.packets)

    def _ifindex(self, sock: socket.socket) -> bytes:
        import fcntl

        request = struct.pack("16sI20x", self.interface.encode(), 0)
        return fcntl.ioctl(sock.fileno(), 0x8933, request)[16:20]  # SIOCGIFINDEX

    def _read(self) -> None:
        stopping = False
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._stop_read, select.POLLIN)
        while True:
            if not stopping:
                stopping = self._stop_read in dict(poll.poll())
            try:
                data, ancillary, _, address = self._socket.recvmsg(70000, 256)
            except BlockingIOError:
                if stopping:
                    return
                continue
            except OSError:  # the interface went down: a capture goes on when it is back
                if stopping:
                    return
                continue
            outgoing = address[2] == PACKET_OUTGOING
            self.frames.append(Frame(time.monotonic(), _retag(data, ancillary), outgoing))


def _retag(data: bytes, ancillary: list[tuple[int, int, bytes]]) -> bytes:
    """Put the VLAN tag back that the kernel has moved to the auxiliary data (packet(7))."""
    for level, kind, content in ancillary:
        if level == SOL_PACKET and kind == PACKET_AUXDATA:
            status, _, _, _, _, tci, tpid = struct.unpack_from("=IIIHHHH", content)
            if status & TP_STATUS_VLAN_VALID:
                tpid = tpid if status & TP_STATUS_VLAN_TPID_VALID else 0x8100
                return data[:12] + struct.pack("!HH", tpid, tci) + data[12:]
    return data
