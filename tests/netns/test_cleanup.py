"""The end: within 5 s, nothing of ours left, nothing of others touched, whatever state we are in.

The whole of a host is compared before and after: interfaces with everything about them, bridges'
ports, files, sockets, processes.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import Controller, Host, Lab, wait_until
from lab.layouts import Hosts, build
from tests.netns.test_cold_start import slowness
from tests.netns.test_recovery import tincan

SOON = 5.0  # s, the promise
RUN_ROOT = "/run/switchmode"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def hosts(lab: Lab) -> Hosts:
    hosts = build(lab, ["lan", "lan"])
    hosts.a.container("c5", "10.0.3.5/24")
    hosts.b.container("c7", "10.0.3.7/24")
    assert hosts.rendezvous.running
    for host in hosts.hosts:
        wait_settled(host)
    return hosts


def wait_settled(host: Host) -> None:
    """Wait until the kernel has looked for duplicates of every address."""
    wait_until(lambda: "tentative" not in host.run("ip addr").stdout, 10, "addresses settled")


def programs(host: Host) -> list[str]:
    """The command lines of what runs in the host's network, but for what passes through."""
    inside = os.readlink(f"/proc/{host.pid}/ns/net")
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{entry}/ns/net") == inside:
                found.append(Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" "))
    return sorted(os.fsdecode(words) for words in found if words)


def snapshot(host: Host) -> dict[str, Any]:
    """All that we could leave behind or spoil on `host`."""
    links = json.loads(host.run(["ip", "-j", "-d", "link"]).stdout)
    for link in links:
        for data in ("info_data", "info_slave_data"):
            there = link.get("linkinfo", {}).get(data, {})
            for timer in [key for key in there if key.endswith("_timer")]:
                del there[timer]
    return {
        "links": links,
        "addresses": host.run(["ip", "-o", "addr"]).stdout.replace(" dynamic", ""),
        "routes": host.run("ip route show table all; ip -6 route show table all").stdout,
        "filter": host.run(["nft", "list", "ruleset"]).stdout,
        "ports": host.ports(),
        "files": sorted(
            str(path.relative_to(host.path("/")))
            for path in host.path(RUN_ROOT).parent.glob("**/*")
            if not path.name.startswith("controller-") and "udhcpc" not in path.name
        ),
        "udp": host.run(["ss", "-Hlun"]).stdout.count("\n"),
        "programs": programs(host),
    }


def same(before: dict[str, Any], host: Host) -> None:
    """Assert that `host` is as it was."""
    after = snapshot(host)
    spoilt = [
        "\n".join(difflib.ndiff(lines(before[part]), lines(after[part])))
        for part in before
        if before[part] != after[part]
    ]
    assert not spoilt, "\n".join(spoilt)


def lines(part: Any) -> list[str]:
    return json.dumps(part, indent=1).splitlines()


def ends(controller: Controller, number: int = signal.SIGTERM, status: int = 0) -> float:
    """Send a signal; assert that it is out in time with `status`, and return the seconds."""
    began = time.monotonic()
    controller.process.send_signal(number)
    assert controller.wait(30) == status, controller.output()
    took = time.monotonic() - began
    slow = slowness()
    print(f"\nout after {took:.2f} s (machine {slow:.1f} x slower)")
    assert took < SOON * max(1.0, slow / 2)
    assert "Traceback" not in controller.output()
    return took


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_connected(hosts: Hosts, number: int) -> None:
    before = [snapshot(host) for host in hosts.hosts]
    controllers = hosts.connect()
    assert "ipop" in hosts.a.ports()
    for controller in controllers:
        ends(controller, number)
    for host, was in zip(hosts.hosts, before, strict=True):
        same(was, host)


@pytest.mark.parametrize(
    "after", ["nothing", "lock", "tincan", "tincan.sock", "ipop", "controller.sock", "port"]
)
def test_during_start(hosts: Hosts, after: str) -> None:
    """SIGTERM as soon as the start has come so far."""
    a = hosts.a
    before = snapshot(a)
    directory = a.path(f"{RUN_ROOT}/lab")
    controller = a.controller()
    reached: Callable[[], bool] = {
        "nothing": lambda: True,
        "lock": lambda: (directory / "controller.lock").exists(),
        "tincan": lambda: any("tincan.cli" in words for words in programs(a)),
        "tincan.sock": lambda: (directory / "tincan.sock").exists(),
        "ipop": lambda: "ipop" in a.interfaces(),
        "controller.sock": lambda: (directory / "controller.sock").exists(),
        "port": lambda: "ipop" in a.ports(),
    }[after]
    while not reached():
        assert controller.running, controller.output()
    # Before Python itself is up nobody can catch a signal; nothing has been made, either.
    ends(controller, status=-signal.SIGTERM if after == "nothing" else 0)
    same(before, a)


def test_rendezvous_unreachable(hosts: Hosts) -> None:
    """No answer at all, and a name that no resolver resolves: neither holds up the end."""
    a = hosts.a
    resolver = a.path("/run/resolv.conf")
    resolver.write_text("nameserver 192.168.7.250\noptions timeout:30 attempts:2\n")
    a.run("touch /run/nsswitch.conf; mount --bind /run/resolv.conf /etc/resolv.conf")
    try:
        before = snapshot(a)
        for url in ("ws://192.168.7.251:8765", "ws://rendezvous.example:8765"):
            controller = a.controller(signal=url)
            wait_until(lambda: "ipop" in a.ports(), 20, "attached")
            time.sleep(0.7)
            ends(controller)
            same(before, a)
    finally:
        a.run("umount /etc/resolv.conf")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_without_tincan(hosts: Hosts, how: int) -> None:
    """It was killed just now, or it hangs."""
    a = hosts.a
    before = snapshot(a)
    controller = a.controller()
    wait_until(lambda: "ipop" in a.ports(), 20, "attached")
    os.kill(tincan(a), how)
    ends(controller)
    same(before, a)


