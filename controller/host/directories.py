"""One controller per directory, with the rights that it needs.

The lock is a flock: the kernel drops it however the process ends, so what ``kill -9`` leaves
behind stops nobody.
"""

import fcntl
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from controller.errors import SystemRefusal
from controller.host.files import private_directory, refused

LOCK_FILE: Final = "controller.lock"
"""Holds the process id, for people."""
DEFAULT_RUN_ROOT: Final = Path("/run/switchmode")
"""What is in there is ours, whoever made it."""
STOPPING: Final = (signal.SIGTERM, signal.SIGINT)
CAPABILITIES: Final = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13}
"""Include/uapi/linux/capability.h."""


@contextmanager
def hold(directory: Path, key: str) -> Iterator[None]:
    """Make ``directory`` if need be, and keep every other controller out of it meanwhile.

    ``key`` is the configuration's name for it. On the way out the lock's file goes, and then
    the directories that we made, as far as they are empty. Raises SystemRefusal if the
    directory is in use, or is not ours.
    """
    made = private_directory(directory)
    path = directory / LOCK_FILE
    descriptor = _lock(path, key)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)  # before the lock goes: see _lock
        os.close(descriptor)
        if DEFAULT_RUN_ROOT in directory.parents:  # also those of a process that was killed
            made = [DEFAULT_RUN_ROOT, directory]
        with suppress(OSError):  # not empty, or gone: somebody else uses it
            for ours in reversed(made):
                ours.rmdir()


def _lock(path: Path, key: str) -> int:
    """Return a descriptor of the file ``path``, locked."""
    while True:
        with refused(f'cannot lock "{path}"'):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last holder may have removed the file between our open and our lock.
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise SystemRefusal(
                f'"{path.parent}" is in use by another controller (pid {holder or "unknown"})',
                f'stop that one, or give this one another "{key}"',
            ) from None
        except FileNotFoundError:
            pass
        os.close(descriptor)


def check_rights(tun: Path = Path("/dev/net/tun"), status: str | None = None) -> None:
    """Raise SystemRefusal unless this process may make a TAP and capture on it.

    ``status`` is the text of /proc/self/status, read from there if it is not given.
    """
    text = Path("/proc/self/status").read_text() if status is None else status
    effective = next((line.split()[1] for line in text.splitlines() if line[:7] == "CapEff:"), "0")
    missing = [name for name, bit in CAPABILITIES.items() if not int(effective, 16) >> bit & 1]
    if missing:
        raise SystemRefusal(
            f"no permission to set up networking ({', '.join(missing)} missing)",
            "run as root (sudo), or grant these capabilities",
        )
    try:
        os.close(os.open(tun, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        raise SystemRefusal(
            f"{tun} does not exist", "sudo modprobe tun; in a container, pass the device in"
        ) from None
    except PermissionError as error:
        raise SystemRefusal(
            f"{tun} cannot be opened: {error.strerror}",
            "run as root (sudo); in a container, allow the device",
        ) from None
    except OSError as error:
        raise SystemRefusal(
            f"{tun} cannot be opened: {error.strerror}", "sudo modprobe tun"
        ) from None


class Abandoned(ThreadPoolExecutor):
    """Looks up each name in a daemon thread of its own, for which nobody waits at the end.

    getaddrinfo, for which the event loop has an executor, may block for half a minute when the
    resolver is dead; asyncio.run as well as the interpreter would wait for that before they end.
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Call ``fn`` in a thread."""
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()

        def work() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # handed to the caller, whatever it is
                future.set_exception(error)

        threading.Thread(target=work, daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the threads to themselves."""
