"""Checks of single values of the configuration: one function for each kind of value. Pure.

A check takes the plain value that the file holds and its ``Place`` in the file. It returns the
value in the type that the program uses, or raises ConfigError with the place, the problem and
the cure.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from controller.errors import ConfigError
from controller.packets.addresses import MAC

T = TypeVar("T")
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_INTERFACE_BYTES: Final = 15
"""The longest name of a network interface: IFNAMSIZ - 1 (linux/if.h)."""
MAX_VID: Final = 4094
"""The highest VLAN id; 4095 is reserved (IEEE 802.1Q)."""
MAX_SHOWN: Final = 40
"""Characters of a wrong value that an error's one line shows."""
MAX_NODE_NAME_BYTES: Final = 64
MAX_HOST_NAME: Final = 253
"""Characters of a DNS name (RFC 1035 section 2.3.4, without the length bytes at both ends)."""

_KINDS: Final = {
    bool: "a boolean",
    str: "text",
    int: "a whole number",
    float: "a number with a fraction",
    list: "a list",
    dict: "an object",
    type(None): "null",
}
_HOST_NAME: Final = re.compile(
    r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?"
)


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a value, as errors name it."""

    file: str
    """The file's name as the user gave it."""
    path: str = ""
    """The way to the value from the top of the file: ``turn[0].server``; "" is the top."""

    def __truediv__(self, step: str | int) -> "Place":
        """Return the place of one entry of the object or list that stands here."""
        if isinstance(step, int):
            return Place(self.file, f"{self.path}[{step}]")
        key = shown(step) if step else '""'
        return Place(self.file, f"{self.path}.{key}" if self.path else key)

    def wrong(self, problem: str, cure: str) -> ConfigError:
        """Return the error to raise about the value that stands here."""
        return ConfigError(f"{self.file}: {self.path}" if self.path else self.file, problem, cure)


Check = Callable[[object, Place], T]


