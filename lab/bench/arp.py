"""How long a container waits for an ARP answer: from its own bridge, from us, from afar.

    sudo python -m lab.bench.arp [--rounds 200] [--no-load] [--json]

A raw socket in the container asks, as its kernel would, and times the reply. "kernel" is another
container's own answer on the same bridge; "ours" the local controller's for a container elsewhere
that it knows; "first" the first question about an address that nobody has heard of, which crosses
the link and comes back. The link's round trip is that of pings in between, through both tunnels.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import statistics
import struct
import sys
import time
from collections.abc import Sequence

from lab.container import Container
from lab.layouts import build
from lab.topology import Lab

PAUSE = 0.02  # s between questions
PATIENCE = 0.5  # s for an answer
FIRSTS = 40  # addresses that nobody has heard of


class Asker:
    """Asks for addresses from inside ``container``."""

    def __init__(self, container: Container) -> None:
        self.mac = bytes.fromhex(container.mac.replace(":", ""))
        self.ip = socket.inet_aton(container.ip)
        self.sock = container.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self.sock.bind(("eth0", 0x0806))

    def ask(self, ip: str) -> float | None:
        """Return the milliseconds until ``ip`` answers, None if it does not."""
        target = socket.inet_aton(ip)
        format_ = struct.pack(">HHHBBH", 0x0806, 1, 0x0800, 6, 4, 1)
        frame = b"\xff" * 6 + self.mac + format_ + self.mac + self.ip + bytes(6) + target
        start = time.perf_counter()
        self.sock.send(frame)
        while (left := start + PATIENCE - time.perf_counter()) > 0:
            if not select.select([self.sock], [], [], left)[0]:
                return None
            seen = self.sock.recv(100)
            if seen[20:22] == b"\0\2" and seen[28:32] == target:
                return (time.perf_counter() - start) * 1000
        return None

    def ask_often(self, ips: Sequence[str]) -> list[float]:
        """Return the times of those that answered."""
        times = []
        for ip in ips:
            took = self.ask(ip)
            if took is not None:
                times.append(took)
            time.sleep(PAUSE)
        return times


def summary(times: Sequence[float], asked: int) -> dict[str, float]:
    """Median, 95th percentile and worst in ms; and how many went unanswered."""
    ordered = sorted(times)
    return {
        "median_ms": round(statistics.median(ordered), 3),
        "p95_ms": round(ordered[int(len(ordered) * 0.95)], 3),
        "worst_ms": round(ordered[-1], 3),
        "unanswered": asked - len(ordered),
    }


def measure(rounds: int, load: bool) -> dict[str, dict[str, float]]:
    """Build two hosts, and measure."""
    found = {}
    with Lab() as lab:
        layout = build(lab, ["lan", "lan"])
        layout.connect()
        p = layout.a.container("p", "10.0.3.5/24")
        beside = layout.a.container("beside", "10.0.3.6/24")
        q = layout.b.container("q", "10.0.3.7/24")
        p.ping(q.ip, 3)
        asker = Asker(p)
        time.sleep(3)
        ping = p.ping(q.ip, 100, interval=PAUSE)
        found["round trip"] = summary(ping.rtts, 100)
        found["kernel"] = summary(asker.ask_often([beside.ip] * rounds), rounds)
        found["ours"] = summary(asker.ask_often([q.ip] * rounds), rounds)
        firsts = [f"10.0.3.{100 + n}" for n in range(FIRSTS)]
        q.run("\n".join(f"ip addr add {ip}/24 dev eth0" for ip in firsts))
        found["first"] = summary(asker.ask_often(firsts), FIRSTS)
        if load:
            server = q.popen(["iperf3", "--server", "--one-off"])
            time.sleep(0.5)
            seconds = rounds * (PAUSE + 0.005) * 2 + 2
            client = p.popen(["iperf3", "--client", q.ip, "--time", str(int(seconds) + 1)])
            time.sleep(1)
            found["kernel, bulk TCP"] = summary(asker.ask_often([beside.ip] * rounds), rounds)
            found["ours, bulk TCP"] = summary(asker.ask_often([q.ip] * rounds), rounds)
            for process in (client, server):
                process.kill()
                process.wait()
        asker.sock.close()
    return found


def main(words: Sequence[str] | None = None) -> int:
    """Print what was measured."""
    parser = argparse.ArgumentParser(prog="lab.bench.arp", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--no-load", action="store_true", help="leave out bulk TCP")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(words)
    found = measure(options.rounds, not options.no_load)
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    print(f"{'':18}{'median':>10}{'95 %':>10}{'worst':>10}  unanswered")
    for name, row in found.items():
        cells = "".join(f"{row[key]:>7.2f} ms" for key in ("median_ms", "p95_ms", "worst_ms"))
        print(f"{name:18}{cells}  {row['unanswered']:.0f}")
    more = found["first"]["median_ms"] - found["round trip"]["median_ms"]
    print(f"a first resolution takes {more:.2f} ms more than a round trip (medians)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
