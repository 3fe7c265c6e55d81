"""Containers of a host: real LXC ones, and bare namespaces that look the same from the bridge."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import subprocess
import time
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lab.errors import CommandFailed, LabError
from lab.namespace import Namespace, Place

Kind = Literal["netns", "lxc"]

# What busybox's DHCP client calls with an event and the lease in its environment.
UDHCPC_SCRIPT = """#!/bin/sh
case "$1" in
deconfig) ip -4 addr flush dev "$interface" ;;
bound|renew)
    ip addr replace "$ip/$mask" dev "$interface"
    [ -z "$router" ] || ip route replace default via "${router%% *}" ;;
esac
"""


@dataclass(frozen=True)
class Ping:
    """What ping reported: packets `sent`, `received` (without duplicates), `duplicates`, the
    round trips in milliseconds in order of arrival, and ping's own words."""

    sent: int
    received: int
    duplicates: int
    rtts: list[float]
    output: str

    @property
    def lost(self) -> int:
        """How many were not answered."""
        return self.sent - self.received

    @classmethod
    def parse(cls, output: str) -> Ping:
        """From the output of iputils' ping. Raises LabError if it sent nothing."""
        total = re.search(r"(\d+) packets transmitted, (\d+) received(?:, \+(\d+) dup)?", output)
        if not total:
            raise LabError(f"ping did not run:\n{output}")
        sent, received, duplicates = (int(number or 0) for number in total.groups())
        rtts = [float(number) for number in re.findall(r"time=([\d.]+) ms", output)]
        return cls(sent, received, duplicates, rtts, output)


class Home(Namespace):
    """A namespace in which containers and programs live: its one kind is `lab.host.Host`."""

    address: str
    """The address of the bridge, without prefix length: the containers' gateway."""
    containers: dict[str, Container]
    """The containers that run here, by name."""

    @abstractmethod
    def log_file(self, program: str) -> Path:
        """Return a new log file's name for `program`, outside the host."""


