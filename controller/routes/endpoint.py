"""Addresses of servers as the Go program writes them: "[::1]:4711", "192.0.2.1:4711", ":4711"."""

import asyncio
import errno
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from controller.errors import RouteError, SystemRefusal
from controller.routes.connection import prepare

MAX_PORT: Final = 65535


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host (a name, an address, or nothing for all addresses) and a TCP port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Endpoint":
        """Return the endpoint that ``text`` names. Raises RouteError."""
        host, colon, port = text.rpartition(":")
        if not colon or not port.isascii() or not port.isdigit() or int(port) > MAX_PORT:
            raise RouteError(f"{text!r} has no port: write [ADDRESS]:PORT or HOST:PORT")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise RouteError(f"{text!r}: write an IPv6 address in brackets: [{host}]:{port}")
        if not host.isprintable() or any(c.isspace() for c in host):
            raise RouteError(f"{text!r} is not an address")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def listen(self, backlog: int) -> socket.socket:
        """Return a socket that takes connections here. Raises SystemRefusal.

        Without a host, or at ::, it takes IPv6 and IPv4.
        """
        both = self.host in ("", "::")
        try:
            found = socket.getaddrinfo(
                self.host or "::", self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            family, _, _, _, address = found[0]
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            raise SystemRefusal(f"{self} cannot be listened at: {error.strerror}") from error
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
            sock.bind(address)
            sock.listen(backlog)
        except OSError as error:
            sock.close()
            cure = "another program is there" if error.errno == errno.EADDRINUSE else ""
            raise SystemRefusal(f"listening at {self} failed: {error.strerror}", cure) from error
        return sock

    async def connect(self) -> socket.socket:
        """Return a connected socket, by the first of the host's addresses that answers.

        Raises OSError.
        """
        loop = asyncio.get_running_loop()
        failure = OSError(errno.EADDRNOTAVAIL, "no address")
        found = await loop.getaddrinfo(self.host or "::1", self.port, type=socket.SOCK_STREAM)
        for family, kind, _, _, address in found:
            sock = socket.socket(family, kind)
            try:
                sock.setblocking(False)
                await loop.sock_connect(sock, address)
                prepare(sock)
            except OSError as error:
                sock.close()
                failure = error
            except BaseException:
                with suppress(OSError):
                    sock.close()
                raise
            else:
                return sock
        raise failure
