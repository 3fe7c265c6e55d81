"""The start of a controller, in the order that has frames flowing soonest.

tincan takes as long to load as the controller's own modules: both load at the same time.
"""

import os
from pathlib import Path
from typing import Final

from controller.config.settings import Config
from controller.dataplane.process import LEFT_BY_TINCAN, start_tincan
from controller.errors import SystemRefusal
from controller.host.directories import hold
from controller.host.node_key import load_key
from controller.stopping import hold_back
from tincan.control import messages as api

CAPABILITIES: Final = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13}
"""The capabilities that a controller needs, and their bits (linux/capability.h)."""


def check_rights(tun: Path = Path("/dev/net/tun"), status: str | None = None) -> None:
    """Raise SystemRefusal unless this process may make a TAP and capture on it.

    ``status`` is the text of /proc/self/status, which is read if it is not given.
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


def run(config: Config) -> int:
    """Run a controller until SIGTERM or SIGINT; return the exit status. Raise SystemRefusal."""
    check_rights()
    hold_back()  # what is made from here on must be removed again
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
                started.kill()  # the app failed before it connected to it
                started.wait()
            for name in LEFT_BY_TINCAN:
                (config.run_dir / name).unlink(missing_ok=True)
    return 0