class Container(Place):
    """A machine plugged into `host`'s bridge by its interface eth0; `port` is the bridge's side.

    `run`, `popen`, `socket` and `capture` act in its network with the host's own programs.
    """

    host: Home
    port: str
    kind: Kind

    @property
    def mac(self) -> str:
        """The MAC of eth0."""
        return self.mac_of("eth0")

    @property
    def ip(self) -> str:
        """Its first global IPv4 address, without prefix length, or ""."""
        return next(iter(self.addresses(4)), "")

    def addresses(self, version: Literal[4, 6] = 4) -> list[str]:
        """The global addresses of eth0, without prefix length."""
        listing = self.run(["ip", "-j", f"-{version}", "addr", "show", "dev", "eth0"]).stdout
        return [
            entry["local"]
            for interface in json.loads(listing)
            for entry in interface.get("addr_info", [])
            if entry["scope"] == "global"
        ]

    @property
    def link_local(self) -> str:
        """Its IPv6 link-local address, once it is no longer tentative, else ""."""
        listing = self.run(["ip", "-j", "-6", "addr", "show", "dev", "eth0"]).stdout
        for interface in json.loads(listing):
            for entry in interface.get("addr_info", []):
                if entry["scope"] == "link" and not entry.get("tentative"):
                    return str(entry["local"])
        return ""

    def readdress(self, ip: str) -> None:
        """Have `ip` (with prefix length) in place of all IPv4 addresses."""
        self.run(
            f"ip -4 addr flush dev eth0; ip addr add {ip} dev eth0;"
            f"ip route replace default via {self.host.address} || true"
        )

    def flush_neighbours(self) -> None:
        """Forget all ARP and ND entries."""
        self.run(["ip", "neigh", "flush", "all"])

    def neighbours(self) -> dict[str, str]:
        """IP -> MAC, its resolved ARP and ND entries."""
        listing = self.run(["ip", "-j", "neigh", "show", "dev", "eth0"]).stdout
        return {entry["dst"]: entry["lladdr"] for entry in json.loads(listing) if "lladdr" in entry}

    def ping(self, address: str, count: int = 1, *words: str, interval: float = 0.2) -> Ping:
        """Ping `address`; `words` are further options. Unanswered pings are not an error."""
        command = ["ping", "-n", "-c", str(count), "-i", str(interval), "-W", "2", *words, address]
        return Ping.parse(self.run(command, check=False, timeout=60 + count * interval).stdout)

    def wait_ping(self, address: str, timeout: float = 10) -> float:
        """Ping until an answer comes, and return after how many seconds that was.

        Raises LabError after `timeout` seconds.
        """
        start = time.monotonic()
        command = ["ping", "-n", "-i", "0.05", "-c", "1", "-w", "1", address]
        while self.run(command, check=False).returncode:
            if time.monotonic() - start > timeout:
                raise LabError(f"{self.name}: no answer from {address} within {timeout} s")
        return time.monotonic() - start

    def arping(self, address: str, count: int = 1, *words: str) -> list[str]:
        """Ask for `address` by broadcast (iputils' arping), and return the MACs that answered,
        in lower case, one for each reply."""
        command = ["arping", "-b", "-I", "eth0", "-c", str(count), "-w", str(count + 1), *words]
        output = self.run([*command, address], check=False, timeout=30 + count).stdout
        return [mac.lower() for mac in re.findall(r"reply from \S+ \[([0-9A-F:]{17})\]", output)]

    def iperf3(self, server: Place, address: str, seconds: int = 2, *words: str) -> Any:
        """Run iperf3 from here to `address` of `server` and return its JSON report.

        iperf3 wants whole seconds; `words` are further options of its client.
        `report["end"]["sum_received"]["bits_per_second"]` is what arrived over TCP.
        """
        command = ["iperf3", "--server", "--one-off", "--forceflush"]
        listening = server.popen(command, stdout=subprocess.PIPE)
        try:
            assert listening.stdout is not None
            while "listening" not in (line := listening.stdout.readline()):
                if not line:
                    raise LabError("the iperf3 server did not start")
            result = self.run(
                ["iperf3", "--json", "--client", address, "--time", str(seconds), *words],
                timeout=seconds + 30,
            )
            return json.loads(result.stdout)
        finally:
            listening.kill()
            listening.wait()
            assert listening.stdout is not None
            listening.stdout.close()

    def unplug(self) -> None:
        """Take its cable out of the bridge."""
        self.host.run(["ip", "link", "set", self.port, "nomaster"])

    def wait_lease(self, timeout: float = 15) -> str:
        """Wait until it has an IPv4 address, and return it. Raises LabError."""
        deadline = time.monotonic() + timeout
        while not (ip := self.ip):
            if time.monotonic() > deadline:
                raise LabError(f"{self.name}: no DHCP lease within {timeout} s")
            time.sleep(0.1)
        return ip

    @abstractmethod
    def stop(self) -> None:
        """Stop it: its interface disappears from the bridge at once, without a word."""


def own_mac(host: str, name: str) -> str:
    """A MAC in LXC's range for container `name` of `host`, the same in every run."""
    digest = hashlib.sha256(f"{host}/{name}".encode()).hexdigest()
    return f"00:16:3e:{digest[:2]}:{digest[2:4]}:{digest[4:6]}"


_ports = itertools.count(1)


