"""Connected hosts that the tests of a module share: starting them takes longer than most tests."""

from __future__ import annotations

import contextlib
import itertools
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lab import Container, Controller, Host, Lab, wait_until
from lab.layouts import Hosts, build

BROADCAST = "ff:ff:ff:ff:ff:ff"
GATEWAY = "10.0.3.1"
GATEWAY_MAC = "00:16:3e:00:00:00"


@dataclass
class Overlay:
    """Stock hosts on one LAN, connected. ``host(ip)`` containers come and go with a test."""

    hosts: Hosts
    controllers: list[Controller]
    _serial: Iterator[int] = field(default_factory=itertools.count)

    @property
    def a(self) -> Host:
        return self.hosts.hosts[0]

    @property
    def b(self) -> Host:
        return self.hosts.hosts[1]

    @property
    def c(self) -> Host:
        return self.hosts.hosts[2]

    def controller(self, host: Host) -> Controller:
        return self.controllers[self.hosts.hosts.index(host)]

    @contextlib.contextmanager
    def containers(self, *wanted: tuple[Host, str] | tuple[Host, str, str]) -> Iterator[Any]:
        """Containers, each given as (host, IPv4 address, MAC if it matters), for a while.

        Those with an IPv4 address 10.0.3.N have fd00::N, too.
        """
        made: list[Container] = []
        try:
            for host, ip, *mac in wanted:
                made.append(self.container(host, ip, *mac))
            yield made
        finally:
            for container in made:
                stop(container)

    def container(self, host: Host, ip: str | None = None, mac: str | None = None) -> Container:
        """A container with 10.0.3.N/24 and fd00::N/64, its DAD left out."""
        name = f"c{next(self._serial)}"
        container = host.container(name, mac=mac)
        container.sysctl("net.ipv6.conf.eth0.accept_dad", 0)
        if ip is not None:
            container.run(
                f"ip addr add {ip}/24 dev eth0; ip route add default via {host.address}\n"
                f"ip addr add fd00::{ip.rpartition('.')[2]}/64 dev eth0 nodad"
            )
        return container

    def bindings(self, host: Host) -> dict[str, dict[str, Any]]:
        """IP -> the binding, as ``host``'s controller says."""
        found = self.controller(host).ask("bindings")["bindings"]
        return {binding["ip"]: binding for binding in found}

    def wait_at(self, ip: str, owner: Host, timeout: float = 5) -> None:
        """Wait until every controller knows that ``ip`` is at ``owner``."""
        for host in self.hosts.hosts:
            name = "local" if host is owner else owner.name
            wait_until(
                lambda host=host, name=name: self.bindings(host).get(ip, {}).get("at") == name,  # type: ignore[misc]
                timeout,
                f"{host.name} knows {ip} at {name}: {self.bindings(host).get(ip)}",
            )

    def wait_gone(self, ip: str, timeout: float = 5) -> None:
        """Wait until no controller knows ``ip``."""
        for host in self.hosts.hosts:
            wait_until(lambda host=host: ip not in self.bindings(host), timeout, f"{ip} is gone")  # type: ignore[misc]

    def count(self, host: Host, name: str) -> int:
        """A counter of one host; ``group.name`` for one in a group, ``group`` for all of it."""
        counters: Any = self.controller(host).counters()
        for part in name.split("."):
            counters = counters.get(part, 0) if isinstance(counters, dict) else 0
        return sum(counters.values()) if isinstance(counters, dict) else int(counters)

    def counted(self, name: str) -> int:
        """The same, summed over the hosts."""
        return sum(self.count(host, name) for host in self.hosts.hosts)

    def logs(self) -> str:
        """What the controllers have logged."""
        return "\n".join(controller.output() for controller in self.controllers)


def stop(container: Container) -> None:
    """Stop a container, which may have been stopped already."""
    if container.name in container.host.containers:
        container.stop()


def connected(
    lab: Lab, places: list[Any], config: dict[str, Any] | None = None, **options: Any
) -> Overlay:
    """Build hosts and start their controllers."""
    hosts = build(lab, places, **options)
    return Overlay(hosts, hosts.connect(config, timeout=60))


@contextlib.contextmanager
def monitor(container: Container, *words: str) -> Iterator[list[str]]:
    """What ``ip monitor WORDS`` says in a container; complete after the end."""
    lines: list[str] = []
    process = container.popen(
        ["stdbuf", "-oL", "ip", "-o", "monitor", *words], stdout=subprocess.PIPE
    )
    time.sleep(0.1)
    try:
        yield lines
    finally:
        time.sleep(0.05)
        process.terminate()
        lines += process.communicate()[0].splitlines()


def announce(container: Container, ip: str) -> None:
    """A gratuitous ARP for any address, the container's own or not (arping wants its own)."""
    raw, address = bytes.fromhex(container.mac.replace(":", "")), socket.inet_aton(ip)
    header = b"\xff" * 6 + raw + bytes.fromhex("0806 0001 0800 06 04 0001")
    send(container, header + raw + address + bytes(6) + address)


def send(container: Container, *frames: bytes) -> None:
    """Put frames on a container's wire."""
    with container.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("eth0", 0))
        for frame in frames:
            sock.send(frame)
