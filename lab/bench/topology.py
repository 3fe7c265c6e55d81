"""Two hosts, a path between them, and containers behind a bridge on each: always the same.

    container -- bridge ... left host == wan == right host ... bridge -- container

The path is a veth with its offloads, or the wire (wire.py) with real datagrams. A contender joins
the two bridges of one segment; it is given nothing but the hosts' addresses on `wan`.
"""

import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from lab.bench.wire import Character
from lab.errors import LabError
from lab.namespace import MARKER, Namespace
from lab.processes import wait_until
from lab.topology import kill_all

ROOT = Path(__file__).parents[2]
ADDRESSES = {"left": "192.0.2.1", "right": "192.0.2.2"}
CONTAINERS = {"left": "10.10.0.1", "right": "10.10.0.2"}
LEFT = re.compile(rf"{MARKER}=(bench(\d+)-\d+)")
_serial = itertools.count(1)
N = TypeVar("N", bound=Namespace)

# Nothing speaks unasked, or an idle path would not be idle.
QUIET = "for key in all default; do echo 0 > /proc/sys/net/ipv6/conf/$key/accept_ra; done"

# A datagram leaves the host as it will cross the wire. On the way in a kernel thread with GRO
# stands for a network card and its interrupts: without it every frame would be received alone, in
# the wire's own processor time (1.0 Gbit/s through the wire, against 2.4). It holds what it has
# for 50 us, as cards moderate their interrupts under bulk (igb: 4000 a second, with 20 frames each
# at 1 Gbit/s); otherwise it would be woken by the first frame of those that the wire hands over
# together, and take them one by one.
REAL_DATAGRAMS = """
ip link set wan up
ethtool -K wan gso off tso off tx-udp-segmentation off tx-udp_tnl-segmentation off \
    tx-udp_tnl-csum-segmentation off rxvlan off txvlan off gro on
echo 1 > /sys/class/net/wan/threaded
echo 50000 > /sys/class/net/wan/gro_flush_timeout
"""
WIRE_END = """
echo 1 > /proc/sys/net/ipv6/conf/{end}/disable_ipv6
ethtool -K {end} gso off tso off rxvlan off txvlan off gro off
ip link set {end} arp off up
"""


class Site(Namespace):
    """A host, `left` or `right`. What runs in it belongs to the contender."""

    def __init__(self, lab: str, name: str, logs: Path) -> None:
        super().__init__(lab, name, script=QUIET)
        self.logs = logs
        self.address = ADDRESSES[name]

    def log_file(self, program: str) -> Path:
        """A new log file's name for `program`."""
        return self.logs / f"{self.name}-{program}-{next(_serial)}.log"

    def start(self, program: str, command: Sequence[str]) -> subprocess.Popen[str]:
        """Start a daemon; what it says goes to a log file."""
        with self.log_file(program).open("w") as log:
            return self.popen(command, stdout=log)

    def wait_interface(self, name: str, timeout: float = 10) -> None:
        """Wait until the contender has made an interface of that name. Raises LabError."""
        wait_until(lambda: name in self.interfaces(), timeout, f"{name} on {self.name}")

    def pids(self) -> list[int]:
        """All processes of this host: the contender's."""
        inside = os.readlink(f"/proc/{self.pid}/ns/net")
        found = []
        for entry in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{entry}/ns/net") == inside:
                    found.append(int(entry))
        return sorted(set(found) - {self.pid})


@dataclass
class Segment:
    """A bridge on each host, and a container behind each: what a contender joins.

    `bridge` is the bridges' name; `left` and `right` are the containers, with `eth0`.
    """

    bridge: str
    mtu: int
    left: Namespace
    right: Namespace


