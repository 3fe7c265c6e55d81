"""Starts the process tincan: a session of its own, which outlives this one."""

import subprocess
import sys
from pathlib import Path
from typing import Final

from controller.errors import SystemRefusal
from tincan.control import messages as api

LEFT_BY_TINCAN: Final = ("tincan.log", "tincan.log.1", api.SOCKET_NAME)
"""Files in its run_dir that remain if tincan was killed."""


def start_tincan(run_dir: Path, level: str) -> "subprocess.Popen[bytes]":
    """Start tincan in a session of its own, holding no pipe: our death is not its.

    Raises SystemRefusal.
    """
    command = [sys.executable, "-m", "tincan.cli", "--run-dir", str(run_dir), "--log-level", level]
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise SystemRefusal(f"cannot start tincan: {error.strerror}") from None
