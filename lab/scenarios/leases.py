"""Two stock hosts, one DHCP range, many containers at once: no address is leased twice.

Each host's own dnsmasq, started by the unmodified lxc-net, serves 10.0.3.2 to 10.0.3.254; busybox's
udhcpc asks, with -a (RFC 5227 probes before use). dnsmasq pings an address before it offers it,
and the controllers answer for containers elsewhere.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lab.container import NetnsContainer
from lab.host import Host
from lab.layouts import build
from lab.topology import Lab


@dataclass
class Leases:
    """What containers got: their addresses ("" for none), all of them after ``seconds``."""

    addresses: list[str]
    seconds: float

    @property
    def twice(self) -> list[str]:
        """Addresses that more than one has."""
        return [ip for ip, count in Counter(filter(None, self.addresses)).items() if count > 1]


def lease(containers: Sequence[NetnsContainer], *words: str, timeout: float = 90) -> Leases:
    """Start DHCP clients in all ``containers`` at once; return when all have an address and have
    kept it for two seconds, or after ``timeout`` seconds."""
    start = time.monotonic()
    clients = [container.dhcp("-t", "10", "-T", "2", *words) for container in containers]
    missing = list(containers)
    while missing and time.monotonic() - start < timeout:
        time.sleep(0.5)
        missing = [container for container in missing if not container.ip]
    seconds = time.monotonic() - start
    time.sleep(2)
    addresses = [container.ip for container in containers]
    for client in clients:
        client.kill()
        client.wait()
    return Leases(addresses, seconds)


def slot(mac: str, size: int = 253) -> int:
    """The place in its range where dnsmasq begins to look for an address for ``mac``
    (address_allocate() in its dhcp.c)."""
    place = 0
    for octet in bytes.fromhex(mac.replace(":", "")):
        place = (octet + (place << 6) + (place << 16) - place) % 2**32
    return place % size


def mac_for(wanted: int, serial: int) -> str:
    """The ``serial``th MAC for which dnsmasq begins at place ``wanted``."""
    macs = (f"00:16:3e:{n >> 16:02x}:{n >> 8 & 255:02x}:{n & 255:02x}" for n in range(1, 1 << 24))
    found = (mac for mac in macs if slot(mac) == wanted)
    return next(itertools.islice(found, serial, None))


def crowd(hosts: Sequence[Host], count: int, *, first: int = 0) -> list[NetnsContainer]:
    """``count`` containers on each host, without an address, numbered from ``first``. The nth of
    every host is one to which each dnsmasq would give the same address."""
    made = []
    for number in range(first, first + count):
        for serial, host in enumerate(hosts):
            container = host.container(f"d{number}", mac=mac_for(10 * number + 3, serial))
            assert isinstance(container, NetnsContainer)
            made.append(container)
    return made


def main(words: Sequence[str] | None = None) -> int:
    """Run it; 0 if no address was leased twice and everybody has one in time."""
    parser = argparse.ArgumentParser(prog="lab/scenarios/leases", description=__doc__)
    parser.add_argument("--containers", type=int, default=20, help="on each host")
    parser.add_argument("--without-probes", action="store_true", help="udhcpc without -a")
    parser.add_argument("--timeout", type=float, default=90.0)
    options = parser.parse_args(words)
    with Lab() as lab:
        layout = build(lab, ["easy", "easy"])
        controllers = layout.connect()
        containers = crowd(layout.hosts, options.containers)
        probes = () if options.without_probes else ("-a",)
        leases = lease(containers, *probes, timeout=options.timeout)
        got = sum(bool(ip) for ip in leases.addresses)
        print(
            f"{got} of {len(containers)} containers have an address after {leases.seconds:.1f} s, "
            f"{len(set(leases.addresses) - {''})} of them different"
        )
        for controller in controllers:
            counters = controller.counters()
            print(
                f"{controller.host.name}: echoes answered by proxy "
                f"{counters.get('echo_answered_by_proxy', 0)}, unanswered "
                f"{counters.get('echo_unanswered', 0)}, ARP answered here "
                f"{counters['arp_answered_locally']}, claims defended "
                f"{counters.get('claims_defended', 0)}, conflicts {counters.get('conflicts', 0)}"
            )
        if leases.twice:
            print(f"leased twice: {', '.join(leases.twice)}")
        return int(got < len(containers) or bool(leases.twice))


if __name__ == "__main__":
    sys.exit(main())
