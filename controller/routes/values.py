"""What routes are made of: a VNI, a destination in it, and a next hop.

They hold addresses as bytes, as the wire does, because a reflector compares and stores many and
shows few. The identity of a route is all of it: the VNI, the destination with its host bits, and
each field of the next hop.
"""

import ipaddress
from enum import IntEnum
from functools import lru_cache
from typing import Final, NamedTuple, NewType

from controller.errors import RouteError

Vni = NewType("Vni", int)
"""A virtual network's number: 32 bits on the wire, 24 on the command line."""

MAX_VNI: Final = (1 << 32) - 1
MAX_TARGET_VNI: Final = (1 << 32) - 1
MAX_PORT: Final = (1 << 16) - 1
MAX_TYPE: Final = (1 << 31) - 1
"""The largest number of a protobuf enum."""
ADDRESS_BITS: Final = {4: 32, 16: 128}
"""The bits of an address by its length in bytes: 4 is IPv4, 16 is IPv6."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Prefix = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class IpVersion(IntEnum):
    """The IP version of a destination, numbered as in the Go package and the HTTP pages."""

    IPV4 = 4
    IPV6 = 6


class NextHopType(IntEnum):
    """The kinds of next hops that version 1 of the protocol has."""

    STANDARD = 0
    NAT = 1
    LOADBALANCER_TARGET = 2


class Destination(NamedTuple):
    """A prefix: an address of 4 or 16 bytes, and the number of its leading bits that count.

    ``marked`` is the IP version that its announcer wrote beside it, if it is another than the
    address' own, which the Go program lets pass; 0 otherwise.
    """

    address: bytes
    length: int
    marked: int = 0

    @classmethod
    def parse(cls, text: str) -> "Destination":
        """Return the destination that ``text`` ("10.0.1.0/24") names. Raises RouteError."""
        if "/" not in text:
            raise RouteError(f"{text} is not a prefix: it has no /LENGTH")
        try:
            prefix = ipaddress.ip_interface(text)
        except ValueError as error:
            raise RouteError(f"{text} is not a prefix") from error
        if prefix.version == 6 and prefix.scope_id:
            raise RouteError(f"{text} is not a prefix: it names an interface")
        return cls(prefix.packed, prefix.network.prefixlen)

    @property
    def version(self) -> IpVersion:
        """The IP version of the prefix, as its announcer wrote it."""
        return IpVersion(self.marked or (4 if len(self.address) == 4 else 6))

    @property
    def prefix(self) -> Prefix:
        """The prefix with its host bits, if it has any."""
        return ipaddress.ip_interface((self.address, self.length))

    @property
    def network(self) -> Network:
        """The prefix without host bits, as a kernel takes it."""
        return self.prefix.network

    def __str__(self) -> str:
        return f"{_written(self.address)}/{self.length}"


class NextHop(NamedTuple):
    """The node to which packets for a destination go, and what it does with them.

    ``type`` is a NextHopType, or a number of a later version, which is passed on as it came. The
    port range belongs to type NAT and is 0 otherwise.
    """

    address: bytes
    target_vni: int = 0
    type: int = NextHopType.STANDARD
    nat_port_range_from: int = 0
    nat_port_range_to: int = 0

    @classmethod
    def parse(
        cls,
        text: str,
        type: NextHopType = NextHopType.STANDARD,
        *,
        target_vni: int = 0,
        ports: tuple[int, int] | None = None,
    ) -> "NextHop":
        """Return the next hop at the address ``text``. Raises RouteError.

        ``ports`` is the first and the last port of a NAT, and nothing else's.
        """
        try:
            address = ipaddress.ip_address(text)
        except ValueError as error:
            raise RouteError(f"{text} is not an address") from error
        if address.version == 6 and address.scope_id:
            raise RouteError(f"{text} is not an address for others: it names an interface")
        if (ports is not None) != (type is NextHopType.NAT):
            raise RouteError(f"next hop {text}: a port range belongs to type NAT, and only to it")
        return check_hop(cls(address.packed, target_vni, type, *(ports or (0, 0))))

    @property
    def target_address(self) -> Address:
        """The address of the next hop."""
        return ipaddress.ip_address(self.address)

    def __str__(self) -> str:
        vni = f" (VNI: {self.target_vni})" if self.target_vni else ""
        return f"{_written(self.address)}{vni}"


def check_vni(vni: int) -> Vni:
    """Return the VNI if the wire can carry it. Raises RouteError."""
    if not 0 <= vni <= MAX_VNI:
        raise RouteError(f"{vni} is not a VNI: 0 to {MAX_VNI}")
    return Vni(vni)


def check_destination(destination: Destination) -> Destination:
    """Return the destination if it is a prefix. Raises RouteError."""
    bits = ADDRESS_BITS.get(len(destination.address))
    if bits is None or not 0 <= destination.length <= bits or destination.marked not in (0, 4, 6):
        raise RouteError(
            f"{destination.address.hex()}/{destination.length} is not a prefix: 4 or 16 bytes,"
            " and at most as many bits"
        )
    return destination


def check_hop(hop: NextHop) -> NextHop:
    """Return the next hop if the wire can carry it as it is. Raises RouteError."""
    if len(hop.address) not in ADDRESS_BITS:
        raise RouteError(f"{hop.address.hex()} is not the address of a next hop: 4 or 16 bytes")
    if not 0 <= hop.target_vni <= MAX_TARGET_VNI:
        raise RouteError(f"next hop {hop}: {hop.target_vni} is not a VNI: 0 to {MAX_TARGET_VNI}")
    if not 0 <= hop.type <= MAX_TYPE:
        raise RouteError(f"next hop {hop}: {hop.type} is not a type")
    ports = hop.nat_port_range_from, hop.nat_port_range_to
    if hop.type == NextHopType.NAT:
        if not 0 <= ports[0] <= ports[1] <= MAX_PORT:
            raise RouteError(f"next hop {hop}: {ports[0]} to {ports[1]} is not a range of ports")
    elif ports != (0, 0):
        raise RouteError(f"next hop {hop}: a port range belongs to type NAT, and only to it")
    return hop


@lru_cache(4096)
def _written(address: bytes) -> str:
    return str(ipaddress.ip_address(address))
