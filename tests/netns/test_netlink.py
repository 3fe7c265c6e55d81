"""The netlink room on real bridges and a real TAP, each test in a namespace of its own.

br0 ---- v0 === c0 (a "container", in the same namespace)
 |
tap                     up0 === up1 (uplink and its far end)
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, suppress
from typing import TypeVar

import pytest

from controller.errors import SystemRefusal
from controller.host.interfaces import (
    AddressChanged,
    BridgeAddressChanged,
    EntriesGone,
    EntriesUnknown,
    Event,
    Link,
    LinkChanged,
    RouteChanged,
)
from controller.host.netlink import Netlink
from tests.netns.namespace import Namespace, Tap, needs_root, sh, until

pytestmark = needs_root

TAP = "smtap"
TAP_MAC = "fe:00:00:00:00:aa"
E = TypeVar("E", bound=Event)

BRIDGE = "ip link add br0 type bridge; ip link set br0 up"
PORT = """ip link add v0 type veth peer name c0
    ip link set v0 master br0 up
    ip link set c0 address 02:00:00:00:00:c0 addrgenmode none up"""
UPLINK = """ip link add up0 type veth peer name up1
    ip link set up0 addrgenmode none up; ip link set up1 addrgenmode none up
    ip addr add 192.0.2.10/24 dev up0; ip addr add 2001:db8::10/64 dev up0 nodad"""


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with Namespace("smnl") as namespace:
        yield namespace


class Watcher:
    """Collects the events of a watch."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def all(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    def last(self, kind: type[E]) -> E | None:
        return found[-1] if (found := self.all(kind)) else None

    @property
    def bridge(self) -> Link | None:
        links = self.last(LinkChanged)
        return links.bridge if links else None

    @property
    def tap(self) -> Link | None:
        links = self.last(LinkChanged)
        return links.tap if links else None

    @property
    def configured(self) -> Link | None:
        links = self.last(LinkChanged)
        return links.configured if links else None


@asynccontextmanager
async def watching(netlink: Netlink, *arguments: object) -> AsyncIterator[Watcher]:
    watcher = Watcher()

    async def follow() -> None:
        async for event in netlink.watch(*arguments):  # type: ignore[arg-type]
            watcher.events.append(event)

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(follow())
        await until(lambda: watcher.last(RouteChanged))
        yield watcher
        task.cancel()


def scenario(
    namespace: Namespace, setup: str, play: Callable[[Netlink, Tap], Awaitable[None]]
) -> None:
    """Run ``play`` in the namespace with a Netlink and a TAP that is down and in no bridge."""

    async def run() -> None:
        sh(setup)
        with closing(Tap(TAP)) as tap:
            sh(f"ip link set {TAP} address {TAP_MAC}")
            async with Netlink() as netlink:
                await play(netlink, tap)

    namespace.run(run)


# --- attaching


def test_a_bridge_that_nobody_gave_a_mac_keeps_it(namespace: Namespace) -> None:
    async def play(netlink: Netlink, tap: Tap) -> None:
        before = await netlink.link("br0")
        assert before is not None
        port = await netlink.attach(TAP, "br0")
        after = await netlink.link("br0")
        assert after is not None
        assert after.mac == before.mac
        assert (port.master, port.up, port.mac) == (after.index, True, TAP_MAC)
        assert port.port_state == "forwarding"

    scenario(namespace, BRIDGE, play)


def test_a_bridge_keeps_its_mtu_and_the_tap_takes_it(namespace: Namespace) -> None:
    async def play(netlink: Netlink, tap: Tap) -> None:
        port = await netlink.attach(TAP, "br0")
        bridge = await netlink.link("br0")
        assert bridge is not None
        assert (port.mtu, bridge.mtu) == (9000, 9000)

    scenario(namespace, f"{BRIDGE}; {PORT}; ip link set v0 mtu 9000", play)


