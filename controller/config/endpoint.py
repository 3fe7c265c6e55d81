"""Where a server listens: ``HOST:PORT`` as people write it, and the sockets that it means."""

import errno
import ipaddress
import os
import socket
from dataclasses import dataclass
from typing import Final

from controller.errors import SystemRefusal

EVERYWHERE: Final = ("", "*", "::", "[::]")
"""All addresses of both families."""
BACKLOG: Final = 128
"""Connections that the kernel accepts ahead of us."""
RECEIVE_BUFFER: Final = 64 * 1024
"""Bytes; bounds what one wake-up can hand to the parser."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """``host`` is an address, a name, or "" for every address of both families."""

    host: str
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
        elif port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535:
            number = int(port)
        else:
            raise ValueError(f"{text!r}: the port is a number from 0 to 65535")
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


def _split(text: str) -> tuple[str, str | None]:
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


def bind(endpoint: Endpoint, kind: socket.SocketKind, what: str) -> list[socket.socket]:
    """Return non-blocking sockets bound to ``endpoint``, listening if streams; or SystemRefusal.

    One per address; with an empty host one per family, on the same port even if that is 0. A
    family that this machine lacks is left out. ``what`` names the service in the refusal.
    """
    sockets: list[socket.socket] = []
    port = endpoint.port
    missing: OSError | None = None
    try:
        for family, address in _addresses(endpoint, kind):
            try:
                sock = _bound(family, kind, (address, port))
            except OSError as error:
                if error.errno not in _NO_FAMILY:
                    raise
                missing = error
                continue
            sockets.append(sock)
            port = sock.getsockname()[1]
        if missing is not None and not sockets:
            raise missing
    except OSError as error:
        for sock in sockets:
            sock.close()
        protocol = "udp" if kind == socket.SOCK_DGRAM else "tcp"
        raise SystemRefusal(
            f"{what}: cannot listen on {protocol} {endpoint}: {_reason(error)}", _cure(error)
        ) from None
    return sockets


_NO_FAMILY: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


def _addresses(
    endpoint: Endpoint, kind: socket.SocketKind
) -> list[tuple[socket.AddressFamily, str]]:
    if not endpoint.host:
        return [(socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")]
    found = socket.getaddrinfo(endpoint.host, endpoint.port, type=kind, flags=socket.AI_PASSIVE)
    unique = dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found)
    return list(unique)


def _bound(
    family: socket.AddressFamily, kind: socket.SocketKind, address: tuple[str, int]
) -> socket.socket:
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            # Restart while old connections are in TIME_WAIT. Never for UDP: there it would let
            # two servers share the port, and each lose half of the requests.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        sock.bind(address)
        if kind == socket.SOCK_STREAM:
            # Two may bind with SO_REUSEADDR; only listening makes the second one fail.
            sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _reason(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return error.strerror or "no such host"
    return os.strerror(error.errno) if error.errno else str(error)


def _cure(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "another program has it: stop that, or choose another port"
        case errno.EACCES | errno.EPERM:
            return "ports below 1024 need root or CAP_NET_BIND_SERVICE: choose a higher one"
        case errno.EADDRNOTAVAIL:
            return "this machine does not have that address"
        case _:
            return ""
