"""Loops on the real kernel: hosts whose bridges meet outside the overlay, one host twice in it."""

from __future__ import annotations

import itertools
import socket
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack

from controller.loops.machine import HOLD
from lab import Controller, Home, Host, Lab, Segment, wait_until
from lab.bench.storm import storm
from lab.layouts import Hosts, build

BEACON = "ether dst 03:73:6d:00:00:01"
WITHIN = 1.0  # s, a loop is to be noticed


class Shared:
    """A LAN that hosts' bridges can be plugged into, beside their uplinks."""

    def __init__(self, lab: Lab) -> None:
        self.segment: Segment = lab.segment("shared", prefix4=None)
        self._ports: dict[str, str] = {}

    def plug(self, host: Home) -> None:
        """Make a port of this LAN one of `host`'s bridge, or put the cable back."""
        port = self._ports.get(host.name)
        if port is None:
            port = self._ports[host.name] = f"sh-{host.name}"
            self.segment.run(
                f"ip link add {port} type veth peer name lan1 netns {host.pid};"
                f"ip link set {port} master br0 up"
            )
            host.run("ip link set lan1 master lxcbr0 up")
        self.segment.run(["ip", "link", "set", port, "up"])

    def pull(self, host: Home) -> None:
        """Take the cable out."""
        self.segment.run(["ip", "link", "set", self._ports[host.name], "down"])


def in_order(hosts: Hosts, controllers: list[Controller]) -> list[Controller]:
    """The controllers, the lowest node id first."""
    return sorted(controllers, key=lambda controller: controller.ask("status")["node"]["id"])


def blocked(controller: Controller) -> bool:
    status = controller.ask("status")
    return any(entry["kind"] == "everything" for entry in status["blocked"])


def wait_blocked(wanted: dict[Controller, bool], timeout: float) -> float:
    return wait_until(
        lambda: all(blocked(each) == state for each, state in wanted.items()),
        timeout,
        f"blocked: { {each.host.name: state for each, state in wanted.items()} }",
    )


def frames_of_one_broadcast(hosts: Sequence[Home], sender: Home) -> Counter[str]:
    """Send one broadcast from `sender`'s container; how often does each container get it?"""
    with ExitStack() as stack:
        captures = {
            host: stack.enter_context(host.containers["c"].capture("eth0", "ether proto 0x88b6"))
            for host in hosts
        }
        with sender.containers["c"].socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
            sock.bind(("eth0", 0))
            mac = bytes.fromhex(sender.containers["c"].mac.replace(":", ""))
            sock.send(b"\xff" * 6 + mac + b"\x88\xb6" + bytes(46))
        time.sleep(0.5)
    return Counter(
        {
            host.name: sum(not frame.outgoing for frame in frames)
            for host, frames in captures.items()
            if host is not sender
        }
    )


def containers(hosts: list[Host]) -> None:
    for number, host in enumerate(hosts):
        host.container("c", f"10.0.3.{20 + number}/24")


def test_shared_lan(lab: Lab) -> None:
    """Two hosts, then three, with a LAN in common: one of them serves it, whoever comes or goes."""
    hosts = build(lab, ["public", "public", "public"], profile="unequal")
    shared = Shared(lab)
    containers(hosts.hosts)
    one, two, three = in_order(hosts, hosts.connect())
    a, b, c = one.host, two.host, three.host
    assert frames_of_one_broadcast(hosts.hosts, a) == {b.name: 1, c.name: 1}

    shared.plug(a)
    shared.plug(b)
    took = wait_blocked({one: False, two: True, three: False}, WITHIN + 1)
    print(f"two on one LAN: blocked after {took:.2f} s")
    assert took < WITHIN
    # One of each everywhere, and everybody still reaches everybody.
    time.sleep(0.3)
    for sender in hosts.hosts:
        others = {host.name: 1 for host in hosts.hosts if host is not sender}
        assert frames_of_one_broadcast(hosts.hosts, sender) == others
    for x, y in itertools.permutations(hosts.hosts, 2):
        x.containers["c"].flush_neighbours()
        x.containers["c"].wait_ping(y.containers["c"].ip, 5)
        macs = x.containers["c"].arping(y.containers["c"].ip)
        assert macs == [y.containers["c"].mac], f"{x.name} asks for {y.name}"
    status = two.ask("status")
    assert [(entry["kind"], entry["peer"]) for entry in status["blocked"]] == [
        ("everything", a.name)
    ]
    assert any(a.name in warning and "loop" in warning for warning in status["warnings"])
    assert any(b.name in warning for warning in one.ask("status")["warnings"])
    assert status["counters"]["loops_detected"] == 1
    assert status["counters"]["frames_dropped"]["loop_blocked"] > 0
    assert two.output().count("shares a network segment") == 1
    assert "blocked everything from" in two.status_text()

    # The third comes while one of them sends broadcasts and requests as fast as they are let pass:
    # until one side is blocked, each goes around and around.
    with storm(b.containers["c"], "broadcast", 2, 1000), storm(c.containers["c"], "arp", 2, 200):
        time.sleep(0.5)
        shared.plug(c)
        took = wait_blocked({one: False, two: True, three: True}, WITHIN + 1)
    print(f"three, and a storm: blocked after {took:.2f} s")
    assert took < WITHIN

    shared.pull(a)
    took = wait_blocked({one: False, two: False, three: True}, 6)
    print(f"the first has left: the block has moved after {took:.2f} s")
    for x, y in itertools.permutations(hosts.hosts, 2):
        x.containers["c"].wait_ping(y.containers["c"].ip, 5)
        assert x.containers["c"].arping(y.containers["c"].ip) == [y.containers["c"].mac]
    shared.pull(b)
    took = wait_blocked({one: False, two: False, three: False}, 6)
    print(f"no loop any more: open after {took:.2f} s")
    assert "the loop is gone" in three.output()
    for x, y in itertools.permutations(hosts.hosts, 2):
        x.containers["c"].wait_ping(y.containers["c"].ip, 5)


