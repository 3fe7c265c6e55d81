"""A lab: networks, hosts and their lifetime."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any, TypeVar

from lab.container import LxcContainer
from lab.errors import LabError
from lab.host import Host, Profile
from lab.namespace import MARKER, Place, environment
from lab.network import Nat, Network, Router, Segment
from lab.processes import Rendezvous

# One file for each lab that lives: who made it, and what is in it.
STATE = Path("/run/switchmode-lab")
_serial = itertools.count(1)
N = TypeVar("N", bound=Network)


class Lab:
    """A lab named `name`, empty at first. A context manager: everything in it goes at the end.

    With `keep` it stays after this process has ended, until Lab.remove(name) (`lab/down`).
    Needs root. Raises LabError if a lab of that name exists.
    """

    def __init__(self, name: str | None = None, *, keep: bool = False) -> None:
        if os.geteuid():
            raise LabError("a lab needs root: namespaces, bridges and packet filters")
        self.name = name or f"lab{os.getpid()}-{next(_serial)}"
        self.keep = keep
        self.networks: dict[str, Network] = {}
        self.hosts: dict[str, Host] = {}
        STATE.mkdir(exist_ok=True)
        self._file = STATE / f"{self.name}.json"
        if self._file.exists():
            raise LabError(f"lab {self.name} exists already: remove it with lab/down")
        self.logs = Path(tempfile.mkdtemp(prefix=f"switchmode-{self.name}-"))
        self.save()

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind or not self.keep:
            self.close()
        else:
            self.save()

    # Building

    def segment(
        self,
        name: str = "public",
        *,
        prefix4: str | None = "203.0.113.0/24",
        prefix6: str | None = None,
    ) -> Segment:
        """A public network, or with a private prefix one LAN. Each may be left out by None."""
        segment = Segment(self.name, name, prefix4=prefix4, prefix6=prefix6)
        return self._network(segment)

    def router(
        self,
        name: str,
        outside: Network,
        nat: Nat | None = "easy",
        *,
        prefix4: str | None = "192.168.1.0/24",
        prefix6: str | None = None,
    ) -> Router:
        """A router on `outside` with a LAN behind it: by default an easy NAT. All LANs have the
        same prefix, as homes do. `nat=None` with a `prefix6` is a stateful IPv6 firewall."""
        router = Router(self.name, name, outside, nat, prefix4=prefix4, prefix6=prefix6)
        return self._network(router)

    def host(
        self,
        name: str,
        network: Network,
        profile: Profile = "stock",
        *,
        lxc_net: dict[str, str] | None = None,
        mtu: int = 1500,
    ) -> Host:
        """A host on `network`; `profile` and `lxc_net` as in lab.host."""
        if name in self.hosts:
            raise LabError(f"host {name} exists already")
        host = Host(
            self.name,
            name,
            network,
            index=1 + sum(host.profile != "plain" for host in self.hosts.values()),
            logs=self.logs,
            profile=profile,
            lxc_net=lxc_net,
            mtu=mtu,
            rendezvous=self.rendezvous,
        )
        self.hosts[name] = host
        self.save()
        return host

    def rendezvous(self) -> Rendezvous | None:
        """The rendezvous that was started first in this lab, if any."""
        started = (process for host in self.hosts.values() for process in host.processes)
        return next((process for process in started if isinstance(process, Rendezvous)), None)

    def output(self) -> dict[str, str]:
        """What the lab's processes have written, and what they have left as logs in their hosts'
        /run/switchmode: file's name -> text."""
        files = {file.name: file for file in sorted(self.logs.iterdir())}
        for host in self.hosts.values():
            for file in sorted(host.path("/run/switchmode").glob("**/*.log")):
                files[f"{host.name}-{file.name}"] = file
        return {name: file.read_text(errors="replace") for name, file in files.items()}

    def save(self) -> None:
        """Write down what is in the lab, for other processes: how to enter each place of it."""
        hosts = self.hosts.values()
        places: dict[str, Place] = {host.name: host for host in hosts}
        places |= {f"{h.name}/{c.name}": c for h in hosts for c in h.containers.values()}
        places |= {network.name: network for network in self.networks.values()}
        state = {
            "owner": os.getpid(),
            "owner_started": started(os.getpid()),
            "keep": self.keep,
            "logs": str(self.logs),
            "enter": {name: place.enter() for name, place in places.items()},
        }
        self._file.write_text(json.dumps(state))

    def close(self) -> None:
        """Kill everything in the lab and remove its traces. May be called twice."""
        for host in self.hosts.values():
            for container in host.containers.values():
                if isinstance(container, LxcContainer):
                    with contextlib.suppress(LabError):
                        container.stop()
        kill_all(self.name)
        _remove_control_groups(self.name)
        for place in [*self.hosts.values(), *self.networks.values()]:
            place.holder.wait()
        shutil.rmtree(self.logs, ignore_errors=True)
        self._file.unlink(missing_ok=True)

    # Across processes

    @staticmethod
    def enter(name: str, place: str) -> tuple[list[str], dict[str, str]]:
        """The words that put a command into `place` (HOST, HOST/CONTAINER or a network) of lab
        `name`, and its environment. Raises LabError."""
        state = _read(STATE / f"{name}.json")
        if state is None:
            raise LabError(f"there is no lab {name}: lab/up makes one")
        if place not in state["enter"]:
            raise LabError(f"no {place} in lab {name}: it has {', '.join(state['enter'])}")
        return state["enter"][place], environment(name)

    @staticmethod
    def remove(name: str) -> None:
        """Remove the lab `name`, whoever made it. Raises LabError if there is none."""
        state = _read(STATE / f"{name}.json")
        if state is None:
            raise LabError(f"there is no lab {name}")
        kill_all(name)
        _remove_control_groups(name)
        shutil.rmtree(state["logs"], ignore_errors=True)
        (STATE / f"{name}.json").unlink(missing_ok=True)

    @staticmethod
    def names() -> list[str]:
        """The labs on this machine."""
        return sorted(file.stem for file in STATE.glob("*.json")) if STATE.exists() else []

    @staticmethod
    def reap() -> list[str]:
        """Remove labs whose maker was killed before it could, and return their names."""
        reaped = []
        for name in Lab.names():
            state = _read(STATE / f"{name}.json")
            if state and not state["keep"] and started(state["owner"]) != state["owner_started"]:
                Lab.remove(name)
                reaped.append(name)
        return reaped

    def _network(self, network: N) -> N:
        if network.name in self.networks:
            raise LabError(f"network {network.name} exists already")
        self.networks[network.name] = network
        self.save()
        return network


