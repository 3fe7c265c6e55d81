"""The control socket: the messages on it, and the side that asks a running controller.

    -> {"method": "status", "params": {}}\n
    <- {"result": ...}\n   or   {"error": "text for the user"}\n

There is one request for each connection of an AF_UNIX stream socket in ``run_dir``. The answering
side is ``operator.server``. The asking side does without asyncio, which would be a third of the
time that ``controller status`` takes.
"""

import errno
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from controller.errors import ControlError, SystemRefusal
from tincan.control.codec import UNSET, DecodeError, Struct, UnsetType, decode, encode, field

MAX_REQUEST_BYTES: Final = 1 << 16
"""The longest request, with its line end."""
MAX_RESPONSE_BYTES: Final = 64 << 20
"""The longest response; 100,000 bindings take 12 MB."""
DEADLINE_S: Final = 5.0
"""Time for a whole call."""


class Request(Struct):
    """The request of a subcommand."""

    method: str
    params: dict[str, Any] = field(default_factory=dict)


class Response(Struct, omit_defaults=True):
    """The answer of the controller: one of the two fields."""

    result: Any | UnsetType = UNSET
    error: str | UnsetType = UNSET


def call(
    path: Path, method: str, params: dict[str, Any] | None = None, deadline: float = DEADLINE_S
) -> Any:
    """Return the result of ``method`` from the controller that listens on ``path``.

    Raises SystemRefusal if no controller answers within ``deadline`` seconds, ControlError if
    it refuses the request or answers nonsense.
    """
    until = time.monotonic() + deadline
    request = encode(Request(method, params or {})) + b"\n"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(deadline)
            connection.connect(str(path))
            with suppress(BrokenPipeError):  # it may have refused us unheard: read why
                connection.sendall(request)
            line = _read_line(connection, until)
    except TimeoutError:
        raise SystemRefusal(
            f"the controller does not answer within {deadline:g} s", "see its log, or restart it"
        ) from None
    except OSError as error:
        raise _unreachable(path, error) from None
    try:
        response = decode(line, Response)
    except DecodeError:
        raise ControlError(f"not a controller's answer on {path}") from None
    if response.error is not UNSET:
        raise ControlError(str(response.error))
    return None if response.result is UNSET else response.result


def _read_line(connection: socket.socket, until: float) -> bytes:
    """Return what is sent up to a line end or the end of the stream."""
    parts: list[bytes] = []
    size = 0
    while not parts or not parts[-1].endswith(b"\n"):
        connection.settimeout(max(until - time.monotonic(), 0.001))
        part = connection.recv(1 << 16)
        size += len(part)
        if size > MAX_RESPONSE_BYTES:
            raise ControlError(f"the answer is larger than {MAX_RESPONSE_BYTES} bytes")
        if not part:
            break
        parts.append(part)
    return b"".join(parts)


def _unreachable(path: Path, error: OSError) -> SystemRefusal:
    """Return why no controller answers on ``path``, and what to do."""
    if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
        return SystemRefusal(
            f'no controller is running on "{path.parent}"', "start it: controller --config FILE"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return SystemRefusal(f'no permission to ask the controller on "{path}"', "use sudo")
    return SystemRefusal(f'no answer on "{path}": {error.strerror or error}', "restart it")
