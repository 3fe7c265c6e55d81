"""n2n 1.3 (Debian 12's): an edge on each host and a supernode."""

from lab.bench.contenders.contender import Contender
from lab.bench.topology import ADDRESSES


class N2n(Contender):
    """Edges talk to each other directly after they have met through the supernode.

    An edge of n2n 1.3 knows its peers by the MAC of their TAPs alone; what is meant for a container
    behind a bridge goes through the supernode, which broadcasts it. So the TAP is moved into the
    container, as its only interface: the faster way to run it, a veth and a bridge less on each
    side than the others have.
    """

    name = "n2n"
    mtu = 1360  # of a path of 1500; its default, 1400, makes two IP fragments of every full frame
    settings = "edge and supernode 1.3, Twofish, its TAP inside the container, MTU 1360"
    packages = ("n2n",)

    def start(self) -> None:
        self.pair.right.start("supernode", ["supernode", "-l", "7654"])
        containers = (self.segment.left, self.segment.right)
        for number, (site, container) in enumerate(zip(self.pair.sites, containers, strict=True)):
            mac, address = f"02:00:00:00:01:{number + 1:02x}", f"10.11.0.{number + 1}"
            options = f"-d tap0 -a {address} -c bench -k bench -m {mac} -M {self.mtu} -r"
            options += f" -l {ADDRESSES['right']}:7654 -p {50001 + number}"
            site.start("edge", ["edge", *options.split()])
            site.wait_interface("tap0")
            address = container.run("ip -4 -o addr show eth0 | awk '{print $4}'").stdout.strip()
            site.run(f"ip link set tap0 netns {container.pid}")
            container.run(
                "ip link set eth0 name port down; ip link set tap0 name eth0;"
                f"ip addr flush dev port; ip addr add {address} dev eth0;"
                f"ip link set eth0 mtu {self.mtu} up"
            )
