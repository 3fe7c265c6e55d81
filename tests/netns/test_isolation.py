"""What crosses and what stays: IPv6 and multicast cross; each host's own gateway, DHCP and
router advertisements stay, whether a controller is attached or not."""

from __future__ import annotations

import re
import shlex
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6ND_RA, ICMPv6ND_RS, ICMPv6NDOptPrefixInfo, IPv6
from scapy.layers.l2 import Ether

from lab import Container, Controller, Host, Lab, wait_until
from lab.layouts import Hosts, build
from tincan.control import messages as api

GATEWAY = "10.0.3.1"
GATEWAY_MAC = "00:16:3e:00:00:00"
GATEWAY_LINK_LOCAL = "fe80::216:3eff:fe00:0"
UNATTACHED = api.ATTACHED_FOR + 0.6
"""s after which a controller that says nothing is taken for gone, both here and at the peer."""
PRIVATE = (
    f"(arp and host {GATEWAY}) or ether src {GATEWAY_MAC} or host {GATEWAY_LINK_LOCAL}"
    " or (udp and (port 67 or port 68 or port 546 or port 547))"
    " or (icmp6 and (ip6[40] == 133 or ip6[40] == 134))"
)
"""What must not come from the other host."""


@dataclass
class Scene:
    """Two stock hosts, connected; 10.0.3.5 on A and 10.0.3.7 on B, with IPv6."""

    hosts: Hosts
    one: Controller
    two: Controller
    c5: Container
    c7: Container


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One lab for the stock hosts."""
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def scene(lab: Lab) -> Scene:
    """See Scene."""
    hosts = build(lab, ["easy", "easy"])
    c5 = hosts.a.container("c5", "10.0.3.5/24", ip6="fd00::5/64")
    c7 = hosts.b.container("c7", "10.0.3.7/24", ip6="fd00::7/64")
    one, two = hosts.connect()
    wait_until(lambda: bool(c5.link_local and c7.link_local), 10, "link-local addresses")
    return Scene(hosts, one, two, c5, c7)


@pytest.fixture
def other_lab() -> Iterator[Lab]:
    """A lab for one test."""
    with Lab() as lab:
        yield lab


# --- what crosses


def test_ipv6(scene: Scene) -> None:
    """Neighbour discovery and all, from the first packet on; the link-local addresses, too."""
    ping = scene.c5.ping("fd00::7", 5)
    assert (ping.received, ping.duplicates) == (5, 0), ping.output
    ping = scene.c7.ping(f"{scene.c5.link_local}%eth0", 3)
    assert (ping.received, ping.duplicates) == (3, 0), ping.output
    assert scene.c5.neighbours()["fd00::7"] == scene.c7.mac
    scene.c5.flush_neighbours()
    assert scene.c5.ping("fd00::7", 2).lost == 0


@pytest.mark.parametrize(
    ("family", "group"), [(socket.AF_INET, "239.1.2.3"), (socket.AF_INET6, "ff15::1234")]
)
def test_multicast(scene: Scene, family: socket.AddressFamily, group: str) -> None:
    """A program that joined a group hears a program on the other host, each datagram once."""
    with ExitStack() as stack:
        sockets = {}
        for container in (scene.c5, scene.c7):
            sockets[container] = stack.enter_context(container.socket(family))
        for container, sock in sockets.items():
            join(container, sock, family, group)
        time.sleep(0.2)
        for sender, receiver in ((scene.c5, scene.c7), (scene.c7, scene.c5)):
            for number in range(10):
                sockets[sender].sendto(f"{sender.name} {number}".encode(), (group, 5353))
            heard = []
            sockets[receiver].settimeout(0.5)
            while True:
                try:
                    heard.append(sockets[receiver].recv(100).decode())
                except TimeoutError:
                    break
            from_there = [text for text in heard if text.startswith(sender.name)]
            assert from_there == [f"{sender.name} {number}" for number in range(10)]


def join(container: Container, sock: socket.socket, family: int, group: str) -> None:
    """Join `group` on eth0 and listen on port 5353."""
    index = int(container.run("cat /sys/class/net/eth0/ifindex").stdout)
    if family == socket.AF_INET:
        membership = struct.pack("=4s4si", socket.inet_aton(group), b"\0\0\0\0", index)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, membership)
        sock.bind(("0.0.0.0", 5353))
    else:
        packed = socket.inet_pton(family, group)
        membership = struct.pack("=16si", packed, index)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, membership)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        sock.bind(("::", 5353))


# --- what stays


def attached(scene: Scene) -> None:
    """Nothing happens."""


def one_hangs(scene: Scene) -> None:
    scene.one.stop()
    time.sleep(UNATTACHED)


def both_hang(scene: Scene) -> None:
    scene.one.stop()
    scene.two.stop()
    time.sleep(UNATTACHED)


def both_killed(scene: Scene) -> None:
    scene.one.kill()
    scene.two.kill()
    time.sleep(UNATTACHED)


@pytest.fixture
def restored(scene: Scene) -> Iterator[None]:
    """Afterwards both controllers run, and are connected."""
    yield
    for controller in (scene.one, scene.two):
        if controller.running:
            controller.resume()
        else:
            controller.start()
    scene.one.wait_connected("b")
    scene.two.wait_connected("a")
    # Taken over, not started anew, and attached again.
    for host in (scene.hosts.a, scene.hosts.b):
        assert len(host.pids("tincan")) == 1
    time.sleep(UNATTACHED)


@pytest.mark.parametrize("happens", [attached, one_hangs, both_hang, both_killed])
def test_nothing_private_crosses(
    scene: Scene, restored: None, happens: Callable[[Scene], None]
) -> None:
    """From either host to the other; and meanwhile the containers still find each other."""
    hosts, c5, c7 = scene.hosts, scene.c5, scene.c7
    happens(scene)
    for asker, target, host, other in (
        (c5, c7, hosts.a, hosts.b),
        (c7, c5, hosts.b, hosts.a),
    ):
        with (
            other.capture("ipop", f"inbound and ({PRIVATE})") as come,
            host.capture("ipop", f"outbound and ({PRIVATE})") as offered,
        ):
            speak_privately(asker, host)
            time.sleep(0.4)
        assert not come.frames, come.summary()
        assert len(offered) > 5, offered.summary()  # they were at the TAP, and went no further
        asker.flush_neighbours()
        ping = asker.ping(target.ip, 2)
        assert (ping.received, ping.duplicates) == (2, 0), ping.output
        ping = asker.ping(target.addresses(6)[0], 2)
        assert (ping.received, ping.duplicates) == (2, 0), ping.output


def speak_privately(container: Container, host: Host) -> None:
    """All that is between a container and its own host."""
    container.flush_neighbours()
    assert container.ping(GATEWAY, 2).lost == 0
    assert container.arping(GATEWAY) == [GATEWAY_MAC]  # one, and its own host's
    mac = container.mac
    everyone = Ether(src=mac, dst="33:33:00:00:00:01") / IPv6(
        src=container.link_local, dst="ff02::1", hlim=255
    )
    prefix = ICMPv6NDOptPrefixInfo(prefix="2001:db8:bad::", prefixlen=64)
    frames = [
        everyone / ICMPv6ND_RA(routerlifetime=1800) / prefix,
        Ether(src=mac, dst="33:33:00:00:00:02")
        / IPv6(src=container.link_local, dst="ff02::2", hlim=255)
        / ICMPv6ND_RS(),
        broadcast(mac, 68, 67),
        broadcast(mac, 67, 68),
        Ether(src=mac, dst="33:33:00:01:00:02")
        / IPv6(src=container.link_local, dst="ff02::1:2")
        / UDP(sport=546, dport=547),
    ]
    gateway = [
        Ether(src=GATEWAY_MAC, dst="33:33:00:00:00:01")
        / IPv6(src=GATEWAY_LINK_LOCAL, dst="ff02::1", hlim=255)
        / ICMPv6ND_RA(routerlifetime=0),
        broadcast(GATEWAY_MAC, 67, 68),
    ]
    for place, interface, packets in ((container, "eth0", frames), (host, "lxcbr0", gateway)):
        with place.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind((interface, 0))
            for packet in packets:
                sender.send(bytes(packet))
    host.run(f"arping -b -c 1 -w 1 -s {GATEWAY} -I lxcbr0 10.0.3.77", check=False)
    host.run("rdisc6 -1 -r 1 -w 100 lxcbr0", check=False)


def broadcast(mac: str, source: int, destination: int) -> Ether:
    """A DHCP-shaped broadcast."""
    frame = Ether(src=mac, dst="ff:ff:ff:ff:ff:ff") / IP(src="0.0.0.0", dst="255.255.255.255")
    return frame / UDP(sport=source, dport=destination) / bytes(300)


def test_a_container_s_dhcp_works_at_home(scene: Scene) -> None:
    """With both hosts' dnsmasq serving the same range."""
    hosts = scene.hosts
    with (
        hosts.b.capture("lxcbr0", "udp and (port 67 or port 68)") as on_b,
        hosts.a.capture("lxcbr0", "udp and (port 67 or port 68)") as on_a,
    ):
        leasing = hosts.a.container("d1", "dhcp")
        address = leasing.wait_lease()
    assert on_a.frames
    assert not on_b.frames, on_b.summary()
    assert set(hosts.a.leases()) == {leasing.mac}
    assert not hosts.b.leases()
    assert scene.c7.ping(address, 2).lost == 0
    leasing.stop()