def test_the_tap_follows_the_mtu_down_and_up_again(namespace: Namespace) -> None:
    async def play(netlink: Netlink, tap: Tap) -> None:
        await netlink.attach(TAP, "br0")
        async with watching(netlink, TAP) as watcher:

            def mtus(wanted: int) -> bool:
                links = (watcher.bridge, watcher.tap)
                return all(link is not None and link.mtu == wanted for link in links)

            for mtu in (1400, 9000, 1500):
                sh(f"ip link set v0 mtu {mtu}")
                await until(lambda mtu=mtu: mtus(mtu))  # type: ignore[misc]

    scenario(namespace, f"{BRIDGE}; {PORT}", play)


def test_a_bridge_that_the_user_pulled_down_with_our_tap_gets_its_mtu_back(
    namespace: Namespace,
) -> None:
    async def play(netlink: Netlink, tap: Tap) -> None:
        async with watching(netlink, TAP) as watcher:
            sh(f"ip link set {TAP} up; brctl addif br0 {TAP}")
            await until(lambda: watcher.bridge and watcher.bridge.mtu == 9000)

    scenario(namespace, f"{BRIDGE}; {PORT}; ip link set v0 mtu 9000", play)


def test_the_tap_emits_nothing_of_its_own(namespace: Namespace) -> None:
    async def play(netlink: Netlink, tap: Tap) -> None:
        await netlink.silence(TAP)
        await netlink.attach(TAP, "br0")
        while tap.read():
            pass
        sources = set()
        for _ in range(30):
            await asyncio.sleep(0.1)
            while frame := tap.read():
                sources.add(frame[6:12].hex(":"))
        assert TAP_MAC not in sources

    scenario(namespace, f"{BRIDGE}; {PORT}", play)


def test_a_tap_that_was_up_before_loses_its_link_local_address(namespace: Namespace) -> None:
    async def play(netlink: Netlink, tap: Tap) -> None:
        sh(f"ip link set {TAP} up")
        assert "fe80::" in sh(f"ip -o -6 addr show dev {TAP}")
        await netlink.silence(TAP)
        assert sh(f"ip -o -6 addr show dev {TAP}") == ""

    scenario(namespace, f"{BRIDGE}; {PORT}", play)


def test_only_the_own_port_gets_all_multicast(namespace: Namespace) -> None:
    async def play(netlink: Netlink, tap: Tap) -> None:
        await netlink.attach(TAP, "br0")
        assert "mcast_router 2" in sh(f"bridge -d link show dev {TAP}")
        assert "mcast_router 1" in sh("bridge -d link show dev v0")
        assert "mcast_router 1" in sh("ip -d link show br0")

    scenario(namespace, f"{BRIDGE}; {PORT}", play)


def test_attaching_twice_changes_nothing_and_detaching_undoes_it(namespace: Namespace) -> None:
    async def play(netlink: Netlink, tap: Tap) -> None:
        assert await netlink.attach(TAP, "br0") == await netlink.attach(TAP, "br0")
        await netlink.detach(TAP)
        await netlink.detach(TAP)
        link = await netlink.link(TAP)
        assert link is not None
        assert link.master is None

    scenario(namespace, f"{BRIDGE}; {PORT}", play)


def test_the_state_of_a_port_with_spanning_tree(namespace: Namespace) -> None:
    async def play(netlink: Netlink, tap: Tap) -> None:
        port = await netlink.attach(TAP, "br0")
        bridge = await netlink.link("br0")
        assert bridge is not None
        assert bridge.stp
        assert bridge.forward_delay == 2.0
        assert port.port_state == "listening"
        async with watching(netlink, TAP) as watcher:
            await until(lambda: watcher.tap and watcher.tap.port_state == "learning")
            await until(lambda: watcher.tap and watcher.tap.port_state == "forwarding")

    scenario(
        namespace, f"{BRIDGE}; ip link set br0 type bridge stp_state 1 forward_delay 200", play
    )


