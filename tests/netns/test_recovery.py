"""What dies, hangs or moves comes back by itself, and what need not notice does not.

One pair of hosts for the whole module; every test leaves it as it found it: connected. Limits in
seconds are the issue's, times how much slower this machine is just now than when idle.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import CommandFailed, Container, Controller, Host, Lab, wait_until
from lab.layouts import Hosts, build
from tests.netns.overlay import GATEWAY
from tests.netns.test_cold_start import slowness
from tincan.control import messages as api

UNATTACHED = api.ATTACHED_FOR + 0.6  # s after which a silent controller is taken for gone
DEAD = 6.5  # s after which a link that is silent counts as dead
OWNERS = {"10.0.3.5", "10.0.3.7"}


class Pair:
    """Two stock hosts on one LAN; 10.0.3.5 on A, 10.0.3.7 on B; a third host without controller."""

    def __init__(self, lab: Lab) -> None:
        self.hosts: Hosts = build(lab, ["lan", "lan", "lan"])
        self.a, self.b, self.c = self.hosts.hosts
        self.rendezvous = self.hosts.rendezvous
        self.c5 = self.a.container("c5", "10.0.3.5/24")
        self.c7 = self.b.container("c7", "10.0.3.7/24")
        self.one, self.two = self.a.controller(), self.b.controller()

    @property
    def connected(self) -> bool:
        return "b" in self.one.connected() and "a" in self.two.connected()

    def heal(self) -> None:
        for controller in (self.one, self.two):
            if not controller.running:
                controller.start()
        wait_until(lambda: self.connected, 40, "connected")
        self.c5.wait_ping("10.0.3.7")

    def is_complete(self, controller: Controller) -> bool:
        """Whether its status names the peer, connected, and both containers, where they are."""
        try:
            status = controller.ask("status")
        except CommandFailed:
            return False
        peers = {(peer["name"], peer["state"]) for peer in status["peers"]}
        other = "b" if controller is self.one else "a"
        at = {b["ip"]: b["at"] for b in status["bindings"]}
        places = ["local", "b"] if controller is self.one else ["a", "local"]
        return peers == {(other, "connected")} and [at.get(ip) for ip in sorted(OWNERS)] == places


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def whole(lab: Lab) -> Pair:
    return Pair(lab)


@pytest.fixture
def pair(whole: Pair) -> Pair:
    """The pair, connected before the test."""
    whole.heal()
    return whole


def tincan(host: Host) -> int:
    """The pid of the tincan on `host`."""
    inside = os.readlink(f"/proc/{host.pid}/ns/net")
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            here = os.readlink(f"/proc/{entry}/ns/net") == inside
            if here and b"tincan.cli" in Path(f"/proc/{entry}/cmdline").read_bytes():
                found.append(int(entry))
    assert len(found) == 1, found
    return found[0]


def seconds(condition: Callable[[], bool], limit: float, what: str) -> float:
    """Wait for `condition`; fail if it takes longer than `limit` on an idle machine."""
    before = slowness()
    took = wait_until(condition, 10 * limit + 20, what)
    slow = max(before, slowness())
    print(f"\n{what}: {took:.1f} s (machine {slow:.1f} x slower)")
    assert took <= limit * slow + 0.5
    return took


@contextlib.contextmanager
def pinging(source: Container, target: str, interval: float = 0.1) -> Iterator[list[float]]:
    """Ping all the while; at the end the list holds the gaps between answers, longest first."""
    gaps: list[float] = []
    command = ["ping", "-n", "-D", "-i", str(interval), target]
    process = source.popen(command, stdout=subprocess.PIPE)
    try:
        yield gaps
    finally:
        process.send_signal(signal.SIGINT)
        output = process.communicate()[0]
        times = [float(at) for at in re.findall(r"\[([\d.]+)\].*time=", output)]
        gaps += sorted((b - a for a, b in itertools.pairwise(times)), reverse=True)


@contextlib.contextmanager
def iperf3(
    source: Container, server: Container, target: str, length: float
) -> Iterator[list[float]]:
    """A TCP flow all the while; at the end the list holds Mbit/s of each quarter second."""
    rates: list[float] = []
    listening = server.popen(["iperf3", "-s", "-1", "--forceflush"], stdout=subprocess.PIPE)
    assert listening.stdout is not None
    try:
        for line in listening.stdout:
            if "listening" in line:
                break
        words = ["iperf3", "-c", target, "-t", str(length), "-i", "0.25", "-b", "200M", "-J"]
        client = source.popen(words, stdout=subprocess.PIPE)
        yield rates
        report = json.loads(client.communicate(timeout=60)[0])
        rates += [i["sum"]["bits_per_second"] / 1e6 for i in report["intervals"]]
    finally:
        listening.kill()
        listening.communicate()


# --- the controller


def test_killed_controller(pair: Pair) -> None:
    """The flow goes on; the next one takes over the tincan, and knows everything in 3 s."""
    before = tincan(pair.a)
    with iperf3(pair.c5, pair.c7, "10.0.3.7", 6) as rates:
        time.sleep(1)
        pair.one.kill()
        time.sleep(0.5)
        pair.one.start()
        seconds(lambda: pair.is_complete(pair.one), 3, "status complete after kill -9")
    assert min(rates) > 1, rates
    assert tincan(pair.a) == before
    assert "gone; forwarding goes on" in pair.a.path("/run/switchmode/lab/tincan.log").read_text()


@pytest.mark.parametrize("how", ["killed", "hung"])
def test_without_controller(pair: Pair, how: str) -> None:
    """ARP and ND are flooded meanwhile; shared gateways, DHCP and RA stay blocked; and no signal
    of the controller's terminal reaches tincan."""
    pid = tincan(pair.a)
    assert os.getsid(pid) == pid != os.getsid(pair.one.pid)
    pair.one.stop()
    os.killpg(pair.one.pid, signal.SIGINT)  # Ctrl-C
    if how == "killed":
        pair.one.kill()
    time.sleep(UNATTACHED)
    private = f"arp and host {GATEWAY} or udp and port 67"
    with pair.b.capture("lxcbr0", private) as leaked:
        for asker, owner, target in (
            (pair.c5, pair.c7, "10.0.3.7"),
            (pair.c7, pair.c5, "10.0.3.5"),
        ):
            asker.flush_neighbours()
            assert asker.arping(target) == [owner.mac]
            assert asker.ping(target).received == 1
            assert asker.ping(f"{owner.link_local}%eth0", 1, "-6").received == 1
        pair.c5.flush_neighbours()
        pair.a.run(["arping", "-c", "1", "-w", "1", "-I", "lxcbr0", "10.0.3.7"], check=False)
        assert pair.c5.ping(GATEWAY).received == 1
        pair.c5.run(["busybox", "udhcpc", "-n", "-q", "-t", "1", "-T", "1", "-i", "eth0", "-s",
                     "/bin/true"], check=False)  # fmt: skip
    assert not leaked.frames, leaked.summary()
    assert tincan(pair.a) == pid
    if how == "killed":
        pair.one.start()
    else:
        pair.one.resume()
        pair.one.wait()  # it has read the Ctrl-C now
        assert "ipop" not in pair.a.interfaces()


