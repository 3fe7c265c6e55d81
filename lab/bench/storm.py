"""Storms from one container: what reaches the other host, and what is left for a TCP flow.

    python -m lab.bench.storm [KIND ...]                    both, on a lab of its own (root)
    python -m lab.bench.storm --send KIND SECONDS PER_SECOND    the sender, in a container

Kinds: see KINDS. The sender hands the kernel a batch of frames every TICK (mmsg.py) and prints how
many it took. A flow of iperf3 between two other containers runs alone and then beside the storm;
half-way, a third container asks for an address that nobody has asked for yet.
"""

import argparse
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import Container, Controller, Host, Lab
from lab.bench.mmsg import Ring
from lab.bench.topology import ROOT
from lab.layouts import build

TICK = 0.0005  # s
SLOTS = 1 << 14  # frames, all different where the kind says so
SIZE = 64
BATCH = 1024  # UIO_MAXIOV
ETHERTYPE = 0x88B6  # IEEE 802 local experimental, the second one
PER_SECOND = 100_000.0

BROADCAST = b"\xff" * 6
MULTICAST = bytes.fromhex("01005e7fff01")
UNKNOWN = bytes.fromhex("02dead000000")


def _plain(destination: bytes, source: bytes) -> bytes:
    return destination + source + struct.pack(">H", ETHERTYPE)


def _arp(number: int, source: bytes) -> bytes:
    """A request for one of SLOTS addresses of 10.0.0.0/16 outside 10.0.3.0/24."""
    target = struct.pack(">I", 0x0A001000 + number)
    sender = source + bytes([10, 0, 3, 250])
    return BROADCAST + source + bytes.fromhex("0806000108000604 0001") + sender + bytes(6) + target


KINDS: dict[str, Callable[[int, bytes], bytes]] = {
    "broadcast": lambda _, source: _plain(BROADCAST, source),
    "multicast": lambda _, source: _plain(MULTICAST, source),
    "arp": _arp,  # requests for distinct targets
    "unknown": lambda _, source: _plain(UNKNOWN, source),  # unicast to one MAC that nobody has
    "unknowns": lambda n, source: _plain(UNKNOWN[:4] + n.to_bytes(2, "big"), source),  # to many
    "sources": lambda n, source: _plain(BROADCAST, b"\x02\xba\xd0\x00" + n.to_bytes(2, "big")),
}


def send(kind: str, seconds: float, per_second: float, interface: str = "eth0") -> int:
    """Send frames of `kind` at a steady rate; return how many the kernel took."""
    with open(f"/sys/class/net/{interface}/address") as file:
        source = bytes.fromhex(file.read().strip().replace(":", ""))
    ring = Ring(SLOTS, SIZE)
    for slot in range(SLOTS):
        frame = KINDS[kind](slot, source).ljust(60, b"\0")
        ring.memory[slot * SIZE : slot * SIZE + 60] = frame
    ring.fill(0, SLOTS, 60)
    offered = sent = slot = 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((interface, 0))
        begin = time.monotonic()
        while (elapsed := time.monotonic() - begin) < seconds:
            due = min(int(elapsed * per_second) - offered, BATCH, SLOTS - slot)
            if due > 0:
                offered += due
                sent += ring.send(sock, slot, due)
                slot = (slot + due) % SLOTS
            else:
                time.sleep(TICK)
    return sent


@contextmanager
def storm(
    container: Container, kind: str, seconds: float, per_second: float = PER_SECOND
) -> Iterator[list[int]]:
    """Have `container` send a storm while the context lasts, or until `seconds` are over; the list
    then has the number of frames sent."""
    words = [sys.executable, "-m", "lab.bench.storm", "--send", kind, str(seconds), str(per_second)]
    process = container.popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={"PYTHONPATH": str(ROOT)}
    )
    sent: list[int] = []
    try:
        yield sent
        output, errors = process.communicate(timeout=seconds + 20)
        if process.returncode:
            raise RuntimeError(f"the sender failed: {errors}")
        sent.append(json.loads(output))
    finally:
        process.kill()
        process.wait()