def test_refusals_name_the_object_and_the_cure(namespace: Namespace) -> None:
    async def play(netlink: Netlink, tap: Tap) -> None:
        with pytest.raises(SystemRefusal, match="there is no bridge br9; create it"):
            await netlink.attach(TAP, "br9")
        with pytest.raises(SystemRefusal, match="up0 is not a Linux bridge but veth"):
            await netlink.attach(TAP, "up0")
        with pytest.raises(SystemRefusal, match="there is no interface nosuch"):
            await netlink.attach("nosuch", "br0")
        with pytest.raises(SystemRefusal, match=f"setting the MTU of {TAP} failed"):
            await netlink.set_mtu(TAP, 10)
        assert await netlink.link("a-name-that-is-too-long") is None
        assert await netlink.link(4711) is None

    scenario(namespace, f"{BRIDGE}; {UPLINK}", play)


def test_without_permission_it_says_so(namespace: Namespace) -> None:
    async def play(netlink: Netlink, tap: Tap) -> None:
        os.setresuid(65534, 65534, 65534)  # of this forked child only
        async with Netlink() as unprivileged:
            assert await unprivileged.link("br0") is not None
            with pytest.raises(SystemRefusal, match="not permitted; run as root"):
                await unprivileged.attach(TAP, "br0")

    scenario(namespace, BRIDGE, play)


# --- being told


def test_addif_and_delif_by_hand_are_noticed(namespace: Namespace) -> None:
    async def play(netlink: Netlink, tap: Tap) -> None:
        async with watching(netlink, TAP) as watcher:
            assert watcher.bridge is None
            sh(f"brctl addif br0 {TAP}")
            await until(lambda: watcher.bridge and watcher.bridge.name == "br0")
            sh(f"brctl delif br0 {TAP}")
            await until(lambda: watcher.bridge is None)

    scenario(namespace, f"{BRIDGE}; {PORT}", play)


def test_a_bridge_deleted_and_recreated_is_noticed(namespace: Namespace) -> None:
    async def play(netlink: Netlink, tap: Tap) -> None:
        await netlink.attach(TAP, "br0")
        async with watching(netlink, TAP, "br0") as watcher:
            assert watcher.bridge
            first = watcher.bridge.index
            sh("ip link del br0")
            await until(lambda: watcher.configured is None)
            assert watcher.bridge is None
            sh(f"{BRIDGE}; ip link set v0 master br0")
            await until(lambda: watcher.configured)
            await netlink.attach(TAP, "br0")
            await until(lambda: watcher.bridge)
            assert watcher.bridge.index != first

    scenario(namespace, f"{BRIDGE}; {PORT}", play)


def test_a_recreation_within_one_breath_is_noticed(namespace: Namespace) -> None:
    async def play(netlink: Netlink, tap: Tap) -> None:
        await netlink.attach(TAP, "br0")
        async with watching(netlink, TAP, "br0") as watcher:
            sh(f"ip link del br0; {BRIDGE}")
            await until(lambda: watcher.bridge is None and watcher.configured)

    scenario(namespace, f"{BRIDGE}; {PORT}", play)


def test_the_tap_coming_and_going_is_noticed(namespace: Namespace) -> None:
    async def play(netlink: Netlink, tap: Tap) -> None:
        async with watching(netlink, "other") as watcher:
            assert watcher.tap is None
            second = Tap("other")
            await until(lambda: watcher.tap)
            second.close()
            await until(lambda: watcher.tap is None)

    scenario(namespace, BRIDGE, play)


def test_the_bridge_s_addresses_are_told_link_local_too(namespace: Namespace) -> None:
    async def play(netlink: Netlink, tap: Tap) -> None:
        await netlink.attach(TAP, "br0")
        async with watching(netlink, TAP) as watcher:

            def addresses() -> set[str]:
                told = watcher.last(BridgeAddressChanged)
                assert told
                assert {mac for _, mac in told.addresses} <= {"00:16:3e:00:00:00"}
                return {ip for ip, _ in told.addresses}

            await until(lambda: "fe80::216:3eff:fe00:0" in addresses())
            assert "10.0.3.1" in addresses()
            sh("ip addr add 10.0.4.1/24 dev br0; ip addr del 10.0.3.1/24 dev br0")
            await until(lambda: addresses() >= {"10.0.4.1"} and "10.0.3.1" not in addresses())
            sh("ip link del br0")
            await until(lambda: not addresses())

    stock = """ip link add br0 address 00:16:3e:00:00:00 type bridge; ip link set br0 up
        ip addr add 10.0.3.1/24 dev br0"""  # as lxc-net makes it
    scenario(namespace, f"{stock}; {PORT}", play)