# --- tincan


def test_killed_tincan(pair: Pair) -> None:
    """Links are back in 5 s on either side's account; the TAP never leaves the bridge."""
    for host in (pair.a, pair.b):
        index = host.path("/sys/class/net/ipop/ifindex").read_text()
        watch = host.popen(["ip", "-o", "monitor", "link"], stdout=subprocess.PIPE)
        time.sleep(0.1)
        slow = slowness()
        with pinging(pair.c5, "10.0.3.7") as gaps:
            time.sleep(0.5)
            os.kill(tincan(host), signal.SIGKILL)
            wait_until(lambda: not pair.connected, 5, "noticed")
            wait_until(lambda: pair.connected, 30, "links are back")
            pair.c5.wait_ping("10.0.3.7")
            time.sleep(0.3)
        slow = max(slow, slowness())
        print(f"\ntincan on {host.name} killed: {gaps[0]:.1f} s without an answer")
        assert gaps[0] <= 5 * slow
        watch.terminate()
        said = watch.communicate()[0]
        assert not [line for line in said.splitlines() if "ipop" in line and "Deleted" in line]
        assert index == host.path("/sys/class/net/ipop/ifindex").read_text()
        assert "ipop" in host.ports()


def test_hung_tincan(pair: Pair) -> None:
    """It is killed and replaced."""
    before = tincan(pair.b)
    os.kill(before, signal.SIGSTOP)
    wait_until(lambda: not Path(f"/proc/{before}").exists(), 30, "killed")
    wait_until(lambda: pair.connected, 30, "connected")
    assert tincan(pair.b) != before


