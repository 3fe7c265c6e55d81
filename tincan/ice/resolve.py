"""Names of STUN and TURN servers, looked up without holding anything up.

getaddrinfo may block for half a minute. asyncio's own executor would hold the process back at
exit for as long, so each lookup has a daemon thread, which nobody waits for.
"""

import asyncio
import contextlib
import errno
import ipaddress
import socket
import threading
from typing import Final

from tincan.device.udp import Address

MAX_LOOKUPS: Final = 16
"""Threads stuck in a dead resolver at one time."""


class Resolver:
    """Looks names up, for all agents of a process together, at most MAX_LOOKUPS at one time."""

    def __init__(self) -> None:
        self._free = threading.BoundedSemaphore(MAX_LOOKUPS)

    async def resolve(self, host: str, port: int) -> list[Address]:
        """Return the addresses of ``host``, best first; raise OSError.

        An address needs no lookup.
        """
        try:
            return [(str(ipaddress.ip_address(host)), port)]
        except ValueError:
            pass
        if not self._free.acquire(blocking=False):
            raise OSError(errno.EAGAIN, "too many names are being looked up")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Address]] = loop.create_future()

        def look_up() -> None:
            found: list[Address] = []
            error: OSError | None = None
            try:
                entries = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
                found = [(str(entry[4][0]), port) for entry in entries]
            except (OSError, UnicodeError) as cause:
                error = OSError(getattr(cause, "errno", None), f"{host}: {cause}")
            finally:
                self._free.release()
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(_deliver, answer, found, error)

        threading.Thread(target=look_up, name=f"resolve {host}", daemon=True).start()
        return await answer


def _deliver(
    answer: "asyncio.Future[list[Address]]", found: list[Address], error: OSError | None
) -> None:
    if answer.done():
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(list(dict.fromkeys(found)))
