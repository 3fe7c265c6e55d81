"""fastd 22 in TAP mode."""

from lab.bench.contenders.contender import Contender
from lab.bench.topology import ADDRESSES

FILE = "/run/fastd.conf"
METHOD = "salsa2012+umac"


class Fastd(Contender):
    """One daemon on each host, static peers."""

    name = "fastd"
    mtu = 1426  # its manual's figure for TAP over IPv4 on a path of 1500
    settings = f"tap, UDP, method {METHOD} (the recommended one), containers at MTU {mtu}"
    packages = ("fastd",)

    def start(self) -> None:
        secret, public = {}, {}
        for site in self.pair.sites:
            text = site.run(["fastd", "--generate-key"]).stdout
            keys = dict(line.split(": ") for line in text.splitlines() if ": " in line)
            secret[site.name] = keys["Secret"].strip()
            public[site.name] = keys["Public"].strip()
        left, right = self.pair.sites
        for site, other in ((right, left), (left, right)):
            # Only the left side calls, once the right one listens: two handshakes that cross leave
            # each side with another session, and one that is not answered is repeated after 18 s.
            remote = f"remote {ADDRESSES[other.name]}:10000; " if site is left else ""
            site.path(FILE).write_text(
                f'interface "tap0"; mode tap; method "{METHOD}"; mtu {self.mtu};\n'
                f'bind {ADDRESSES[site.name]}:10000; secret "{secret[site.name]}";\n'
                f'peer "{other.name}" {{ key "{public[other.name]}"; {remote}}}\n'
            )
            site.start("fastd", ["fastd", "-c", FILE])
            site.wait_interface("tap0")
            site.run(f"ip link set tap0 master {self.segment.bridge} up")
