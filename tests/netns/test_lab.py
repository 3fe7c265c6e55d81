"""The lab is as hard as what users have: stock bridges, NATs that behave like real ones."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import CommandFailed, Host, Lab, LabError, LxcContainer, wait_until
from lab.layouts import Hosts, build
from lab.topology import processes


def udp(host: Host, port: int = 0) -> socket.socket:
    """A UDP socket of `host`, IPv4, with a deadline."""
    sock = host.socket()
    sock.bind(("0.0.0.0", port))
    sock.settimeout(2)
    return sock


def outside(inner: socket.socket, server: socket.socket, address: str) -> tuple[str, int]:
    """What `server` at `address` sees as the source of a datagram from `inner`."""
    inner.sendto(b"?", (address, server.getsockname()[1]))
    source: tuple[str, int] = server.recvfrom(100)[1]
    return source


def arrives(receiver: socket.socket, timeout: float = 0.3) -> bool:
    """Whether a datagram arrives within `timeout` seconds."""
    receiver.settimeout(timeout)
    try:
        receiver.recv(100)
    except TimeoutError:
        return False
    return True


def test_stock_hosts_have_equal_bridges(two_hosts_easy_nat: Hosts) -> None:
    for host in two_hosts_easy_nat.hosts:
        assert host.mac_of("lxcbr0") == "00:16:3e:00:00:00"
        assert "10.0.3.1/24" in host.run("ip -4 -br addr show lxcbr0").stdout
        assert host.uplink.ip4 == "192.168.1.10"
        assert "masquerade" in host.run("nft list table ip lxc").stdout
        assert host.run("hostname").stdout.strip() == host.name
        assert host.pids("dnsmasq")


def test_unequal_hosts(hosts: Callable[..., Hosts]) -> None:
    pair = hosts("public", "public", profile="unequal")
    assert pair.a.mac_of("lxcbr0") != pair.b.mac_of("lxcbr0")
    assert pair.a.address != pair.b.address
    assert f"{pair.b.address}/24" in pair.b.run("ip -4 -br addr show lxcbr0").stdout


def test_docker_host_drops_between_its_own_containers(hosts: Callable[..., Hosts]) -> None:
    """That is what bridge-nf-call-iptables with a dropping FORWARD policy does."""
    host = hosts("public", profile="docker").a
    if not host.path("/proc/sys/net/bridge").exists():
        pytest.skip("no br_netfilter in this kernel")
    one = host.container("one", "10.0.3.5/24")
    host.container("two", "10.0.3.6/24")
    assert one.arping("10.0.3.6")
    assert one.ping("10.0.3.6", 1, "-W", "0.3").received == 0


def test_containers_reach_each_other_and_the_outside(two_hosts_easy_nat: Hosts) -> None:
    a, server = two_hosts_easy_nat.a, two_hosts_easy_nat.server
    one = a.container("one", "10.0.3.5/24", ip6="fd00::5/64")
    two = a.container("two", "10.0.3.6/24", mac="02:00:00:00:00:06")
    with a.capture("lxcbr0", "arp and host 10.0.3.6") as frames:
        ping = one.ping("10.0.3.6", 3)
        assert (ping.received, ping.lost, ping.duplicates) == (3, 0, 0)
        assert one.neighbours()["10.0.3.6"] == "02:00:00:00:00:06" == two.mac
        assert [packet.op for packet in frames.wait(2)] == [1, 2]
    assert one.arping("10.0.3.6") == ["02:00:00:00:00:06"]
    assert one.arping("10.0.3.77") == []
    assert one.ping(server.uplink.ip4).received == 1
    assert one.addresses(6) == ["fd00::5"]


def test_lxc_container_gets_a_lease(two_hosts_lan: Hosts) -> None:
    container = two_hosts_lan.a.container("c", "dhcp", kind="lxc")
    assert isinstance(container, LxcContainer)
    ip = container.wait_lease()
    assert two_hosts_lan.a.leases()[container.mac] == ip
    assert ip in container.attach("ip addr")
    assert container.port in two_hosts_lan.a.ports()


def test_bare_container_gets_a_lease(two_hosts_lan: Hosts) -> None:
    container = two_hosts_lan.a.container("c", "dhcp")
    assert container.wait_lease().startswith("10.0.3.")


@pytest.mark.parametrize("kind", ["easy", "hard"])
def test_nat_mapping(hosts: Callable[..., Hosts], lab: Lab, kind: str) -> None:
    """Easy: one outside port for all destinations (RFC 4787, REQ-1). Hard: one for each."""
    layout = hosts(kind)
    other = lab.host("other", lab.networks["public"], "plain")
    with udp(layout.a) as inner, udp(layout.server) as one, udp(other) as two:
        first = outside(inner, one, layout.server.uplink.ip4)
        second = outside(inner, two, other.uplink.ip4)
        assert first[0] == second[0] == "203.0.113.11"
        assert (first[1] == second[1]) == (kind == "easy")
        assert outside(inner, one, layout.server.uplink.ip4) == first


def test_nat_lets_nothing_new_in(two_hosts_easy_nat: Hosts, lab: Lab) -> None:
    """A datagram from someone who was not written to is dropped, to a mapped port too."""
    layout = two_hosts_easy_nat
    other = lab.host("other", lab.networks["public"], "plain")
    with udp(layout.a) as inner, udp(layout.server) as known, udp(other) as stranger:
        mapped = outside(inner, known, layout.server.uplink.ip4)
        stranger.sendto(b"?", mapped)
        assert not arrives(inner)
        known.sendto(b"!", mapped)
        assert arrives(inner)


def test_hole_punching_between_easy_nats(two_hosts_easy_nat: Hosts) -> None:
    """Both write first; the early datagram must not cost the later one its port."""
    layout = two_hosts_easy_nat
    address = layout.server.uplink.ip4
    with udp(layout.a) as a, udp(layout.b) as b, udp(layout.server) as server:
        at_a, at_b = outside(a, server, address), outside(b, server, address)
        a.sendto(b"from a", at_b)
        b.sendto(b"from b", at_a)
        assert arrives(a)
        a.sendto(b"from a", at_b)
        assert arrives(b)


def test_public_network_drops_silently(hosts: Callable[..., Hosts]) -> None:
    layout = hosts("public")
    with udp(layout.a) as sock:
        sock.connect(("10.9.9.9", 9))
        for _ in range(3):
            sock.send(b"?")  # an ICMP error would be raised here
        assert not arrives(sock)


@pytest.mark.parametrize("place", ["ipv6", "ipv6-firewall"])
def test_ipv6_only(hosts: Callable[..., Hosts], place: str) -> None:
    layout = hosts(place, place)
    a, b, server = layout.a, layout.b, layout.server
    assert not a.uplink.ip4
    a.run(["ping", "-c", "1", "-W", "2", server.uplink.ip6])
    inward = server.run(["ping", "-c", "1", "-W", "1", a.uplink.ip6], check=False).returncode
    across = a.run(["ping", "-c", "1", "-W", "1", b.uplink.ip6], check=False).returncode
    assert (inward == across == 0) == (place == "ipv6")


def test_two_hosts_behind_one_nat(hosts: Callable[..., Hosts]) -> None:
    layout = hosts("shared", "shared")
    assert layout.a.uplink.ip4 != layout.b.uplink.ip4
    layout.a.run(["ping", "-c", "1", "-W", "2", layout.b.uplink.ip4])
    layout.a.run(["ping", "-c", "1", "-W", "2", layout.server.uplink.ip4])


def test_loss_and_rate(two_hosts_lan: Hosts) -> None:
    a, server = two_hosts_lan.a, two_hosts_lan.server
    a.uplink.wire(loss=1)
    assert a.run(["ping", "-c1", "-W", "0.3", server.uplink.ip4], check=False).returncode
    a.uplink.wire(rate="20mbit")
    report = a.container("c", "10.0.3.5/24").iperf3(server, server.uplink.ip4, 1)
    assert report["end"]["sum_received"]["bits_per_second"] < 30e6
    a.uplink.wire()
    a.run(["ping", "-c1", "-W", "2", server.uplink.ip4])


def test_cable_and_address(two_hosts_easy_nat: Hosts) -> None:
    a, server = two_hosts_easy_nat.a, two_hosts_easy_nat.server
    a.uplink.down()
    assert a.path("/sys/class/net/eth0/carrier").read_text().strip() == "0"
    a.uplink.up()
    assert a.uplink.readdress() == "192.168.1.11"
    a.run(["ping", "-c1", "-W", "2", server.uplink.ip4])


def test_bridge_goes_and_returns(two_hosts_lan: Hosts) -> None:
    a = two_hosts_lan.a
    one, two = a.container("one", "10.0.3.5/24"), a.container("two", "10.0.3.6/24")
    before = a.run("cat /sys/class/net/lxcbr0/ifindex").stdout
    a.recreate_bridge()
    assert a.run("cat /sys/class/net/lxcbr0/ifindex").stdout != before
    assert a.mac_of("lxcbr0") == "00:16:3e:00:00:00"
    assert one.ping("10.0.3.6").received == 1
    two.stop()
    assert a.ports() == [one.port]


def test_coturn_answers(hosts: Callable[..., Hosts]) -> None:
    layout = hosts("easy")
    coturn = layout.coturn()
    assert coturn.config["server"] == f"{layout.server.uplink.ip4}:3479"
    with udp(layout.a) as sock:
        binding = bytes.fromhex("000100002112a442") + bytes(12)
        sock.sendto(binding, (coturn.address, coturn.port))
        assert sock.recv(200)[:2] == b"\x01\x01"
    coturn.terminate()
    assert not layout.server.pids("turnserver")


def test_vlan_tags_are_in_captures(two_hosts_lan: Hosts) -> None:
    a = two_hosts_lan.a
    frame = bytes.fromhex("ffffffffffff 020000000005 8100 0064 88b5") + bytes(46)
    one = a.container("one", "10.0.3.5/24")
    with a.capture("lxcbr0") as frames, one.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("eth0", 0))
        sock.send(frame)
        frames.wait(1, where=lambda packet: packet.src == "02:00:00:00:00:05" and packet.vlan)
    assert frame in [seen.data for seen in frames]


def machine() -> str:
    """What a lab could change on the machine itself and no other program does all the time."""
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if "/sys" in line]
    listings = [sorted(os.listdir(path)) for path in ("/var/lib", "/var/log", "/etc/default")]
    commands = "ip -4 route; ip -6 route; nft list ruleset"
    said = subprocess.run(["sh", "-c", commands], capture_output=True, text=True, check=False)
    return f"{mounts}\n{listings}\n{said.stdout}"


def test_nothing_is_left() -> None:
    before = machine()
    lab = Lab()
    with lab:
        layout = build(lab, ["easy"])
        layout.a.container("c", "10.0.3.5/24", kind="lxc")
        # A daemon: in a session of its own, its parent gone, its environment empty.
        layout.a.run("env -i setsid sleep 1000 >/dev/null 2>&1 &")
        wait_until(lambda: bool(layout.a.pids("sleep")), 5, "the daemon runs")
        logs = lab.logs
    assert not processes(lab.name)
    assert not logs.exists()
    assert lab.name not in Lab.names()
    assert not list(Path("/sys/fs/cgroup").glob(f"**/{lab.name}*"))
    assert machine() == before


def test_failures_are_told(two_hosts_lan: Hosts, lab: Lab) -> None:
    with pytest.raises(CommandFailed, match="exit status 3"):
        two_hosts_lan.a.run("echo no; exit 3")
    with pytest.raises(CommandFailed, match="over"):
        two_hosts_lan.a.run(["sleep", "5"], timeout=0.1)
    with pytest.raises(LabError, match="exists"):
        lab.host("a", lab.networks["lan"])
    with pytest.raises(LabError, match="exists"):
        Lab(lab.name)


def test_commands_across_processes() -> None:
    """lab/up, lab/exec and lab/down: each a process of its own."""
    name = f"play{os.getpid()}"
    checkout = Path(__file__).parents[2]

    def lab(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "lab.commands", *words]
        return subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)

    built = lab("up", name, "--bare", "--containers", "netns", "--nat", "hard")
    try:
        assert built.returncode == 0, built.stderr
        assert "10.0.3.7" in built.stdout
        assert lab("up", name).returncode == 1
        inside = lab("exec", "--name", name, "a/c5", "ping", "-c1", "10.0.3.1")
        assert " 0% packet loss" in inside.stdout
        assert lab("exec", "--name", name, "b", "hostname").stdout == "b\n"
        assert "no c in lab" in lab("exec", "--name", name, "c").stderr
    finally:
        assert lab("down", name).returncode == 0
    assert lab("down", name).returncode == 1
    assert not processes(name)


def test_labs_of_killed_runs_are_reaped() -> None:
    program = "from lab import Lab; import os; l = Lab('%s'); l.segment(); os.kill(os.getpid(), 9)"
    name = f"killed{os.getpid()}"
    checkout = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program % name], cwd=checkout, check=False)
    assert processes(name)
    assert name in Lab.reap()
    assert not processes(name)
