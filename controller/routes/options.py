"""The values of the command line, as the Go program writes them. Pure; each raises ConfigError."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeVar

from controller.errors import ConfigError, RouteError
from controller.routes.machine import MAX_KEEPALIVE_S
from controller.routes.values import MAX_PORT, Destination, NextHop, NextHopType, Vni

MAX_VNI: Final = (1 << 24) - 1
MAX_TABLE: Final = (1 << 32) - 1
RESERVED_TABLES: Final = {0: "unspecified", 255: "the kernel's local table"}
TYPES: Final = {
    "std": NextHopType.STANDARD,
    "lb": NextHopType.LOADBALANCER_TARGET,
    "nat": NextHopType.NAT,
}
_ANNOUNCEMENT: Final = "write VNI#PREFIX#HOP, VNI#PREFIX#HOP#STD|LB or VNI#PREFIX#HOP#NAT#FROM#TO"

T = TypeVar("T")


class Announcement(NamedTuple):
    """One route to announce."""

    vni: Vni
    destination: Destination
    hop: NextHop


def each(values: Sequence[str] | None, read: Callable[[str, str], T], place: str) -> list[T]:
    """Return what ``read`` makes of each value of an option that repeats or takes commas."""
    words = [word.strip() for value in values or () for word in value.split(",")]
    return [read(word, f"{place} {word}") for word in words]


def vni(text: str, place: str) -> Vni:
    """Return a VNI of 24 bits."""
    return Vni(_number(text, place, "a VNI", 0, MAX_VNI))


def keepalive(text: str, place: str) -> int:
    """Return an interval in seconds. 0 stands for the usual one, as in the Go program."""
    return _number(text, place, "an interval in seconds", 0, MAX_KEEPALIVE_S)


def announcement(text: str, place: str) -> Announcement:
    """Return the route of VNI#PREFIX#HOP[#STD|LB|NAT[#FROM#TO]]."""
    parts = text.split("#")
    if len(parts) not in (3, 4, 6):
        raise ConfigError(place, f"{len(parts)} parts are not 3, 4 or 6", _ANNOUNCEMENT)
    network = vni(parts[0], place)
    kind = _type(parts[3], place) if len(parts) > 3 else NextHopType.STANDARD
    ports = None
    if kind is NextHopType.NAT:
        if len(parts) != 6:
            raise ConfigError(place, "a NAT has no ports", _ANNOUNCEMENT)
        first, last = (_number(part, place, "a port", 0, MAX_PORT) for part in parts[4:])
        if first > last:
            raise ConfigError(place, f"the ports {first} to {last} are none", "the lower one first")
        ports = first, last
    elif len(parts) == 6:
        raise ConfigError(place, f"ports, but {parts[3]} is not NAT", _ANNOUNCEMENT)
    try:
        return Announcement(
            network, Destination.parse(parts[1]), NextHop.parse(parts[2], kind, ports=ports)
        )
    except RouteError as error:
        raise ConfigError(place, str(error), _ANNOUNCEMENT) from error


def table(text: str, place: str) -> tuple[Vni, int]:
    """Return the VNI and the route table of VNI#TABLE."""
    parts = text.split("#")
    if len(parts) != 2:
        raise ConfigError(place, "is not VNI#TABLE", "write, for example, 23#100")
    number = _number(parts[1], place, "a route table", 0, MAX_TABLE)
    if number in RESERVED_TABLES:
        raise ConfigError(place, f"table {number} is {RESERVED_TABLES[number]}", "take another")
    return vni(parts[0], place), number


def _type(text: str, place: str) -> NextHopType:
    """Return the type whose name is in ``text``, as the Go program finds it, in any case."""
    for name, kind in TYPES.items():
        if name in text.lower():
            return kind
    raise ConfigError(place, f"{text} is no type of next hop", "write STD, LB or NAT")


def _number(text: str, place: str, what: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 20 or not least <= int(text) <= most:
        raise ConfigError(place, f"{text or 'nothing'} is not {what}", f"write {least} to {most}")
    return int(text)
