"""The sockets on which a rendezvous listens."""

import errno
import os
import socket
from typing import Final

from controller.config.endpoint import Endpoint
from controller.errors import SystemRefusal

BACKLOG: Final = 128
"""Connections that the kernel accepts ahead of us."""
RECEIVE_BUFFER_BYTES: Final = 64 * 1024
"""The receive buffer of a connection; it bounds what one wake-up can hand to the parser."""

_NO_FAMILY: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
"""What the kernel says about an address of a family that this machine lacks."""


def bind(endpoint: Endpoint, kind: socket.SocketKind, what: str) -> list[socket.socket]:
    """Return non-blocking sockets bound to ``endpoint``; stream sockets listen already.

    There is one socket for each address; with an empty host one for each family, on the same
    port even if that is 0. A family that this machine lacks is left out. ``what`` names the
    service in the SystemRefusal that is raised if that is not possible.
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


def _addresses(
    endpoint: Endpoint, kind: socket.SocketKind
) -> list[tuple[socket.AddressFamily, str]]:
    """Return each address of the endpoint once; raise OSError if its name has none."""
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
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
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