def test_entries_that_disappear_are_told_at_once(namespace: Namespace) -> None:
    async def play(netlink: Netlink, tap: Tap) -> None:
        await netlink.attach(TAP, "br0")
        tap.write(bytes.fromhex("ffffffffffff 02000000bbbb 9000") + bytes(46))  # from a peer
        sh("ping -c1 -W0.1 -I c0 10.0.9.9 || true")
        bridge = await netlink.link("br0")
        port, tap_link = await netlink.link("v0"), await netlink.link(TAP)
        assert bridge
        assert port
        assert tap_link
        assert await netlink.bridge_entries(bridge) == {
            ("02:00:00:00:00:c0", 0): port.index,
            ("02:00:00:00:bb:bb", 0): tap_link.index,
        }
        async with watching(netlink, TAP) as watcher:
            sh("ip link set c0 down")
            await until(lambda: watcher.last(EntriesGone), 1.0)
            gone = {e.mac: e for told in watcher.all(EntriesGone) for e in told.entries}
            assert gone["02:00:00:00:00:c0"].vlan == 0
            assert gone["02:00:00:00:00:c0"].silent_for < 5.0
            sh(f"bridge fdb del 02:00:00:00:bb:bb dev {TAP} master")
            await asyncio.sleep(0.2)
            gone = {e.mac: e for told in watcher.all(EntriesGone) for e in told.entries}
            assert "02:00:00:00:bb:bb" not in gone  # a remote one: not ours to withdraw

    scenario(namespace, f"{BRIDGE}; {PORT}; ip addr add 10.0.9.1/24 dev c0", play)


def test_an_entry_that_aged_out_is_told_apart(namespace: Namespace) -> None:
    async def play(netlink: Netlink, tap: Tap) -> None:
        await netlink.attach(TAP, "br0")
        async with watching(netlink, TAP) as watcher:
            sh("ping -c1 -W0.1 -I c0 10.0.9.9 || true")
            await until(lambda: watcher.last(EntriesGone), 20.0)
            (gone,) = watcher.all(EntriesGone)[0].entries
            assert gone.mac == "02:00:00:00:00:c0"
            assert gone.silent_for >= 2.0

    setup = f"{BRIDGE}; {PORT}; ip addr add 10.0.9.1/24 dev c0"
    scenario(namespace, f"{setup}; ip link set br0 type bridge ageing_time 200", play)


def test_lost_word_is_made_good(namespace: Namespace) -> None:
    async def play(netlink: Netlink, tap: Tap) -> None:
        await netlink.attach(TAP, "br0")
        sh("ping -c1 -W0.1 -I c0 10.0.9.9 || true")
        async with watching(netlink, TAP, "br0") as watcher:
            events = netlink._events._socket
            events.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            # Nobody reads while this runs: the loop is blocked.
            sh("for i in 1 2 3 4 5 6 7 8 9; do ip addr add 192.0.2.$i/24 dev up0; done")
            sh("ip link set v0 nomaster; ip link set v0 master br0")
            await until(lambda: watcher.last(EntriesUnknown))
            told = watcher.last(EntriesUnknown)
            assert told
            assert ("02:00:00:00:00:c0", 0) not in told.present
            addresses = watcher.last(AddressChanged)
            assert addresses
            assert "192.0.2.9" in addresses.addresses

    scenario(namespace, f"{BRIDGE}; {PORT}; {UPLINK}; ip addr add 10.0.9.1/24 dev c0", play)


