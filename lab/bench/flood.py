"""Flooding to many peers: what a broadcast costs the host that it comes from.

    python -m lab.bench.flood [LINKS ...] [--rate FRAMES] [--seconds S]      (root; default 2 8)

One host with so many peers, all of them real ones, everybody linked to everybody. A container on
the first host broadcasts plain frames, as many as the policer lets pass, and pings one on the
second host meanwhile. Everything runs on this machine: 33 hosts for 32 links take half a minute to
start on two processors. One kernel keeps the neighbours of all its namespaces in one table, of
1,024 entries by default, so it is made larger as long as that lasts.
"""

import argparse
import contextlib
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import Lab
from lab.bench.storm import busy, dropped, storm
from lab.host import Host
from lab.layouts import build

RATE = 1000.0  # frames/s: what the policer lets pass in the long run
PINGS = 50  # per second
NEIGHBOURS = [
    Path(f"/proc/sys/net/{family}/neigh/default/gc_thresh3") for family in ("ipv4", "ipv6")
]


@dataclass
class Measured:
    """`cpu`: share of a core that tincan of the flooding host took, idle and beside the flood;
    `arrived`: frames per second at the TAPs of the others, least and most; `rtt`: ms, median."""

    links: int
    sent: int
    flooded: float
    cpu: tuple[float, float]
    arrived: tuple[float, float]
    rtt: tuple[float, float]
    drops: dict[str, int]


def written(host: Host) -> int:
    """Frames that tincan has written to the TAP of `host`."""
    return int(host.run("cat /sys/class/net/ipop/statistics/rx_packets").stdout)


@contextlib.contextmanager
def room_for_neighbours(entries: int) -> Iterator[None]:
    """Have the kernel keep so many neighbours for a while."""
    before = {file: file.read_text() for file in NEIGHBOURS}
    try:
        for file, limit in before.items():
            file.write_text(str(max(int(limit), entries)))
        yield
    finally:
        for file, limit in before.items():
            file.write_text(limit)


def measure(links: int, rate: float, seconds: float) -> Measured:
    """Flood from one host to `links` others."""
    with room_for_neighbours(2 * (links + 1) ** 2 + 1024), Lab() as lab:
        hosts = build(lab, ["public"] * (links + 1))
        one, *others = hosts.hosts
        talker, listener = (
            one.container("talk", "10.0.3.20/24"),
            one.container("ask", "10.0.3.21/24"),
        )
        target = hosts.b.container("answer", "10.0.3.30/24")
        controller, *_ = hosts.connect(timeout=60 + 4 * links)
        listener.wait_ping(target.ip)
        time.sleep(3 + links / 4)  # path MTU discovery, first announcements
        count = int(seconds * PINGS)

        def rtt() -> float:
            return statistics.median(listener.ping(target.ip, count, interval=1 / PINGS).rtts)

        cpu, began = busy(one)["tincan"], time.monotonic()
        quiet = rtt()
        idle = (busy(one)["tincan"] - cpu) / (time.monotonic() - began)
        before, at = dropped(controller), [written(host) for host in others]
        with storm(talker, "broadcast", seconds + 1, rate) as sent:
            time.sleep(0.5)
            cpu, began = busy(one)["tincan"], time.monotonic()
            beside = rtt()
            loaded = (busy(one)["tincan"] - cpu) / (time.monotonic() - began)
        time.sleep(0.5)
        after = dropped(controller)
        moved = {name: value - before.get(name, 0) for name, value in after.items()}
        heard = [
            (written(host) - was) / (seconds + 1) for host, was in zip(others, at, strict=True)
        ]
        return Measured(
            links,
            sent[0],
            moved.pop("frames_flooded") / (seconds + 1),
            (idle, loaded),
            (min(heard), max(heard)),
            (quiet, beside),
            {name: value for name, value in moved.items() if value},
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="flood", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rate", type=float, default=RATE, help="frames per second offered")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("links", nargs="*", type=int, default=[2, 8])
    told = parser.parse_args(arguments)
    for links in told.links:
        found = measure(links, told.rate, told.seconds)
        cost = (found.cpu[1] - found.cpu[0]) / (found.flooded * links) * 1e6 if found.flooded else 0
        print(
            f"{links:3} links: {found.flooded:.0f} frames/s flooded, "
            f"{found.arrived[0]:.0f}-{found.arrived[1]:.0f} arrive at each peer; tincan "
            f"{found.cpu[0]:.1%} -> {found.cpu[1]:.1%} of a core ({cost:.1f} us a frame and link); "
            f"ping beside it {found.rtt[0]:.2f} -> {found.rtt[1]:.2f} ms; {found.drops}",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