def test_after_kill_of_both(hosts: Hosts) -> None:
    """What kill -9 left does not disturb the next one, and goes with it."""
    a = hosts.a
    before = snapshot(a)
    controller = a.controller()
    wait_until(lambda: "ipop" in a.ports(), 20, "attached")
    pid = tincan(a)
    controller.kill()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: "ipop" not in a.interfaces(), 5, "the TAP went with them")
    left = sorted(path.name for path in a.path(f"{RUN_ROOT}/lab").iterdir())
    assert left == ["controller.lock", "controller.sock", "tincan.log", "tincan.sock"]
    controller.start()
    wait_until(lambda: "ipop" in a.ports(), 20, "attached")
    assert controller.ask("status")["tap"]["bridge"] == "lxcbr0"
    ends(controller)
    same(before, a)


def test_hung_tincan_of_a_dead_controller(hosts: Hosts) -> None:
    """The next controller does not wait for it for ever."""
    a = hosts.a
    before = snapshot(a)
    controller = a.controller()
    wait_until(lambda: "ipop" in a.ports(), 20, "attached")
    pid = tincan(a)
    os.kill(pid, signal.SIGSTOP)
    controller.kill()
    controller.start()
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), 30, "the old one is gone")
    wait_until(lambda: "ipop" in a.ports(), 20, "attached")
    ends(controller)
    same(before, a)


def test_taken_over_tincan(hosts: Hosts) -> None:
    """A controller gives back what another one began."""
    a = hosts.a
    before = snapshot(a)
    controller = a.controller()
    wait_until(lambda: "ipop" in a.ports(), 20, "attached")
    pid = tincan(a)
    controller.kill()
    controller.start()
    wait_until(lambda: "connected" in controller.output(), 20, "it runs")
    assert tincan(a) == pid
    ends(controller)
    same(before, a)


def test_second_controller(hosts: Hosts) -> None:
    """The same directories: refused in one line, and the first is not disturbed."""
    first = hosts.a.controller()
    wait_until(lambda: "ipop" in hosts.a.ports(), 20, "attached")
    second = hosts.a.run(first.command, check=False, timeout=20)
    assert second.returncode == 1
    assert second.stderr.count("\n") == 1
    assert f"in use by another controller (pid {first.pid})" in second.stderr
    assert first.ask("status")["tap"]["bridge"] == "lxcbr0"
    ends(first)


def test_two_networks(hosts: Hosts) -> None:
    """Two controllers for two networks; the end of one leaves the other alone."""
    a = hosts.a
    before = snapshot(a)
    one, two = a.controller(), a.controller(network="other", tap="ipop2")
    wait_until(lambda: {"ipop", "ipop2"} <= set(a.ports()), 30, "both attached")
    ends(one)
    assert "ipop2" in a.ports()
    assert two.ask("status")["network"] == "other"
    ends(two)
    same(before, a)


def test_bridge_without_mac(hosts: Hosts) -> None:
    """A bridge that nobody gave a MAC, with another MTU and ports of its own, stays as it is."""
    b = hosts.b
    b.run(
        "ip link add br7 mtu 1400 type bridge; ip link add p7 mtu 1400 type veth peer name q7;"
        "ip link set q7 up;"
        "ip link set p7 master br7 up; ip addr add 10.7.0.1/24 dev br7; ip link set br7 up"
    )
    wait_settled(b)
    try:
        before = snapshot(b)
        shape = "cat /sys/class/net/br7/address /sys/class/net/br7/mtu /sys/class/net/p7/mtu"
        state = b.run(shape).stdout
        controller = b.controller(bridge="br7")
        wait_until(lambda: "ipop" in b.ports("br7"), 20, "attached")
        wait_until(lambda: "connected" in controller.output(), 20, "it runs")
        assert b.run(shape).stdout == state
        ends(controller)
        same(before, b)
    finally:
        b.run("ip link del p7; ip link del br7")


def test_ctrl_c_in_a_terminal(hosts: Hosts) -> None:
    """As a user does it: the terminal signals the whole foreground group, twice."""
    a = hosts.a
    before = snapshot(a)
    controller = a.controller()
    wait_until(lambda: "ipop" in a.ports(), 20, "attached")
    os.killpg(controller.pid, signal.SIGINT)
    time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(controller.pid, signal.SIGINT)
    assert controller.wait(SOON * slowness()) == 0
    same(before, a)


def test_hangup_of_stderr(hosts: Hosts) -> None:
    """Whoever read the log has gone: `controller 2>&1 | head` must not leave anything."""
    a = hosts.a
    before = snapshot(a)
    file = a.controller()
    wait_until(lambda: "ipop" in a.ports(), 20, "attached")
    ends(file)
    process = a.popen(["sh", "-c", f"{' '.join(file.command)} 2>&1 | head -n 1"])
    wait_until(lambda: "ipop" in a.ports(), 20, "attached")
    wait_until(lambda: not a.pids("head"), 20, "head has what it wanted")
    for pid in a.pids("controller"):
        os.kill(pid, signal.SIGTERM)
    process.wait(20)
    same(before, a)
