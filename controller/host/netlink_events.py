"""Word from the kernel that links, addresses, routes or bridge entries changed.

An own socket beside pyroute2's: that one queues without a bound and takes 1 ms to decode one link
message. Here a change only marks what has to be asked for again, with three exceptions whose
content matters and is read in place: bridge entries that are gone, and the MTU and the bridge of
a port. The layouts are those of linux/rtnetlink.h and linux/neighbour.h.
"""

import asyncio
import errno
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from controller.host.interfaces import GoneEntry
from controller.packets.filters import attach, deleted_bridge_entries_only

_SOL_NETLINK: Final = 270
_ADD_MEMBERSHIP: Final = 1
_GROUP_LINK: Final = 1
_GROUP_NEIGHBOUR: Final = 3
_GROUPS: Final = (
    _GROUP_LINK,
    _GROUP_NEIGHBOUR,
    5,
    7,
    9,
    11,
)  # and addresses, routes of both families
_RTM_NEWLINK: Final = 16
_RTM_DELLINK: Final = 17
_RTM_NEWROUTE: Final = 24
_RTM_DELROUTE: Final = 25
_RTM_DELNEIGH: Final = 29
_AF_BRIDGE: Final = 7
_IFLA_MTU: Final = 4
_IFLA_MASTER: Final = 10
_NDA_LLADDR: Final = 2
_NDA_CACHEINFO: Final = 3
_NDA_VLAN: Final = 5
_NDA_MASTER: Final = 9

_HEADER: Final = struct.Struct("=IHHII")
"""Length, type, flags, sequence, port."""
_LINK: Final = struct.Struct("=BxHiII")
"""Family, type, index, flags, change mask."""
_NEIGHBOUR: Final = struct.Struct("=BxxxiHBB")
"""Family, index, state, flags, type."""
_ATTRIBUTE: Final = struct.Struct("=HH")
_USER_HZ: Final = 100.0

RECEIVE_BUFFER: Final = 1 << 20
"""Bytes."""
READ_BUDGET: Final = 64
"""Messages per wake-up."""
MAX_GONE: Final = 4096
"""Entries waiting to be fetched; more count as an overflow."""
DEBOUNCE: Final = 0.1
"""Seconds from a change to the question what it was."""


class NetlinkEvents:
    """Open from construction to ``close``. Raises OSError. Needs a running loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._due: float | None = None
        self._gone: list[GoneEntry] = []
        self._overflow = False
        self.port_mtus: dict[int, dict[int, int]] = {}
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        try:
            attach(self._socket, deleted_bridge_entries_only())
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            self._socket.bind((0, 0))
            for group in _GROUPS:
                self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        except OSError:
            self._socket.close()
            raise
        self._loop.add_reader(self._socket.fileno(), self._readable)

    def close(self) -> None:
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    async def wait(self) -> tuple[list[GoneEntry], bool, bool]:
        """Wait for entries that are gone (at once), or any other change (DEBOUNCE later).

        Returns the entries, whether to ask for the state again, and whether word was lost.
        """
        while not self._gone and not self._is_due():
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._due):
                    await self._wake.wait()
            self._wake.clear()
        gone, self._gone = self._gone, []
        due = self._is_due()
        overflow = due and self._overflow
        if due:
            self._due, self._overflow = None, False
        return gone, due, overflow

    def mark(self) -> None:
        """Make ``wait`` say that the state must be asked for."""
        if self._due is None:
            self._due = self._loop.time() + DEBOUNCE
        self._wake.set()

    def _is_due(self) -> bool:
        return self._due is not None and self._loop.time() >= self._due

    def _readable(self) -> None:
        for _ in range(READ_BUDGET):
            try:
                data = self._socket.recv(65536)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._lost_word()
                continue
            for kind, body in _messages(data):
                self._note(kind, body)

    def _lost_word(self) -> None:
        self._overflow = True
        self.mark()

    def _note(self, kind: int, body: bytes) -> None:
        if kind == _RTM_DELNEIGH:
            entry = _gone_entry(body)
            if entry is None:
                return
            if len(self._gone) < MAX_GONE:
                self._gone.append(entry)
                self._wake.set()
            else:
                self._lost_word()
            return
        if kind in (_RTM_NEWLINK, _RTM_DELLINK):
            self._note_port(kind, body)
        if kind in (_RTM_NEWROUTE, _RTM_DELROUTE) and body[1]:  # rtm_dst_len: no default route
            return
        self.mark()

    def _note_port(self, kind: int, body: bytes) -> None:
        """Keep ``port_mtus``: bridge -> port -> MTU, of ports heard of."""
        family, _, port, _, _ = _LINK.unpack_from(body)
        attributes = dict(_attributes(body[_LINK.size :]))
        master, mtu = attributes.get(_IFLA_MASTER), attributes.get(_IFLA_MTU)
        bridge = _u32(master) if master else 0
        gone = kind == _RTM_DELLINK
        if family == _AF_BRIDGE and not gone:
            return
        for index, ports in list(self.port_mtus.items()):
            if index != bridge or gone:
                ports.pop(port, None)
        if bridge in self.port_mtus and mtu and not gone:
            self.port_mtus[bridge][port] = _u32(mtu)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield kind, data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            return
        yield kind & 0x3FFF, data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3


def _gone_entry(body: bytes) -> GoneEntry | None:
    family, port, _, _, _ = _NEIGHBOUR.unpack_from(body)
    attributes = dict(_attributes(body[_NEIGHBOUR.size :]))
    mac, bridge = attributes.get(_NDA_LLADDR), attributes.get(_NDA_MASTER)
    if family != _AF_BRIDGE or mac is None or len(mac) != 6 or bridge is None:
        return None
    vlan = attributes.get(_NDA_VLAN)
    ages = attributes.get(_NDA_CACHEINFO)  # confirmed, used, updated, references
    return GoneEntry(
        mac=mac.hex(":"),
        vlan=int.from_bytes(vlan, sys.byteorder) if vlan else 0,
        port=port,
        bridge=_u32(bridge),
        silent_for=_u32(ages[8:12]) / _USER_HZ if ages else 0.0,
    )


def _u32(data: bytes) -> int:
    value: int = struct.unpack("=I", data)[0]
    return value
