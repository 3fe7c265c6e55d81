"""Routes of MetalBond in a real kernel. It need not know ip6tnl: a TUN device stands in for one.

What packets do with them needs a tunnel: see the kernel of a distribution.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv6Address

import pytest

from controller.errors import SystemRefusal
from controller.host.netlink import Netlink
from controller.routes.kernel import PROTO, NetlinkClient, NetlinkClientConfig
from controller.routes.values import Destination, NextHop, Vni
from tests.netns.namespace import Namespace, needs_root, until

pytestmark = needs_root

VNI = Vni(23)
CONFIG = NetlinkClientConfig({VNI: 1000}, "tun9")
A1, A2 = NextHop.parse("2001:db8::a1"), NextHop.parse("2001:db8::a2")
NET4 = Destination.parse("10.0.1.5/24")
NET6 = Destination.parse("2001:db8:1::/64")
DEFAULT = Destination.parse("0.0.0.0/0")


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with Namespace("smtr") as namespace:
        namespace.sh("ip tuntap add tun9 mode tun; ip link set tun9 up")
        yield namespace


def shown(family: int = 4) -> str:
    """Return table 1000 as iproute2 shows it, or nothing if there is none."""
    command = ["ip", f"-{family}", "route", "show", "table", "1000"]
    text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return " ".join(text.split())


def test_routes_as_the_kernel_has_them(namespace: Namespace) -> None:
    async def scenario() -> None:
        async with Netlink() as netlink, NetlinkClient(CONFIG, netlink) as client:
            client.add_route(VNI, NET4, A1)
            await until(lambda: "dst 2001:db8::a1" in shown())
            assert shown().startswith("10.0.1.0/24 encap ip6 id 0 src :: dst 2001:db8::a1")
            assert "dev tun9 proto 254" in shown()
            client.add_route(VNI, NET4, A2)
            await until(lambda: shown().count("nexthop") == 2)
            assert "dst 2001:db8::a2" in shown()
            client.remove_route(VNI, NET4, A1)
            await until(lambda: "a1" not in shown())
            assert "dst 2001:db8::a2" in shown()
            client.add_route(VNI, DEFAULT, A1)
            await until(lambda: "default" in shown())

            client.add_route(VNI, NET6, A1)
            await until(lambda: "2001:db8:1::/64" in shown(6))
            assert "nexthop" not in shown(6)
            assert "via" not in shown(6)
            client.add_route(VNI, NET6, A2)
            await until(lambda: shown(6).count("nexthop") == 2)
            client.remove_route(VNI, NET6, A1)
            await until(lambda: "nexthop" not in shown(6) and "a2" in shown(6))
            assert await netlink.routed_networks(1000, PROTO) != []
        assert shown() == shown(6) == ""

    namespace.run(scenario)


def test_nothing_of_others_is_touched(namespace: Namespace) -> None:
    namespace.sh(
        "ip route add 10.8.0.0/24 dev tun9 table 1000 proto 254;"
        "ip route add 10.9.0.0/24 dev tun9 table 1000 proto 4;"
        "ip route add 10.9.1.0/24 dev tun9 table 1001 proto 254;"
        "ip -6 route add 2001:db8:8::/64 dev tun9 table 1000 proto 254;"
        "ip route add 10.9.2.0/24 dev tun9 proto 254"
    )

    async def scenario() -> None:
        async with Netlink() as netlink, NetlinkClient(CONFIG, netlink):
            assert "10.8.0.0" not in shown()
            assert shown(6) == ""
            assert "10.9.0.0" in shown()

    namespace.run(scenario)
    everything = namespace.sh("ip route show table all")
    for kept in ("10.9.0.0/24", "10.9.1.0/24", "10.9.2.0/24"):
        assert kept in everything


def test_a_refusal_says_what_was_refused(namespace: Namespace) -> None:
    async def scenario() -> None:
        async with Netlink() as netlink:
            target = IPv6Address("2001:db8::1")
            await netlink.delete_route(NET4.network, 1000, PROTO)  # none there: nothing to do
            with pytest.raises(SystemRefusal, match=r"routing 10\.0\.1\.0/24 "):
                await netlink.replace_route(NET4.network, 1000, PROTO, 4711, [target])

    namespace.run(scenario)


def test_the_whole_program(namespace: Namespace) -> None:
    """A reflector and two clients: routes come, go with their announcer, and go at exit."""
    program = ["ip", "netns", "exec", namespace.name, sys.executable, "-m", "controller.cli"]
    started: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([*program, "metalbond", *words], stderr=subprocess.DEVNULL)
        started.append(process)
        return process

    def table() -> str:
        return namespace.sh("ip route show table 1000 2>/dev/null || true")

    try:
        start("server", "--listen", "[::1]:4711")
        installing = start(
            *("client", "--server", "[::1]:4711", "--subscribe", "23"),
            *("--install-routes", "23#1000", "--tun", "tun9", "--cleanup"),
        )
        announcing = start(
            *("client", "--server", "[::1]:4711"),
            *("--announce", "23#10.0.1.0/24#2001:db8::a1,23#10.0.1.0/24#2001:db8::a2"),
        )
        eventually(lambda: table().count("nexthop") == 2)
        announcing.terminate()
        assert announcing.wait(20) == 0
        eventually(lambda: not table())
        start(
            *("client", "--server", "[::1]:4711"),
            *("--announce", "23#10.0.1.0/24#2001:db8::a1"),
        )
        eventually(lambda: "10.0.1.0/24" in table())
        installing.terminate()
        assert installing.wait(20) == 0
        assert table() == ""
    finally:
        for process in started:
            process.kill()
            process.wait()


def eventually(there: Callable[[], bool]) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + 40
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.02)
