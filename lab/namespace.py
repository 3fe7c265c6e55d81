"""A network, mount and UTS namespace, and everything one can do inside it.

A namespace lives as long as its holder, a `sleep` that carries its name. Interfaces are made
directly where they belong (`ip link add ... netns PID`), so the machine's own namespace never
sees one of them, and killing what lives in a namespace removes all of it.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

from lab.capture import Capture
from lab.errors import CommandFailed

T = TypeVar("T")

# Every process of a lab carries the lab's name in its environment, and is found by it at the end.
MARKER = "SWITCHMODE_LAB"

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

# A private sysfs, since lxc-net and brctl look bridges up in /sys/class/net. The control groups
# mounted below /sys are carried over: LXC needs them.
PRIVATE_SYSFS = """
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/cgroup
mount --rbind /sys/fs/cgroup /run/cgroup
mount -t sysfs sysfs /sys
mount --rbind /run/cgroup /sys/fs/cgroup
umount -l /run/cgroup
rmdir /run/cgroup
ip link set lo up
"""
READY = "the namespace is ready"


def environment(lab: str) -> dict[str, str]:
    """The environment of a process in lab `lab`: ours, with our console scripts found first and
    root's tools found at all."""
    env = dict(os.environ)
    env[MARKER] = lab
    ours, theirs = Path(sys.executable).parent, env.get("PATH", "")
    env["PATH"] = f"{ours}:{theirs}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"
    return env


class Place:
    """A network namespace of lab `lab` in which commands run and sockets open.

    `pid` is a process that lives in it; `enter()` the words that put a command there.
    """

    def __init__(self, lab: str, name: str, pid: int) -> None:
        self.lab = lab
        self.name = name
        self.pid = pid
        self.environment = environment(lab)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} of {self.lab}, pid {self.pid}>"

    def enter(self) -> list[str]:
        """The words that put a command into this namespace."""
        return ["nsenter", "--target", str(self.pid), "--net", "--mount", "--uts", "--"]

    def path(self, inside: str) -> Path:
        """Where the file `inside` (absolute, as seen in the namespace) is seen from outside."""
        return Path(f"/proc/{self.pid}/root{inside}")

    # Commands

    def run(
        self,
        command: Sequence[str] | str,
        *,
        check: bool = True,
        timeout: float = 60,
        input: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` (words, or text for `sh -e`) inside, and return what it printed.

        Raises CommandFailed on a non-zero status, unless `check` is false, and on a timeout.
        """
        words = ["sh", "-ec", command] if isinstance(command, str) else list(command)
        try:
            result = subprocess.run(
                [*self.enter(), *words],
                stdin=subprocess.DEVNULL if input is None else None,
                input=input,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                env={**self.environment, **(env or {})},
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            output = late.stdout.decode(errors="replace") if late.stdout else ""
            raise CommandFailed(f"{self.name}: {command!r}: over {timeout} s", -1, output) from None
        if check and result.returncode:
            raise CommandFailed(
                f"{self.name}: {command!r}", result.returncode, result.stdout + result.stderr
            )
        return result

    def popen(
        self,
        command: Sequence[str],
        *,
        stdout: int | IO[Any] = subprocess.DEVNULL,
        stderr: int | IO[Any] = subprocess.STDOUT,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start `command` inside. The pid is the command's own: nsenter becomes it."""
        return subprocess.Popen(
            [*self.enter(), *command],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
            env={**self.environment, **(env or {})},
            start_new_session=True,
        )

    def sysctl(self, key: str, value: int | str) -> None:
        """Set a network setting of this namespace, `net.ipv4.ip_forward` and the like."""
        self.run(f"echo {value} > /proc/sys/{key.replace('.', '/')}")

    # Sockets

    def call(self, function: Callable[[], T]) -> T:
        """Call `function` in this network namespace and return its result.

        It runs in a thread of its own, since a network namespace belongs to a thread; the sockets
        that it opens stay in the namespace and may be used from anywhere.
        """
        outcome: list[T] = []
        failure: list[BaseException] = []

        def inside() -> None:
            try:
                with open(f"/proc/{self.pid}/ns/net") as namespace:
                    if _libc.setns(namespace.fileno(), CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), f"setns to {self.name}")
                outcome.append(function())
            except BaseException as error:  # handed to the caller, whatever it is
                failure.append(error)

        thread = threading.Thread(target=inside, name=f"in {self.name}")
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return outcome[0]

    def socket(
        self, family: int = socket.AF_INET, kind: int = socket.SOCK_DGRAM, protocol: int = 0
    ) -> socket.socket:
        """A socket that lives in this namespace."""
        return self.call(lambda: socket.socket(family, kind, protocol))

    def capture(self, interface: str, filter: str = "") -> Capture:
        """Record the frames on `interface` that match `filter` (tcpdump's language).

        A context manager: `with host.capture("lxcbr0", "arp") as frames: ...`; see Capture.
        """
        return Capture(lambda: self.socket(socket.AF_PACKET, socket.SOCK_RAW), interface, filter)

    # Interfaces

    def mac_of(self, interface: str) -> str:
        """The Ethernet address of `interface`, lower case."""
        return self.path(f"/sys/class/net/{interface}/address").read_text().strip()

    def counter(self, interface: str, name: str) -> int:
        """A counter of `interface`: `rx_packets`, `tx_bytes` and the like."""
        text = self.path(f"/sys/class/net/{interface}/statistics/{name}").read_text()
        return int(text)

    def interfaces(self) -> list[str]:
        """The names of all interfaces inside."""
        return sorted(os.listdir(self.path("/sys/class/net")))


class Namespace(Place):
    """A namespace with a holder: it lives until the holder and all else in it is killed.

    `parent` is the place that it is started from, whose mounts it inherits. `script` is run
    with `bash -e` inside before the constructor returns. Raises CommandFailed if it fails.
    """

    def __init__(
        self, lab: str, name: str, *, parent: Place | None = None, script: str = ""
    ) -> None:
        words = ["unshare", "--net", "--mount", "--uts", "--propagation", "private"]
        steps = f"{PRIVATE_SYSFS}\nhostname {shlex.quote(name)}\n{script}\necho {READY}\n"
        hold = f"exec -a {shlex.quote(f'{lab}:{name}')} sleep infinity >/dev/null 2>&1"
        # In a session of its own: Ctrl-C must not take the lab away before its users have left.
        self.holder = subprocess.Popen(
            [*(parent.enter() if parent else []), *words, "bash", "-ec", steps + hold],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(lab),
            start_new_session=True,
        )
        super().__init__(lab, name, self.holder.pid)
        assert self.holder.stdout is not None
        said: list[str] = []
        with self.holder.stdout as output:
            # Not up to the end of the file: a daemon that `script` started may keep it open.
            while (line := output.readline()) not in (f"{READY}\n", ""):
                said.append(line)
        if not line:
            raise CommandFailed(f"start of {name}", self.holder.wait(), "".join(said))