def test_one_host_attached_twice(lab: Lab) -> None:
    """Two controllers of one network in one bridge; the other host goes on reaching everybody."""
    hosts = build(lab, ["public", "public"], profile="unequal")
    containers(hosts.hosts)
    a, b = hosts.hosts
    first, other = hosts.connect()
    second = a.controller(
        node="a2", tap="ipop2", state_dir="/var/lib/second", run_dir="/run/second"
    )
    began = time.monotonic()
    second.wait_connected(["a", "b"])
    low, high = in_order(hosts, [first, second])
    wait_blocked({low: False, high: True}, 5)
    print(f"attached twice: blocked {time.monotonic() - began:.2f} s after the start")
    assert frames_of_one_broadcast(hosts.hosts, b) == {"a": 1}
    assert frames_of_one_broadcast(hosts.hosts, a) == {"b": 1}
    here, there = a.containers["c"], b.containers["c"]
    for one, two in ((here, there), (there, here)):
        one.wait_ping(two.ip, 5)
        assert one.arping(two.ip) == [two.mac]
    assert not blocked(other)

    # The one that serves loses its controller: its tincan goes on, and the other must not.
    low.kill()
    time.sleep(HOLD + 1.5)
    assert blocked(high)
    assert frames_of_one_broadcast(hosts.hosts, b) == {"a": 1}
    # The blocked one loses its own: the block outlives it, and the next controller keeps it.
    low.write(low.config)  # they share a file
    low.start()
    low.wait_connected([high.config["node"], "b"])
    high.kill()
    assert frames_of_one_broadcast(hosts.hosts, b) == {"a": 1}
    high.write(high.config)
    high.start()
    high.wait_connected([low.config["node"], "b"])
    assert blocked(high)
    time.sleep(HOLD + 0.5)
    assert blocked(high)
    assert not blocked(low)
    # And leaves: the other takes over.
    assert low.terminate() == 0
    wait_blocked({high: False}, HOLD + 2)
    here.wait_ping(there.ip, 5)
    assert frames_of_one_broadcast(hosts.hosts, b) == {"a": 1}


def test_beacons_of_containers(lab: Lab) -> None:
    """What containers can do with beacons: raise counters. Those of others never cross."""
    hosts = build(lab, ["public", "public"], profile="unequal")
    containers(hosts.hosts)
    one, two = in_order(hosts, hosts.connect())
    low, high = one.host.containers["c"], two.host.containers["c"]
    with low.capture("eth0", BEACON) as of_one, high.capture("eth0", BEACON) as of_two:
        time.sleep(4)
    # One every 0.4 s, each on its own bridge only.
    assert 8 <= len(of_one) <= 12
    assert len({frame.data[20:52] for frame in of_one}) == 1
    assert {frame.data[20:52] for frame in of_one} != {frame.data[20:52] for frame in of_two}

    def send(frames: list[bytes], seconds: float) -> None:
        with high.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
            sock.bind(("eth0", 0))
            end = time.monotonic() + seconds
            for frame in itertools.cycle(frames):
                sock.send(frame)
                if time.monotonic() > end:
                    return

    recorded = [frame.data for frame in of_one]
    genuine = recorded[-1]
    forged = [genuine[:-1] + bytes([genuine[-1] ^ 1]), genuine[:40], genuine[:14] + bytes(60)]
    send([*recorded, *(frame.data for frame in of_two), *forged], 2)
    assert not blocked(one)
    assert not blocked(two)
    counters = two.counters()
    assert "loops_detected" not in counters
    assert counters["beacons_unproven"] > 0
    assert counters["beacons_own"] > 0
    assert counters["beacons_refused"]["forged"] > 0
    assert counters["beacons_refused"]["malformed"] > 0
    assert counters["frames_dropped"]["loop_beacon"] > 0
    with low.capture("eth0", f"{BEACON} and inbound") as crossed:
        send([*recorded, *forged], 1)
    assert {frame.data[20:52] for frame in crossed} == {genuine[20:52]}
    assert len(crossed) <= 4  # its own controller's
    low.wait_ping(high.ip, 5)
