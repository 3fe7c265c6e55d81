"""The kernel alone: a plain veth as the ceiling, and VXLAN, which encrypts nothing."""

from lab.bench.contenders.contender import Contender
from lab.bench.topology import ADDRESSES


class Veth(Contender):
    """The two bridges joined by the path itself: no overlay."""

    name = "veth"
    settings = "no overlay: the bridges joined by the path itself"
    encrypted = False

    def start(self) -> None:
        for site in self.pair.sites:
            site.run(f"ip addr flush dev wan; ip link set wan master {self.segment.bridge}")


class Vxlan(Contender):
    """Kernel VXLAN between the two hosts."""

    name = "vxlan"
    mtu = 1450
    settings = "kernel VXLAN, not encrypted, unicast to the other host, containers at MTU 1450"
    encrypted = False

    def start(self) -> None:
        bridge = self.segment.bridge
        for site, other in zip(self.pair.sites, reversed(self.pair.sites), strict=True):
            site.run(
                f"ip link add vx{bridge} mtu {self.mtu} type vxlan id 42 dev wan dstport 4789 "
                f"local {ADDRESSES[site.name]} remote {ADDRESSES[other.name]};"
                f"ip link set vx{bridge} master {bridge} up"
            )