def test_a_burst_of_changes_is_told_once(namespace: Namespace) -> None:
    async def play(netlink: Netlink, tap: Tap) -> None:
        async with watching(netlink, TAP) as watcher:
            before = len(watcher.events)
            sh("ip link set up0 down; ip link set up0 up; ip addr add 192.0.2.11/24 dev up0")
            await asyncio.sleep(0.5)
            changed = [e for e in watcher.events[before:] if isinstance(e, AddressChanged)]
            assert len(changed) <= 2
            assert "192.0.2.11" in changed[-1].addresses

    scenario(namespace, f"{BRIDGE}; {UPLINK}", play)


def test_changes_of_the_default_route_are_told(namespace: Namespace) -> None:
    async def play(netlink: Netlink, tap: Tap) -> None:
        async with watching(netlink, TAP) as watcher:

            def default() -> frozenset[tuple[int, str, str]]:
                told = watcher.last(RouteChanged)
                assert told
                return told.default

            assert default() == frozenset()
            sh("ip route add default via 192.0.2.1")
            await until(lambda: default() == {(4, "192.0.2.1", "up0")})
            sh("ip -6 route add default via 2001:db8::1")
            await until(lambda: (6, "2001:db8::1", "up0") in default())
            sh("ip route replace default nexthop via 192.0.2.2 nexthop via 192.0.2.3")
            await until(lambda: (4, "192.0.2.3", "up0") in default())
            sh("ip link set up0 down")
            await until(lambda: default() == frozenset())

    scenario(namespace, UPLINK, play)


# --- candidates


def test_candidates_are_what_leads_outside(namespace: Namespace) -> None:
    async def play(netlink: Netlink, tap: Tap) -> None:
        sh("ip tuntap add tun9 mode tun; ip link set tun9 up; ip addr add 10.8.0.1/24 dev tun9")
        assert (await netlink.host_addresses(TAP)).addresses == (
            "10.0.3.1",
            "192.0.2.10",
            "2001:db8::10",
        )
        await netlink.attach(TAP, "br0")
        assert (await netlink.host_addresses(TAP)).addresses == ("192.0.2.10", "2001:db8::10")
        assert (await netlink.host_addresses(TAP, ["up*"])).addresses == ()
        assert await netlink.goes_through("10.0.3.7", TAP)
        assert not await netlink.goes_through("192.0.2.1", TAP)
        assert not await netlink.goes_through("198.51.100.1", TAP)
        # When the way out is on the bridge, its address is the one that works.
        sh("ip route add default via 10.0.3.254")
        assert (await netlink.host_addresses(TAP)).addresses == (
            "10.0.3.1",
            "192.0.2.10",
            "2001:db8::10",
        )
        assert not await netlink.goes_through("10.0.3.7", TAP)
        sh("ip link set up0 down")
        assert (await netlink.host_addresses(TAP)).addresses == ("10.0.3.1",)

    setup = f"{BRIDGE}; {PORT}; {UPLINK}; ip addr add 10.0.3.1/24 dev br0"
    scenario(namespace, f"{setup}; ip addr add 169.254.7.7/16 scope link dev up0", play)


def test_the_configured_bridge_is_no_candidate_before_the_tap_is_in_it(
    namespace: Namespace,
) -> None:
    async def play(netlink: Netlink, tap: Tap) -> None:
        told = await netlink.host_addresses(TAP, (), "br0")
        assert told == AddressChanged(("192.0.2.10", "2001:db8::10"), ("10.0.3.0/24",))
        assert (await netlink.host_addresses(TAP, (), "br7")).refused == ()
        sh("ip route add default via 10.0.3.254")
        told = await netlink.host_addresses(TAP, (), "br0")
        assert told == AddressChanged(("10.0.3.1", "192.0.2.10", "2001:db8::10"))

    scenario(namespace, f"{BRIDGE}; {PORT}; {UPLINK}; ip addr add 10.0.3.1/24 dev br0", play)