def _read(file: Path) -> dict[str, Any] | None:
    try:
        state: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return state


def started(pid: int) -> int:
    """When process `pid` was started, in ticks since boot; 0 if there is none (proc(5), stat)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[19])


def processes(name: str) -> set[int]:
    """The processes of lab `name`: those that carry its name in their environment, their
    descendants (LXC clears a container's environment), and whatever shares their network."""
    mark = f"{MARKER}={name}".encode()
    parents: dict[int, int] = {}
    networks: dict[int, str] = {}
    marked: set[int] = set()
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        pid = int(entry)
        with contextlib.suppress(OSError):  # it has ended meanwhile
            stat = Path(f"/proc/{pid}/stat").read_text()
            parents[pid] = int(stat.rpartition(")")[2].split()[1])
            networks[pid] = os.readlink(f"/proc/{pid}/ns/net")
            if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                marked.add(pid)
    ours = set(marked)
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    inside = {networks[pid] for pid in ours if pid in networks} - {os.readlink("/proc/self/ns/net")}
    ours |= {pid for pid, network in networks.items() if network in inside}
    return ours - {os.getpid()}


def kill_all(name: str, timeout: float = 10) -> None:
    """Kill every process of lab `name` and wait until none is left. Raises LabError."""
    deadline = time.monotonic() + timeout
    while pids := processes(name):
        if time.monotonic() > deadline:
            raise LabError(f"lab {name}: processes {sorted(pids)} do not end")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _remove_control_groups(name: str) -> None:
    """Remove the control groups that LXC containers of lab `name` have left."""
    groups = Path("/sys/fs/cgroup")
    for group in [*groups.glob(f"{name}.*"), *groups.glob(f"*/{name}.*")]:
        for directory, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(directory)