def shown(value: object) -> str:
    """Return ``value`` as text that is short enough for an error message."""
    text = value if isinstance(value, str) else kind_of(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def kind_of(value: object) -> str:
    """Return what people call the type of a value that came from JSON or YAML."""
    return _KINDS.get(type(value), f"a {type(value).__name__}")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the one of ``known`` that was probably meant by ``word``; None if none is close."""
    spelled = {entry.lower(): entry for entry in known}
    matches = get_close_matches(word[:64].lower(), spelled, n=1)
    return spelled[matches[0]] if matches else None


def text(value: object, place: Place) -> str:
    """Check for printable text on one line."""
    if not isinstance(value, str):
        cure = "put it in quotes" if isinstance(value, (bool, int, float)) else "give text"
        raise place.wrong(f"is {kind_of(value)} where text is expected", cure)
    if not value.strip():
        raise place.wrong("is empty", "give it a value, or leave the key out")
    if not value.isprintable():  # control characters, line ends, lone surrogates
        raise place.wrong("has characters that cannot be printed", "remove them")
    return value


def boolean(value: object, place: Place) -> bool:
    """Check for ``true`` or ``false``; nothing that only looks like them."""
    if not isinstance(value, bool):
        raise place.wrong(f"is {kind_of(value)}", "write true or false, without quotes")
    return value


def whole(low: int, high: int) -> Check[int]:
    """Return a check for a whole number from ``low`` to ``high``."""

    def check(value: object, place: Place) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            cure = f"write a whole number from {low} to {high}, without quotes"
            raise place.wrong(f"is {kind_of(value)}", cure)
        if not low <= value <= high:
            problem = f"{value} is out of range" if abs(value) < 10**9 else "is out of range"
            raise place.wrong(problem, f"choose a number from {low} to {high}")
        return value

    return check


def one_of(*words: str) -> Check[str]:
    """Return a check for one of a few words."""

    def check(value: object, place: Place) -> str:
        if value not in words:
            guess = nearest(value, words) if isinstance(value, str) else None
            listed = ", ".join(f'"{word}"' for word in words)
            cure = f'did you mean "{guess}"?' if guess else f"write one of {listed}"
            raise place.wrong(f"is {quoted(value)}", cure)
        return value

    return check


def list_of(check: Check[T], most: int) -> Check[tuple[T, ...]]:
    """Return a check for a list of up to ``most`` values of one kind."""

    def check_list(value: object, place: Place) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise place.wrong(f"is {kind_of(value)} where a list is expected", "write [ ... ]")
        if len(value) > most:
            raise place.wrong(f"has {len(value)} entries", f"keep it to {most}")
        return tuple(check(entry, place / i) for i, entry in enumerate(value))

    return check_list


def fields(
    value: object,
    place: Place,
    known: Mapping[str, Check[Any]],
    required: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Check for an object with no other keys than ``known`` ones and all ``required`` ones.

    Returns the checked values by key. ``required`` gives an example for each key, which the
    error shows if the key is missing.
    """
    if not isinstance(value, dict):
        example = ", ".join(f'"{key}": {what}' for key, what in required.items())
        cure = f"write {{{example}}}" if example else "write { ... }"
        raise place.wrong(f"is {kind_of(value)} where an object is expected", cure)
    for key in value:
        if key not in known:
            raise unknown_key(key, place, known)
    for key, what in required.items():
        if key not in value:
            raise (place / key).wrong("is missing", f'add "{key}": {what}')
    return {key: known[key](entry, place / key) for key, entry in value.items()}


def unknown_key(key: object, place: Place, known: Iterable[str]) -> ConfigError:
    """Return the error about a key that nobody reads, with the likeliest correction."""
    if not isinstance(key, str):
        return place.wrong(f"has {kind_of(key)} as a key", "put it in quotes")
    guess = nearest(key, known)
    cure = f'did you mean "{guess}"?' if guess else f"known keys: {', '.join(sorted(known))}"
    return (place / key).wrong("unknown key", cure)


def host(value: object, place: Place) -> str:
    """Check for a DNS name or an IP address, the latter without brackets; respell the latter."""
    name = text(value, place)
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        pass
    looks_like_ip4 = name.replace(".", "").isdigit()
    if looks_like_ip4 or len(name) > MAX_HOST_NAME or not _HOST_NAME.fullmatch(name):
        raise place.wrong(f"{quoted(name)} is not a host", "give a DNS name or an IP address")
    return name


def signal_url(value: object, place: Place) -> str:
    """Check for a ``ws://`` or ``wss://`` URL of a rendezvous."""
    given = text(value, place)
    example = 'write "ws://HOST:8765" or "wss://HOST"'
    try:
        url = urlsplit(given)
        name, port = url.hostname, url.port
    except ValueError as error:  # unbalanced brackets, a port that is no number or too high
        raise place.wrong(f"{quoted(given)} is not a URL ({error})", example) from None
    if url.scheme not in ("ws", "wss"):
        problem = f'has the scheme "{shown(url.scheme)}"' if "://" in given else "has no scheme"
        raise place.wrong(f"{quoted(given)} {problem}", example)
    if not name or port == 0:
        raise place.wrong(f"{quoted(given)} has no {'port' if name else 'host'}", example)
    host(name, place)
    if url.username is not None or url.password is not None:
        raise place.wrong("the URL has a user or a password", "the network's secret is enough")
    if url.fragment or " " in given:
        raise place.wrong(f"{quoted(given)} has a fragment or a space", "remove it")
    return given


def interface(value: object, place: Place) -> str:
    """Check for an interface's name that the kernel (dev_valid_name) and our files allow."""
    name = text(value, place)
    size = len(name.encode())
    if size > MAX_INTERFACE_BYTES:
        cure = f"choose a name of at most {MAX_INTERFACE_BYTES}"
        raise place.wrong(f"{quoted(name)} is {size} bytes long", cure)
    if not name.isascii() or name in (".", "..", "all", "default") or re.search(r"[\s/:%]", name):
        cure = "use letters, digits, '.', '_' and '-'"
        raise place.wrong(f"{quoted(name)} is not a name for a network interface", cure)
    return name


def network_name(value: object, place: Place) -> str:
    """Check for an overlay's name, which is part of the names of two directories."""
    name = text(value, place)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        cure = "use up to 64 letters, digits, '.', '_' and '-', the first a letter or digit"
        raise place.wrong(f"{quoted(name)} cannot be used in the name of a directory", cure)
    return name


def node_name(value: object, place: Place) -> str:
    """Check for a node's name for people: up to MAX_NODE_NAME_BYTES of printable text."""
    name = text(value, place)
    if len(name.encode()) > MAX_NODE_NAME_BYTES:
        raise place.wrong(f"is longer than {MAX_NODE_NAME_BYTES} bytes", "choose a shorter name")
    return name


def directory(value: object, place: Place) -> Path:
    """Check for an absolute path: a daemon's working directory means nothing to its user."""
    path = Path(text(value, place))
    if not path.is_absolute():
        raise place.wrong(f"{quoted(str(path))} is not absolute", "start it with /")
    return path


def ip(value: object, place: Place) -> str:
    """Check for the address of one machine, IPv4 or IPv6; return it in its usual spelling."""
    given = text(value, place)
    try:
        address = ipaddress.ip_address(given)
    except ValueError:
        raise place.wrong(
            f"{quoted(given)} is not an IP address", 'write one like "10.0.3.5" or "fd00::5"'
        ) from None
    _check_owned(address, place)
    return str(address)


def ip4(value: object, place: Place) -> ipaddress.IPv4Address:
    """Check for an IPv4 address that a machine can have."""
    given = text(value, place)
    if "/" in given:
        raise place.wrong(f"{quoted(given)} has a prefix length", 'put it in "ip4_mask"')
    try:
        address = ipaddress.IPv4Address(given)
    except ValueError:
        raise place.wrong(
            f"{quoted(given)} is not an IPv4 address", 'write one like "10.0.3.5"'
        ) from None
    _check_owned(address, place)
    return address


def ip6(value: object, place: Place) -> ipaddress.IPv6Interface:
    """Check for an IPv6 address that a machine can have, with its prefix length (64 if absent)."""
    given = text(value, place)
    if "%" in given:
        raise place.wrong(f"{quoted(given)} names an interface", "leave out the % and its name")
    try:
        address = ipaddress.IPv6Interface(given if "/" in given else given + "/64")
    except ValueError:
        raise place.wrong(
            f"{quoted(given)} is not an IPv6 address", 'write one like "fd00::5/64"'
        ) from None
    _check_owned(address.ip, place)
    return address


def prefix(value: object, place: Place) -> IpNetwork:
    """Check for a network: an address with a prefix length and no bits set behind it."""
    given = text(value, place)
    cure = 'write one like "10.0.3.128/25"'
    try:
        wide = ipaddress.ip_network(given, strict=False)
        network = ipaddress.ip_interface(given)
    except ValueError:
        raise place.wrong(f"{quoted(given)} is not a network", cure) from None
    if network.ip != wide.network_address:
        cure = f'write "{wide}", or "{network.ip}/{network.max_prefixlen}" for one address'
        raise place.wrong(f"{quoted(given)} has bits set behind the prefix", cure)
    return wide


def mac(value: object, place: Place) -> str:
    """Check for a unicast MAC address; return it in lower case."""
    address = text(value, place).lower().replace("-", ":")
    if not MAC.fullmatch(address):
        raise place.wrong(
            f"{quoted(value)} is not a MAC address", 'write one like "00:16:3e:01:02:03"'
        )
    if int(address[:2], 16) & 1 or address == "00:00:00:00:00:00":
        raise place.wrong(f"{quoted(address)} belongs to no single machine", "give its own MAC")
    return address


def _check_owned(address: IpAddress, place: Place) -> None:
    """Refuse an address that no machine on a segment can own."""
    if address.is_unspecified or address.is_multicast or address.is_loopback:
        raise place.wrong(f'"{address}" is no machine\'s address', "give a unicast address")
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        raise place.wrong(f'"{address}" names an interface', "leave out the % and what follows")
    if address == ipaddress.IPv4Address("255.255.255.255"):
        raise place.wrong(f'"{address}" is the broadcast address', "give a unicast address")


def quoted(value: object) -> str:
    """Return ``value`` as an error shows it: text in quotes, anything else as its kind."""
    return f'"{shown(value)}"' if isinstance(value, str) else shown(value)
