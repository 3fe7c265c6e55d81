"""One controller per directory: made if need be, locked, and removed at the end.

The lock is a flock: the kernel drops it however the process ends, so a lock file that
``kill -9`` left behind keeps nobody out.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from controller.errors import SystemRefusal, refused
from controller.host.files import private_directory

LOCK_FILE: Final = "controller.lock"
"""The file that is locked; it holds the process id, for people."""
DEFAULT_RUN_ROOT: Final = Path("/run/switchmode")
"""A directory in which every entry is a controller's, also one left by a killed process."""


@contextmanager
def hold(directory: Path, key: str) -> Iterator[None]:
    """Make ``directory`` if need be, and keep every other controller out of it inside ``with``.

    ``key`` is the configuration's name for the directory. At the end the lock file is removed,
    and then the directories that were made, as far as they are empty. Raises SystemRefusal if
    the directory is in use, or is not ours.
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
