"""Private directories and files: made with the right modes, written whole or not at all."""

import os
import stat
from pathlib import Path

from controller.errors import SystemRefusal, refused


def private_directory(path: Path) -> list[Path]:
    """Make ``path`` (mode 0700) and what is missing above it (0755) unless it is there.

    Returns the directories that were made, the deepest last. Raises SystemRefusal if that is
    not possible, or if an existing directory belongs to another user or can be written by
    others, who could change what we keep there.
    """
    made: list[Path] = []
    missing = [p for p in reversed([path, *path.parents]) if not p.exists()]
    with refused(f'cannot make the directory "{path}"'):
        for directory in missing:
            directory.mkdir(mode=0o700 if directory == path else 0o755, exist_ok=True)
            made.append(directory)
        status = path.stat()
    if not stat.S_ISDIR(status.st_mode):
        raise SystemRefusal(f'"{path}" is not a directory', "remove it, or configure another")
    if status.st_uid != os.geteuid():
        raise SystemRefusal(
            f'"{path}" belongs to another user (uid {status.st_uid})',
            "run as that user, or configure another directory",
        )
    if status.st_mode & 0o022:
        raise SystemRefusal(f'"{path}" can be written by others', f"chmod 700 {path}")
    return made


def write_private(path: Path, data: bytes) -> None:
    """Replace the file ``path`` by one of mode 0600 with ``data`` in it.

    Readers see the old file or the new one, also after a crash. Raises SystemRefusal.
    """
    draft = path.with_name(path.name + ".new")
    with refused(f'cannot write "{path}"'):
        draft.unlink(missing_ok=True)  # of a process that was killed here
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