@dataclass
class Measured:
    """TCP in bits/s; `crossed` in frames/s; `answered` in s, None: not at all; `cpu`: parts of a
    core that the processes of the stormy host took."""

    kind: str
    sent: int
    alone: float
    beside: float
    crossed: float
    answered: float | None
    counted: dict[str, int]
    cpu: dict[str, float]


def dropped(controller: Controller) -> dict[str, int]:
    """What `controller` has counted of frames, by reason."""
    counters = controller.counters()
    found: dict[str, int] = dict(counters["frames_dropped"])
    for name in ("frames_flooded", "frames_left_to_controller"):
        found[name] = counters.get(name, 0)
    return found


def busy(host: Host) -> dict[str, float]:
    """CPU seconds that the processes of `host` have taken, by program."""
    seconds: dict[str, float] = {}
    for program in ("controller", "tincan"):
        for pid in host.pids(program):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks = int(fields[11]) + int(fields[12])  # utime, stime: proc(5)
            seconds[program] = seconds.get(program, 0.0) + ticks / os.sysconf("SC_CLK_TCK")
    return seconds


def _tcp(client: Container, server: Container, seconds: int) -> float:
    report = client.iperf3(server, server.ip, seconds)
    speed: float = report["end"]["sum_received"]["bits_per_second"]
    return speed


def measure(lab: Lab, kinds: Sequence[str], seconds: int) -> Iterator[Measured]:
    """Run each kind of storm once in `lab`."""
    hosts = build(lab, ["public", "public"], profile="unequal")
    a, b = hosts.hosts
    client, server = a.container("tcp", "10.0.3.20/24"), b.container("tcp", "10.0.3.30/24")
    stormy, asker = a.container("storm"), a.container("ask", "10.0.3.22/24")
    one, _ = hosts.connect()
    client.wait_ping(server.ip)
    for number, kind in enumerate(kinds):
        owner = b.container(f"owner{number}", f"10.0.3.{40 + number}/24")
        alone = _tcp(client, server, seconds)
        before = dropped(one)
        heard = owner.counter("eth0", "rx_packets")
        with storm(stormy, kind, seconds + 2) as sent:
            time.sleep(0.7)
            asking = asker.popen(
                ["sh", "-c", f"sleep {seconds / 2}; exec arping -b -f -w 3 -I eth0 {owner.ip}"],
                stdout=subprocess.PIPE,
            )
            cpu, began = busy(a), time.monotonic()
            beside = _tcp(client, server, seconds)
            took = time.monotonic() - began
            cpu = {name: (used - cpu[name]) / took for name, used in busy(a).items()}
            output = asking.communicate()[0]
        told = [line for line in output.splitlines() if "reply from" in line]
        answered = float(told[0].rpartition(" ")[2].removesuffix("ms")) / 1000 if told else None
        crossed = owner.counter("eth0", "rx_packets") - heard
        after = dropped(one)
        counted = {name: count - before.get(name, 0) for name, count in after.items()}
        yield Measured(
            kind,
            sent[0],
            alone,
            beside,
            crossed / (seconds + 2),
            answered,
            {name: count for name, count in counted.items() if count},
            cpu,
        )
        owner.stop()


def main(arguments: Sequence[str] | None = None) -> None:
    """Send, or measure and print."""
    parser = argparse.ArgumentParser(prog="storm", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--send", nargs=3, metavar=("KIND", "SECONDS", "PER_SECOND"))
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("kinds", nargs="*", metavar="KIND")
    told: Any = parser.parse_args(arguments)
    if told.send:
        kind, seconds, per_second = told.send
        print(send(kind, float(seconds), float(per_second)))
        return
    with Lab() as lab:
        for each in measure(lab, told.kinds or list(KINDS), told.seconds):
            answer = "no answer" if each.answered is None else f"{each.answered * 1000:.1f} ms"
            print(
                f"{each.kind:10} sent {each.sent}, TCP {each.alone / 1e9:.2f} -> "
                f"{each.beside / 1e9:.2f} Gbit/s ({each.beside / each.alone:.2f}), "
                f"{each.crossed:.0f} frames/s at the other side, ARP meanwhile {answer}\n"
                f"           {each.counted}\n"
                f"           {', '.join(f'{name} {part:.0%}' for name, part in each.cpu.items())}",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
