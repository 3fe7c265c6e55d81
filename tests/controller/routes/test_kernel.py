"""The client that installs routes, on a twin of the kernel. The kernel itself: tests/netns."""

import asyncio
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from controller.errors import SystemRefusal
from controller.routes import kernel
from controller.routes.kernel import PROTO, NetlinkClient, NetlinkClientConfig
from controller.routes.values import Destination, Network, NextHop, NextHopType, Vni
from tests.controller.routes.waiting import until

VNI, OTHER = Vni(23), Vni(42)
NET = Destination.parse("10.0.1.0/24")
NET6 = Destination.parse("2001:db8:1::/64")
A1, A2 = NextHop.parse("2001:db8::a1"), NextHop.parse("2001:db8::a2")
CONFIG = NetlinkClientConfig({VNI: 100, OTHER: 200}, "overlay-tun")


@dataclass
class Link:
    """An interface of the twin."""

    index: int


@dataclass
class Twin:
    """A kernel in memory: routes by table, network and protocol."""

    device: int | None = 7
    routes: dict[tuple[int, str, int], list[str]] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    refuses: int = 0

    async def link(self, which: str) -> Link | None:
        """Return the device, if it is there."""
        return Link(self.device) if self.device is not None and which == "overlay-tun" else None

    async def replace_route(
        self,
        network: Network,
        table: int,
        proto: int,
        device: int,
        targets: Sequence[ipaddress.IPv6Address],
    ) -> None:
        """Do as the kernel does: IPv6 replaces only a route of the same form."""
        await asyncio.sleep(0)
        if self.refuses:
            self.refuses -= 1
            raise SystemRefusal("no")
        assert device == self.device
        key = table, str(network), proto
        before = self.routes.get(key)
        if before and network.version == 6:
            assert (len(before) > 1) == (len(targets) > 1)
        self.routes[key] = [str(target) for target in targets]
        self.log.append(f"replace {network}")

    async def delete_route(self, network: Network, table: int, proto: int) -> None:
        """Forget it, if it is there."""
        await asyncio.sleep(0)
        self.routes.pop((table, str(network), proto), None)
        self.log.append(f"delete {network}")

    async def routed_networks(self, table: int, proto: int) -> list[Network]:
        """Return those of the table and the protocol."""
        found = [n for t, n, p in self.routes if (t, p) == (table, proto)]
        return [ipaddress.ip_network(each) for each in found]


async def test_several_next_hops_are_one_route() -> None:
    twin = Twin()
    async with NetlinkClient(CONFIG, twin) as client:
        client.add_route(VNI, NET, A2)
        client.add_route(VNI, NET, A1)
        client.add_route(OTHER, NET, A1)
        await until(lambda: len(twin.routes) == 2)
        assert twin.routes == {
            (100, "10.0.1.0/24", PROTO): ["2001:db8::a1", "2001:db8::a2"],
            (200, "10.0.1.0/24", PROTO): ["2001:db8::a1"],
        }
        assert twin.log == ["replace 10.0.1.0/24"] * 2  # a burst is one change
        client.remove_route(VNI, NET, A2)
        await until(lambda: twin.routes[100, "10.0.1.0/24", PROTO] == ["2001:db8::a1"])
        client.remove_route(VNI, NET, A1)
        await until(lambda: (100, "10.0.1.0/24", PROTO) not in twin.routes)
    assert twin.routes == {}


async def test_ipv6_from_one_to_two_and_back() -> None:
    twin = Twin()
    key = 100, "2001:db8:1::/64", PROTO
    async with NetlinkClient(CONFIG, twin) as client:
        client.add_route(VNI, NET6, A1)
        await until(lambda: key in twin.routes)
        client.add_route(VNI, NET6, A2)
        await until(lambda: len(twin.routes.get(key, ())) == 2)
        client.remove_route(VNI, NET6, A1)
        await until(lambda: twin.routes.get(key) == ["2001:db8::a2"])


async def test_the_same_hop_of_two_kinds_counts_once_and_goes_with_the_last() -> None:
    twin = Twin()
    lb = A1._replace(type=NextHopType.LOADBALANCER_TARGET)
    async with NetlinkClient(CONFIG, twin) as client:
        client.add_route(VNI, NET, A1)
        client.add_route(VNI, NET, lb)
        await until(lambda: bool(twin.routes))
        assert twin.routes[100, "10.0.1.0/24", PROTO] == ["2001:db8::a1"]
        client.remove_route(VNI, NET, A1)
        await asyncio.sleep(0.02)
        assert twin.routes
        client.remove_route(VNI, NET, lb)
        await until(lambda: not twin.routes)


async def test_only_stale_routes_of_its_own_are_removed() -> None:
    others = {(100, "10.9.0.0/24", 4): ["x"], (300, "10.9.0.0/24", PROTO): ["x"]}
    twin = Twin(routes={(100, "10.8.0.0/24", PROTO): ["x"], **others})
    async with NetlinkClient(CONFIG, twin) as client:
        assert twin.routes == others
        client.add_route(VNI, NET, A1)
        await until(lambda: len(twin.routes) == 3)
        twin.routes[200, "10.7.0.0/24", PROTO] = ["x"]
        await client.cleanup()
        assert twin.routes == others
    assert twin.routes == others


async def test_what_is_not_for_the_kernel_is_counted() -> None:
    twin = Twin()
    config = NetlinkClientConfig({VNI: 100}, "overlay-tun", ipv4_only=True)
    async with NetlinkClient(config, twin) as client:
        client.add_route(Vni(1), NET, A1)
        client.add_route(VNI, NET6, A1)
        client.add_route(VNI, NET, NextHop.parse("192.0.2.1"))
        client.remove_route(VNI, NET6, A1)
        await asyncio.sleep(0.02)
        assert not twin.routes
        assert client.skipped == 4


async def test_what_is_refused_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "RETRY_S", 0.02)
    twin = Twin(refuses=2)
    async with NetlinkClient(CONFIG, twin) as client:
        client.add_route(VNI, NET, A1)
        await until(lambda: bool(twin.routes))
        assert client.refused == 2


async def test_another_device_of_the_same_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "RETRY_S", 0.02)
    twin = Twin()
    async with NetlinkClient(CONFIG, twin) as client:
        client.add_route(VNI, NET, A1)
        await until(lambda: bool(twin.routes))
        twin.routes.clear()  # the kernel removes the routes of a device with it
        twin.device = 8
        await until(lambda: bool(twin.routes))


async def test_no_tunnel_device() -> None:
    with pytest.raises(SystemRefusal, match="ip link add overlay-tun type ip6tnl"):
        async with NetlinkClient(CONFIG, Twin(device=None)):
            pass