def test_tunnels_and_what_stands_on_the_bridge_are_no_candidates(namespace: Namespace) -> None:
    async def play(netlink: Netlink, tap: Tap) -> None:
        await netlink.attach(TAP, "br0")
        sh("""ip link add vx0 type vxlan id 5 dstport 4789 dev up0
            ip link set vx0 up; ip addr add 10.20.0.1/24 dev vx0
            ip link add mv0 link br0 type macvlan
            ip link set mv0 up; ip addr add 10.21.0.1/24 dev mv0
            ip addr add 10.22.0.1/24 dev c0""")
        assert (await netlink.host_addresses(TAP)).addresses == ("192.0.2.10", "2001:db8::10")

    scenario(namespace, f"{BRIDGE}; {PORT}; {UPLINK}", play)


def test_addresses_that_do_not_last_are_no_candidates(namespace: Namespace) -> None:
    async def play(netlink: Netlink, tap: Tap) -> None:
        sh("""ip addr add 2001:db8::dead/64 dev up0 nodad preferred_lft 0
            ip addr add 2001:db8:1::1/64 dev up0""")
        assert (await netlink.host_addresses(TAP)).addresses == (
            "192.0.2.10",
            "2001:db8::10",
        )  # tentative
        async with watching(netlink, TAP) as watcher:
            await until(lambda: "2001:db8:1::1" in watcher.all(AddressChanged)[-1].addresses)

    scenario(namespace, UPLINK, play)


# --- addresses on the TAP


def test_addresses_are_on_the_tap_only_while_it_is_no_port(namespace: Namespace) -> None:
    async def play(netlink: Netlink, tap: Tap) -> None:
        wanted = ["172.16.0.1/24", "fd00::1/64"]
        await netlink.silence(TAP)
        await netlink.set_up(TAP)
        assert await netlink.set_addresses(TAP, wanted)
        assert await netlink.set_addresses(TAP, wanted)
        shown = sh(f"ip -o addr show dev {TAP}")
        assert all(address in shown for address in wanted)
        await netlink.attach(TAP, "br0")
        assert not await netlink.set_addresses(TAP, wanted)
        assert sh(f"ip -o addr show dev {TAP}") == ""

    scenario(namespace, BRIDGE, play)


# --- the firewall

FORWARD = """nft add table ip filter
    nft 'add chain ip filter FORWARD { type filter hook forward priority filter; policy drop; }'"""


@pytest.mark.parametrize("docker", [False, True])
def test_a_firewall_that_drops_bridged_frames_is_named_with_a_cure_that_works(
    namespace: Namespace, docker: bool
) -> None:
    async def play(netlink: Netlink, tap: Tap) -> None:
        await netlink.attach(TAP, "br0")
        bridge = await netlink.link("br0")
        assert bridge
        container = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK)
        container.bind(("c0", 0x0800))

        async def dropped() -> bool:
            """Whether an IPv4 frame from the TAP does not reach the container."""
            said = await netlink.bridge_nf_drops(bridge)
            tap.write(IPV4_FRAME)
            await asyncio.sleep(0.05)
            arrived = set()
            with suppress(BlockingIOError):
                while True:
                    arrived.add(container.recv(2048)[: len(IPV4_FRAME)])
            assert (IPV4_FRAME in arrived) == (said is None)
            return said is not None

        assert not await dropped()
        sh(FORWARD)
        if docker:
            sh("nft add chain ip filter DOCKER-USER")
            sh("nft add rule ip filter FORWARD counter jump DOCKER-USER")
        assert await dropped()
        said = await netlink.bridge_nf_drops(bridge)
        assert said is not None
        assert said.startswith("bridge-nf-call-iptables is 1 and the firewall's chain FORWARD")
        cure, other_cure = said.split("`")[1::2]
        assert ("DOCKER-USER" in cure) == docker
        sh(cure)
        assert not await dropped()
        sh(f"nft flush ruleset; {FORWARD}")
        assert await dropped()
        sh(other_cure)
        assert not await dropped()

    sysctl = "sysctl -qw net.bridge.bridge-nf-call-iptables=1"
    scenario(namespace, f"{BRIDGE}; {PORT}; {sysctl}", play)


IPV4_FRAME = bytes.fromhex(
    "0200000000c0 0200000000bb 0800"
    "4500001c00000000401160c6 0a000305 0a000307"  # UDP, nothing in it
    "00070007 00080000"
)
