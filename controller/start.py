"""The start of a controller, in the order that has frames flowing soonest.

tincan needs as long to load as the rooms of the controller: both do it at the same time.
"""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from controller.config.settings import Config
from controller.errors import SystemRefusal
from controller.host.directories import STOPPING, check_rights, hold
from controller.host.node_key import load_key
from tincan.control import messages as api

LEFT_BY_TINCAN: Final = ("tincan.log", "tincan.log.1", api.SOCKET_NAME)
"""If it was killed."""


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


def run(config: Config) -> int:
    """Run a controller until SIGTERM or SIGINT; return the exit status. Raise SystemRefusal."""
    check_rights()
    # What comes before somebody listens for it waits: what is made from here on must go again.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    with hold(config.run_dir, "run_dir"), hold(config.state_dir, "state_dir"):
        private = load_key(config.state_dir)
        started = None
        if not (config.run_dir / api.SOCKET_NAME).exists():  # else one may be running already
            started = start_tincan(config.run_dir, config.tincan_logging)
        try:
            from controller.app import serve  # takes long

            serve(config, private, started)
        finally:
            if started is not None and started.poll() is None:
                started.kill()  # what was to use it never came to that
                started.wait()
            for name in LEFT_BY_TINCAN:
                (config.run_dir / name).unlink(missing_ok=True)
    return 0