class Pair:
    """The two hosts. A context manager; everything in it goes at the end.

    `through_wire`: the path is the wire, a perfect one until `change`.
    """

    def __init__(self, *, through_wire: bool = False) -> None:
        self.lab = f"bench{os.getpid()}-{next(_serial)}"
        self.logs = Path(tempfile.mkdtemp(prefix=f"switchmode-{self.lab}-"))
        self._wire: subprocess.Popen[str] | None = None
        self._segments = 0
        self._holders: list[Namespace] = []
        try:
            self.left = self._hold(Site(self.lab, "left", self.logs))
            self.right = self._hold(Site(self.lab, "right", self.logs))
            if through_wire:
                self._lay_wire()
            else:
                self._join("wan", self.left, "wan", self.right)
            for site in self.sites:
                site.run(f"ip addr add {site.address}/24 dev wan; ip link set wan up")
        except BaseException:
            self.close()
            raise

    @property
    def sites(self) -> tuple[Site, Site]:
        return self.left, self.right

    def __enter__(self) -> "Pair":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill everything in it, and with that remove it. May be called twice."""
        kill_all(self.lab)
        for place in self._holders:
            place.holder.wait()
        if self._wire:
            self._wire.wait()
        shutil.rmtree(self.logs, ignore_errors=True)

    def segment(self, mtu: int = 1500) -> Segment:
        """Another bridge and container on each host, containers and bridges of this MTU."""
        number = self._segments
        self._segments += 1
        bridge = f"br{number}"
        ends = {}
        for side, site in zip(("left", "right"), self.sites, strict=True):
            container = self._hold(Namespace(self.lab, f"container-{side}-{number}", script=QUIET))
            site.run(f"ip link add {bridge} type bridge; ip link set {bridge} mtu {mtu} up")
            self._join("eth0", container, f"port{number}", site, mtu=mtu)
            site.run(f"ip link set port{number} master {bridge} up")
            container.run(f"ip addr add {CONTAINERS[side]}/24 dev eth0; ip link set eth0 up")
            ends[side] = container
        return Segment(bridge, mtu, **ends)

    def change(self, character: Character) -> list[dict[str, float]]:
        """Make the wire one of this character; the Counts of what it was, for each direction."""
        if not self._wire or not self._wire.stdin or not self._wire.stdout:
            raise LabError("the path is not a wire")
        self._wire.stdin.write(json.dumps(asdict(character)) + "\n")
        self._wire.stdin.flush()
        answer = self._wire.stdout.readline()
        if not answer:
            raise LabError("the wire has ended")
        counts: list[dict[str, float]] = json.loads(answer)
        return counts

    def logged(self) -> str:
        """The end of what the contender's daemons have written, for an error message."""
        texts = (
            f"--- {file.name}\n{file.read_text(errors='replace')[-2000:]}"
            for file in sorted(self.logs.glob("*.log"))
        )
        return "\n".join(texts)

    def _hold(self, place: N) -> N:
        self._holders.append(place)
        return place

    def _join(
        self, name: str, place: Namespace, peer: str, other: Namespace, mtu: int = 1500
    ) -> None:
        place.run(
            f"ip link add {name} mtu {mtu} type veth peer name {peer} mtu {mtu} netns {other.pid}"
        )

    def _lay_wire(self) -> None:
        place = self._hold(Namespace(self.lab, "wire"))
        for site in self.sites:
            self._join("wan", site, site.name, place)
            place.run(WIRE_END.format(end=site.name))
            site.run(REAL_DATAGRAMS)
        self._wire = subprocess.Popen(
            [*place.enter(), sys.executable, "-m", "lab.bench.wire", "left", "right"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**place.environment, "PYTHONPATH": str(ROOT)},
        )
        assert self._wire.stdout is not None
        if "ready" not in self._wire.stdout.readline():
            raise LabError("the wire did not start")


def reaches(place: Namespace, address: str, timeout: float, what: str) -> float:
    """Wait until a ping from `place` to `address` is answered; the seconds it took. LabError."""
    command = ["ping", "-n", "-q", "-c", "1", "-W", "1", address]
    return wait_until(
        lambda: place.run(command, check=False).returncode == 0, timeout, f"ping through {what}"
    )


def reap() -> None:
    """Remove what benches that were killed (-9) have left."""
    left = set()
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            marks = Path(f"/proc/{entry}/environ").read_bytes().split(b"\0")
            left |= {match for mark in marks if (match := LEFT.fullmatch(mark.decode("latin-1")))}
    for name, maker in {match.groups() for match in left}:
        if not Path(f"/proc/{maker}").exists():
            kill_all(name)
            for logs in Path(tempfile.gettempdir()).glob(f"switchmode-{name}-*"):
                shutil.rmtree(logs, ignore_errors=True)