def test_deleted_tap(pair: Pair) -> None:
    """`ip link del ipop`: made anew, and put into its bridge again."""
    pair.a.run("ip link del ipop")
    took = wait_until(lambda: "ipop" in pair.a.ports(), 20, "TAP is back")
    took += wait_until(lambda: pair.connected, 30, "connected")
    print(f"\nTAP deleted: connected after {took:.1f} s")
    pair.c5.wait_ping("10.0.3.7")


# --- the rendezvous


def test_killed_rendezvous(pair: Pair) -> None:
    """Links do not notice, for longer than it takes a node to miss it and a link to die; a node
    that comes meanwhile is linked once it is back."""
    events = pair.one.output().count("link to b"), pair.two.output().count("link to a")
    with pinging(pair.c5, "10.0.3.7") as gaps:
        pair.rendezvous.kill()
        three = pair.c.controller()
        wait_until(lambda: not pair.one.ask("status")["signal"]["connected"], 20, "noticed")
        time.sleep(2 * DEAD)
    assert gaps[0] < 1, gaps[:3]
    assert events == (
        pair.one.output().count("link to b"),
        pair.two.output().count("link to a"),
    )
    assert pair.connected
    assert not three.connected()
    pair.rendezvous.start()
    took = three.wait_connected(["a", "b"], 60)
    print(f"\nrendezvous back: new links after {took:.1f} s")
    assert three.terminate() == 0
    wait_until(lambda: pair.one.connected() == {"b"}, 10, "c is gone")


# --- the bridge


def in_bridge(controller: Controller) -> bool:
    """Whether the TAP is in lxcbr0 and forwards, as far as its controller knows."""
    tap = controller.ask("status")["tap"]
    return (tap["bridge"], tap["state"]) == ("lxcbr0", "forwarding")


def test_brctl_by_hand(pair: Pair) -> None:
    """No `bridge` in the configuration: the user's own brctl addif, whenever he likes."""
    assert pair.two.terminate() == 0
    with_bridge = pair.two.config
    pair.two.write({k: v for k, v in with_bridge.items() if k != "bridge"})
    try:
        pair.two.start()
        pair.two.wait_connected(["a"], 30)
        for _ in range(2):
            pair.b.bridge_add("ipop")
            pair.c5.flush_neighbours()
            took = pair.c5.wait_ping("10.0.3.7", 20)
            print(f"\nbrctl addif: answer after {took:.1f} s")
            wait_until(lambda: in_bridge(pair.two), 5, "noticed")
            pair.b.run("brctl delif lxcbr0 ipop")
            wait_until(lambda: not in_bridge(pair.two), 5, "noticed")
    finally:
        pair.two.terminate()
        pair.two.write(with_bridge)


def test_recreated_bridge(pair: Pair) -> None:
    """lxc-net is restarted; the containers are plugged in again; the TAP comes by itself."""
    index = pair.b.path("/sys/class/net/lxcbr0/ifindex")
    before = index.read_text()
    pair.b.recreate_bridge()
    assert index.read_text() != before
    assert "ipop" in pair.b.interfaces()
    took = seconds(lambda: "ipop" in pair.b.ports(), 2, "bridge recreated: TAP in it")
    took += pair.c5.wait_ping("10.0.3.7")
    print(f"first answer {took:.1f} s after the bridge's return")
    wait_until(lambda: in_bridge(pair.two), 5, "noticed")


# --- the uplink


@pytest.mark.parametrize("off", [2, DEAD + 2])
def test_flap(pair: Pair, off: float) -> None:
    """The cable is pulled, for less and for more than a link's patience."""
    pair.a.uplink.flap(off)
    took = pair.c5.wait_ping("10.0.3.7", 30)
    wait_until(lambda: pair.connected, 30, "connected")
    print(f"\ncable out for {off} s: first answer {took:.1f} s after it was back")


@pytest.mark.parametrize("side", ["a", "b"])
def test_readdress(pair: Pair, side: str) -> None:
    """The host's address goes, another comes, as when it wakes up in another place."""
    host = getattr(pair, side)
    controllers = pair.one.pid, pair.two.pid
    new = host.uplink.readdress()
    slow = slowness()
    took = pair.c5.wait_ping("10.0.3.7", 30)
    slow = max(slow, slowness())
    print(f"\naddress of {side} changed: first answer after {took:.1f} s")
    assert took < DEAD * slow
    other = pair.two if side == "a" else pair.one
    wait_until(
        lambda: new in str(other.ask("status")["peers"][0]["path"]), 15, f"{side} is at {new}"
    )
    assert (pair.one.pid, pair.two.pid) == controllers