# --- hosts that are not stock


def test_docker_s_firewall_is_named_once_with_a_cure_that_works(other_lab: Lab) -> None:
    hosts = build(other_lab, ["public", "public"], profile="docker")
    if not hosts.a.path("/proc/sys/net/bridge").exists():
        pytest.skip("no br_netfilter in this kernel")
    c5 = hosts.a.container("c5", "10.0.3.5/24")
    hosts.b.container("c7", "10.0.3.7/24")
    controllers = hosts.connect()
    assert c5.ping("10.0.3.7", 1, "-W", "0.5").received == 0
    for host, controller in zip(hosts.hosts, controllers, strict=True):
        (warning,) = [w for w in controller.status()["tap"]["warnings"] if "bridge-nf" in w]
        assert warning in " ".join(controller.status_text().split())
        assert controller.output().count("bridge-nf-call-iptables") == warning.count(
            "bridge-nf-call-iptables"
        ), controller.output()
        (cure,) = re.findall(r"run `(nft [^`]+)`", warning)
        host.run(shlex.split(cure))
    assert c5.ping("10.0.3.7", 3).lost == 0
    for controller in controllers:
        assert not controller.status()["tap"]["warnings"]


def test_unequal_bridges_reach_each_other_s_containers(other_lab: Lab) -> None:
    """Then a host reaches the other's containers and the other way round, and the hosts each
    other."""
    hosts = build(other_lab, ["easy", "easy"], profile="unequal")
    c5 = hosts.a.container("c5", "10.0.3.5/24")
    c7 = hosts.b.container("c7", "10.0.3.7/24")
    hosts.connect()
    assert c5.ping("10.0.3.7", 3).lost == 0
    for host, container in ((hosts.a, c7), (hosts.b, c5)):
        ping = host.run(f"ping -n -c 3 -i 0.2 -W 2 {container.ip}").stdout
        assert " 0% packet loss" in ping
        assert "DUP!" not in ping
        assert "Redirect" not in ping
        assert container.ping(host.address, 3).lost == 0
    assert " 0% packet loss" in hosts.a.run(f"ping -n -c 2 -i 0.2 {hosts.b.address}").stdout
    # Each container's own gateway is still its own host's.
    assert c5.arping(hosts.a.address) == [hosts.a.mac_of("lxcbr0")]
