"""tinc 1.0 in switch mode."""

import os
import re
import signal
from functools import partial

from lab.bench.contenders.contender import Contender
from lab.bench.topology import ADDRESSES, Site
from lab.processes import wait_until

DIRECTORY = "/run/tinc"
SETTLED = re.compile(r"pmtu (\d+) \(min \1 max \1\)")


class Tinc(Contender):
    """One daemon on each host; the left one connects."""

    name = "tinc"
    settings = (
        "tinc 1.0, Mode = switch, UDP; cipher, digest, PMTUDiscovery and ClampMSS as by default "
        "(aes-256-cbc, sha256, on, on)"
    )
    packages = ("tinc",)

    def start(self) -> None:
        public = {}
        for site in self.pair.sites:
            site.run(f"mkdir -p {DIRECTORY}/hosts")
            site.path(f"{DIRECTORY}/tinc.conf").write_text(
                f"Name = {site.name}\nMode = switch\nInterface = tap0\nDevice = /dev/net/tun\n"
                + ("ConnectTo = right\n" if site.name == "left" else "")
            )
            site.path(f"{DIRECTORY}/hosts/{site.name}").write_text(
                f"Address = {ADDRESSES[site.name]}\n"
            )
            site.run(["tincd", "-c", DIRECTORY, "-K", "2048"])
            public[site.name] = site.path(f"{DIRECTORY}/hosts/{site.name}").read_text()
        for site in self.pair.sites:
            for name, text in public.items():
                site.path(f"{DIRECTORY}/hosts/{name}").write_text(text)
            site.start(
                "tincd", ["tincd", "-c", DIRECTORY, "-D", "-d", "1", "--pidfile=/run/tinc.pid"]
            )
        for site in self.pair.sites:
            site.wait_interface("tap0")
            site.run(f"ip link set tap0 master {self.segment.bridge} up")

    def settle(self) -> None:
        """Until it knows the path MTU, it sends large frames through its TCP connection."""
        for site in self.pair.sites:
            wait_until(partial(self._knows_mtu, site), 60, "tinc's path MTU")

    def _knows_mtu(self, site: Site) -> bool:
        for pid in site.pids():
            os.kill(pid, signal.SIGUSR2)  # it logs what it knows of all nodes
        log = next(self.pair.logs.glob(f"{site.name}-tincd-*.log"))
        return bool(SETTLED.search(log.read_text()))
