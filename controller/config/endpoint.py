"""``HOST:PORT`` as people write it: the value, and the two ways to read one.

``Endpoint.parse`` reads where a server shall listen: every address and port 0 are possible.
``server`` reads, as a check of the configuration, a server to be asked: it has a host and a port.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from controller.config.values import Place, host, quoted, text

EVERYWHERE: Final = ("", "*", "::", "[::]")
"""The ways to write all addresses of both families."""
STUN_PORT: Final = 3478
"""UDP port of STUN and TURN servers (RFC 8489 section 8.1)."""
MAX_PORT: Final = 65535


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host and a port."""

    host: str
    """An address without brackets, a name, or "" for every address of both families."""
    port: int

    @classmethod
    def parse(cls, text: str, default_port: int | None = None) -> "Endpoint":
        """Return the endpoint that ``text`` means; raise ValueError with one line.

        ``HOST:PORT``, ``[IPV6]:PORT``, ``:PORT``, ``*:PORT``; ``HOST`` alone if there is a
        ``default_port``. Port 0 lets the kernel choose.
        """
        host, port = _split(text)
        if port is None:
            if default_port is None:
                raise ValueError(f"{text!r} has no port; write HOST:PORT")
            number = default_port
        else:
            parsed = _port(port)
            if parsed is None:
                raise ValueError(f"{text!r}: the port is a number from 0 to {MAX_PORT}")
            number = parsed
        if host in EVERYWHERE:
            return cls("", number)
        if ":" in host:
            try:
                ipaddress.IPv6Address(host)
            except ValueError:
                raise ValueError(f"{text!r}: not an IPv6 address") from None
        elif any(c.isspace() or c in "/[]@" for c in host):
            raise ValueError(f"{text!r}: not a host name or address; write HOST:PORT")
        return cls(host, number)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host or "*"
        return f"{host}:{self.port}"


def server(value: object, place: Place) -> Endpoint:
    """Check for ``host:port``, an IPv6 address in brackets: ``[2001:db8::1]:3478``."""
    given = text(value, place)
    cure = 'write "host:port", an IPv6 address in brackets: "[2001:db8::1]:3478"'
    malformed = place.wrong(f"{quoted(given)} is not host:port", cure)
    if "://" in given or re.match(r"(stuns?|turns?):", given):
        raise place.wrong(f"{quoted(given)} is a URL", 'write only "host:port"')
    try:
        name, port = _split(given)
    except ValueError:
        raise malformed from None
    bracketed = given.startswith("[")
    if not port or not (name or bracketed):
        raise malformed
    number = _port(port)
    if not number:
        raise place.wrong(f"port {quoted(port)} is not a number from 1 to {MAX_PORT}", cure)
    return Endpoint(_ip6(name, place, cure) if bracketed else host(name, place), number)


def _ip6(address: str, place: Place, cure: str) -> str:
    """Return an IPv6 address that stood in brackets in its usual spelling."""
    try:
        return str(ipaddress.IPv6Address(address))
    except ValueError:
        raise place.wrong(f"{quoted(f'[{address}]')} is not an IPv6 address", cure) from None


def listener(value: object, place: Place) -> Endpoint:
    """Check for ``HOST:PORT`` to listen on; ``*:PORT`` is every address of both families."""
    cure = 'write "HOST:PORT", or "*:PORT" for every address of this host'
    try:
        endpoint = Endpoint.parse(text(value, place))
    except ValueError as error:
        raise place.wrong(str(error), cure) from None
    if endpoint.port == 0:
        raise place.wrong("has port 0", cure)
    return endpoint


def _port(digits: str) -> int | None:
    """Return the number of a port, or None if ``digits`` is none."""
    if digits.isascii() and digits.isdigit() and len(digits) <= 5 and int(digits) <= MAX_PORT:
        return int(digits)
    return None


def _split(text: str) -> tuple[str, str | None]:
    """Return the host without brackets, and what follows the colon, None if there is none.

    Raises ValueError with one line.
    """
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r}: an IPv6 address is written as [ADDRESS]:PORT")
        return host, rest[1:] if rest else None
    if text in EVERYWHERE:
        return "", None
    if text.count(":") > 1:
        raise ValueError(f"{text!r}: an IPv6 address is written as [ADDRESS]:PORT")
    host, colon, port = text.partition(":")
    return host, port if colon else None
