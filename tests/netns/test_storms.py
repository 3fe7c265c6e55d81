"""Storms on the real kernel: 100,000 frames/s from one container for three seconds.

What they leave of a TCP flow is measured in lab.bench.storm; here is what must hold at any speed.
"""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

from lab import Container, Lab
from lab.bench.storm import KINDS, dropped, storm
from lab.layouts import build
from tincan.switching.policy import FLOOD_BURST, FLOOD_RATE
from tincan.switching.storm import CALM_FOR

SECONDS = 3.0
SIZE = 30_000_000  # bytes of a file that crosses meanwhile
PER_SECOND = 100_000.0
BACKGROUND = 100  # frames of everybody else meanwhile: ARP, beacons, IPv6's own
ANSWER = 1.0  # s
ONSETS = ("arp", "unknown")  # storms that begin in calm weather, as the first does
QUESTIONS = 200.0  # ARP requests/s of one container that the other side may see

# What the counters say of frames that come in by the TAP; captures see copies of them.
OF_THE_TAP = re.compile(r"(?!capture_|.*_from_peer$|injected)")


def lost_before_the_bridge() -> int:
    """Frames that veths have lost, in any namespace: the backlog of a processor was full."""
    lines = Path("/proc/net/softnet_stat").read_text().splitlines()
    return sum(int(line.split()[1], 16) for line in lines)


def carry(client: Container, server: Container) -> None:
    """Send SIZE random bytes over TCP, and compare."""
    command = "socat -u TCP-LISTEN:5000,reuseaddr STDOUT | sha256sum"
    listening = server.popen(["sh", "-c", command], stdout=subprocess.PIPE)
    told = client.run(
        f"head -c {SIZE} /dev/urandom > /run/file; sha256sum < /run/file;"
        f"socat -u FILE:/run/file TCP:{server.ip}:5000,retry=20,interval=0.1; rm /run/file"
    ).stdout
    assert listening.communicate(timeout=20)[0] == told


def test_storms(lab: Lab) -> None:
    hosts = build(lab, ["public", "public"], profile="unequal")
    a, b = hosts.hosts
    stormy, asker = a.container("storm"), a.container("ask", "10.0.3.22/24")
    client, server = a.container("tcp", "10.0.3.20/24"), b.container("tcp", "10.0.3.30/24")
    one, two = hosts.connect()
    client.wait_ping(server.ip)
    for number, kind in enumerate(KINDS):
        if kind in ONSETS:
            time.sleep(CALM_FOR + 1)  # the filter of the storm before is gone
        owner = b.container("owner", f"10.0.3.{40 + number}/24")
        before, lost = dropped(one), lost_before_the_bridge()
        received = dropped(two)
        heard = owner.counter("eth0", "rx_packets")
        began = time.monotonic()
        with storm(stormy, kind, SECONDS, PER_SECOND) as sent:
            time.sleep(1)
            # Somebody else asks for somebody who has never been asked for.
            asked = asker.run(
                ["arping", "-b", "-f", "-w", "3", "-I", "eth0", owner.ip], check=False
            ).stdout
            carry(client, server)
            pinged = client.ping(server.ip, 3)
        took = time.monotonic() - began
        time.sleep(0.5)  # what is queued
        crossed = owner.counter("eth0", "rx_packets") - heard
        after, lost = dropped(one), lost_before_the_bridge() - lost
        counted = {
            name: count - before.get(name, 0)
            for name, count in after.items()
            if OF_THE_TAP.match(name) and count != before.get(name, 0)
        }
        print(f"{kind}: sent {sent[0]}, {crossed} crossed, {counted}, {lost} lost before")

        assert sent[0] > 30_000, "the sender was too slow for a storm"
        # Every frame is in a counter, or was lost before it came to us.
        assert sent[0] - lost <= sum(counted.values()) <= sent[0] + BACKGROUND
        rate = QUESTIONS if kind == "arp" else FLOOD_RATE
        assert crossed <= took * rate + FLOOD_BURST + BACKGROUND
        if kind != "arp":
            assert crossed >= SECONDS * FLOOD_RATE / 2, "held to the rate, not silenced"
        found = re.search(rf"from {owner.ip} \[(\S+)\]\s+([\d.]+)ms", asked)
        assert found, f"nobody answered during {kind}: {asked}"
        assert found[1].lower() == owner.mac
        assert float(found[2]) < ANSWER * 1000
        assert pinged.received == 3, pinged.output
        assert not pinged.duplicates
        news = {k: v - received.get(k, 0) for k, v in dropped(two).items()}
        assert news.get("broadcast_policed_from_peer", 0) < FLOOD_BURST
        owner.stop()
    time.sleep(CALM_FOR + 1)
    assert "the storm is over" in "".join(lab.output().values())
