"""Notifications of the kernel that links, addresses, routes or bridge entries changed.

The socket is our own: pyroute2's queues without a bound and takes 1 ms to decode one link
message. Here a notification only marks that the state has to be asked for again. Three things
are read in place, because they cannot be asked for later or not cheaply: bridge entries that are
gone, and the MTU and the bridge of a port. The layouts are those of linux/rtnetlink.h and
linux/neighbour.h.
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
from controller.host.packet_socket import attach_filter
from controller.packets.filters import deleted_bridge_entries_only

_SOL_NETLINK: Final = 270
_ADD_MEMBERSHIP: Final = 1
_GROUP_LINK: Final = 1
_GROUP_NEIGHBOUR: Final = 3
_GROUP_IPV4_ADDRESS: Final = 5
_GROUP_IPV4_ROUTE: Final = 7
_GROUP_IPV6_ADDRESS: Final = 9
_GROUP_IPV6_ROUTE: Final = 11
_GROUPS: Final = (
    *(_GROUP_LINK, _GROUP_NEIGHBOUR),
    *(_GROUP_IPV4_ADDRESS, _GROUP_IPV4_ROUTE, _GROUP_IPV6_ADDRESS, _GROUP_IPV6_ROUTE),
)
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
"""struct nlmsghdr: length, type, flags, sequence, port."""
_LINK: Final = struct.Struct("=BxHiII")
"""struct ifinfomsg: family, type, index, flags, change mask."""
_NEIGHBOUR: Final = struct.Struct("=BxxxiHBB")
"""struct ndmsg: family, index, state, flags, type."""
_ATTRIBUTE: Final = struct.Struct("=HH")
"""struct rtattr: length, type."""
_USER_HZ: Final = 100.0
"""Ticks a second in nda_cacheinfo, on every architecture that matters."""

RECEIVE_BUFFER_BYTES: Final = 1 << 20
READ_BUDGET: Final = 64
"""Datagrams read in one wake-up."""
MAX_GONE: Final = 4096
"""Entries that wait to be fetched by ``wait``; more count as an overflow."""
DEBOUNCE_S: Final = 0.1
"""Time from a change to the question for the new state: changes come in bursts."""


class NetlinkEvents:
    """The notification socket, open from construction to ``close``.

    Call ``wait`` again and again. Construction raises OSError and needs a running loop.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._due: float | None = None
        self._gone: list[GoneEntry] = []
        self._overflow = False
        self.port_mtus: dict[int, dict[int, int]] = {}
        """By bridge and port (interface indexes) the MTU, of bridges that the owner put there."""
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        try:
            attach_filter(self._socket, deleted_bridge_entries_only())
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            self._socket.bind((0, 0))
            for group in _GROUPS:
                self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        except OSError:
            self._socket.close()
            raise
        self._loop.add_reader(self._socket.fileno(), self._readable)

    def close(self) -> None:
        """Stop listening."""
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    async def wait(self) -> tuple[list[GoneEntry], bool, bool]:
        """Wait for entries that are gone (at once), or any other change (DEBOUNCE_S later).

        Returns the entries, whether to ask for the state again, and whether notifications were
        lost since the last call.
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
        """Have ``wait`` return after DEBOUNCE_S and say that the state must be asked for."""
        if self._due is None:
            self._due = self._loop.time() + DEBOUNCE_S
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
                self._lose()
                continue
            for kind, body in _messages(data):
                self._note(kind, body)

    def _lose(self) -> None:
        """Note that notifications were lost."""
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
                self._lose()
            return
        if kind in (_RTM_NEWLINK, _RTM_DELLINK):
            self._note_port(kind, body)
        if kind in (_RTM_NEWROUTE, _RTM_DELROUTE) and body[1]:  # rtm_dst_len: no default route
            return
        self.mark()

    def _note_port(self, kind: int, body: bytes) -> None:
        """Keep ``port_mtus`` up to date with a message about a link."""
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
    """Yield the type and the body of each netlink message in ``data``."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield kind, data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the type, without its flags, and the value of each attribute in ``data``."""
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