class NetnsContainer(Container, Namespace):
    """A bare namespace with a veth into the bridge."""

    kind: Kind = "netns"

    def __init__(
        self,
        host: Home,
        name: str,
        *,
        ip: str | None,
        mac: str | None,
        mtu: int,
        ip6: str | None,
        bridge: str,
    ) -> None:
        Namespace.__init__(self, host.lab, name, parent=host)
        self.host = host
        self.port = f"veth{next(_ports):04d}"
        # The port's MAC starts with fe, as LXC sets it: a bridge takes the lowest for its own.
        host.run(
            f"ip link add {self.port} mtu {mtu} type veth peer name eth0 mtu {mtu}"
            f" address {mac or own_mac(host.name, name)} netns {self.pid}\n"
            f"ip link set {self.port} address fe:{os.urandom(5).hex(':')}\n"
            f"ip link set {self.port} master {bridge} up"
        )
        steps = "ip link set eth0 up\n"
        if ip and ip != "dhcp":
            steps += f"ip addr add {ip} dev eth0\nip route add default via {host.address} || true\n"
        if ip6:
            steps += f"ip addr add {ip6} dev eth0\n"
        self.run(steps)
        if ip == "dhcp":
            self.dhcp()

    def dhcp(self, *words: str) -> subprocess.Popen[str]:
        """Start busybox's DHCP client, with further options (`-a`: check the address by ARP)."""
        script = self.path("/run/udhcpc")
        script.write_text(UDHCPC_SCRIPT)
        script.chmod(0o755)
        command = ["busybox", "udhcpc", "-f", "-i", "eth0", "-s", "/run/udhcpc", *words]
        return self.popen(command)

    def stop(self) -> None:
        self.host.run(["ip", "link", "del", self.port])
        self.host.containers.pop(self.name, None)
        self.holder.kill()
        self.holder.wait()


class LxcContainer(Container):
    """A real LXC container, made by lxc-create with the busybox template and started.

    `run` enters its network only and finds the host's programs; `attach` is lxc-attach.
    """

    kind: Kind = "lxc"

    def __init__(
        self,
        host: Home,
        name: str,
        *,
        ip: str | None,
        mac: str | None,
        mtu: int,
        ip6: str | None,
        bridge: str,
    ) -> None:
        self.host = host
        config = f"""
        lxc.net.0.type = veth
        lxc.net.0.link = {bridge}
        lxc.net.0.flags = up
        lxc.net.0.name = eth0
        lxc.net.0.mtu = {mtu}
        lxc.net.0.hwaddr = {mac or own_mac(host.name, name)}
        lxc.apparmor.profile = unconfined
        lxc.cgroup.dir = {host.lab}.{host.name}.{name}
        """
        if ip and ip != "dhcp":
            config += f"lxc.net.0.ipv4.address = {ip}\nlxc.net.0.ipv4.gateway = {host.address}\n"
        if ip6:
            config += f"lxc.net.0.ipv6.address = {ip6}\n"
        file = f"/run/{name}.conf"
        host.path(file).write_text("\n".join(line.strip() for line in config.splitlines()))
        host.run(["lxc-create", "--name", name, "--template", "busybox", "--config", file])
        if ip != "dhcp":
            # The template's init asks for a lease, and would take the address away meanwhile.
            init = host.path(f"/var/lib/lxc/{name}/rootfs/etc/init.d/rcS")
            init.write_text(re.sub(r".*udhcpc.*\n", "", init.read_text()))
        super().__init__(host.lab, name, 0)
        self.start()

    def start(self) -> None:
        """lxc-start."""
        self.host.run(["lxc-start", "--name", self.name])
        self.pid = int(self.host.run(["lxc-info", "-n", self.name, "-pH"]).stdout)
        info = self.host.run(["lxc-info", "-n", self.name]).stdout
        link = re.search(r"Link:\s+(\S+)", info)
        if not link:
            raise CommandFailed(f"lxc-start of {self.name}", 0, info)
        self.port = link[1]

    def enter(self) -> list[str]:
        mounts = f"--mount=/proc/{self.host.pid}/ns/mnt"
        return ["nsenter", "--target", str(self.pid), "--net", "--uts", mounts, "--"]

    def attach(self, command: str) -> str:
        """Run `command` with the container's own shell and programs; return what it printed."""
        words = ["lxc-attach", "--name", self.name, "--", "/bin/sh", "-c", command]
        return self.host.run(words).stdout

    def stop(self) -> None:
        self.host.run(["lxc-stop", "--kill", "--name", self.name])

    def destroy(self) -> None:
        """Stop it if it runs, and remove it."""
        with contextlib.suppress(CommandFailed):
            self.stop()
        self.host.run(["lxc-destroy", "--name", self.name])
        self.host.containers.pop(self.name, None)


__all__ = ["Container", "Kind", "LxcContainer", "NetnsContainer", "Ping", "own_mac"]
