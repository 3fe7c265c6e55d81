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

    It runs isolated and in the root directory: a module that lies where the administrator happens
    to stand, or in a place that PYTHONPATH names, must not be imported by root.

    Raises SystemRefusal.
    """
    arguments = ["--run-dir", str(run_dir.absolute()), "--log-level", level]
    command = [sys.executable, "-I", "-m", "tincan.cli", *arguments]
    try:
        return subprocess.Popen(
            command,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise SystemRefusal(f"cannot start tincan: {error.strerror}") from None
