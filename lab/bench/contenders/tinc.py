"""tinc 1.0 in switch mode."""

from lab.bench.contenders.contender import Contender
from lab.bench.topology import ADDRESSES

DIRECTORY = "/run/tinc"


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
