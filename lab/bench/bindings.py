"""The binding table at its full size: memory per binding, and time per operation as it grows.

    python -m lab.bench.bindings [--bindings 100000] [--peers 1000] [--json]

Runs in one process, without a network. Each time is the median of several passes over keys that
are spread over the whole table.
"""

import argparse
import gc
import json
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from statistics import median

from controller.packets.addresses import BROADCAST_MAC, ZERO_MAC, Key, Mac, NodeId
from controller.packets.packets import ARP_REQUEST, Arp
from controller.switch.messages import Announce, Entry
from controller.switch.switch import Switch
from controller.switch.table import REPROBE_S, TOMBSTONE_S, Binding, Table

PASSES = 5
SAMPLE = 2000  # operations timed in one pass; no more, so that a pass fits into a token bucket
LOCAL = 2000  # bindings of the node itself: they are the ones that age


def ip(number: int) -> str:
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def mac(number: int) -> Mac:
    return "02:00:" + number.to_bytes(4).hex(":")


def node(number: int) -> NodeId:
    return f"{number:064x}"


def timed(operation: Callable[[int], object], numbers: Sequence[int]) -> float:
    """Return the seconds that one call takes."""
    start = time.perf_counter()
    for number in numbers:
        operation(number)
    return (time.perf_counter() - start) / len(numbers)


def fill(table: Table, count: int, peers: int) -> None:
    """Hold ``count`` bindings of ``peers`` nodes."""
    for number in range(count):
        owner = node(1 + number % peers)
        table.offer(Binding((0, ip(number)), mac(number), owner, 0, 0.0))


def memory(count: int, peers: int) -> float:
    """Return bytes per binding, indexes and all."""
    gc.collect()
    tracemalloc.start()
    table = Table(node(0))
    before, _ = tracemalloc.get_traced_memory()
    fill(table, count, peers)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before) / len(table)


def one_pass(table: Table, count: int, peers: int, turn: int) -> dict[str, float]:
    """Return the seconds that each operation takes on a table of ``count`` bindings."""
    now = 1000.0 * turn
    spread = [number * 7919 % count for number in range(SAMPLE)]
    new: list[Key] = [(1, ip(number)) for number in range(LOCAL)]

    def offer(n: int) -> object:
        return table.offer(Binding((0, ip(n)), mac(n), node(1 + n % peers), 1 + turn, now))

    def learn(n: int) -> object:
        return table.learn(new[n], mac(n), now)

    times = {
        "lookup": timed(lambda n: table.live((0, ip(n))), spread),
        "of_mac": timed(lambda n: table.of_mac(0, mac(n)), spread),
        "offer": timed(offer, spread),
        "learn": timed(learn, range(LOCAL)),
        "confirm": timed(learn, range(LOCAL)),
    }
    start = time.perf_counter()
    due = table.due(now + REPROBE_S)
    times["age"] = (time.perf_counter() - start) / len(due)
    times["withdraw"] = timed(lambda n: table.withdraw(new[n], now), range(LOCAL))
    times["checksum"] = timed(lambda n: table.checksum(node(1 + n % peers)), spread)
    table.due(now + TOMBSTONE_S)
    return times


def operations(count: int, peers: int) -> dict[str, float]:
    """Return the median microseconds of each operation."""
    table = Table(node(0))
    fill(table, count, peers)
    passes = [one_pass(table, count, peers, turn) for turn in range(PASSES)]
    return {name: 1e6 * median(times[name] for times in passes) for name in passes[0]}


def requests(count: int, peers: int) -> float:
    """Return the microseconds from a captured request to its local answer, in a full switch."""
    switch = Switch(node(0), Counter())
    per_peer = -(-count // peers)
    for peer in range(1, peers + 1):
        switch.peer_up(node(peer), 0.0)
        mine = range((peer - 1) * per_peer, min(count, peer * per_peer))
        for start in range(0, len(mine), 64):
            entries = [Entry(ip(n), mac(n), 0) for n in mine[start : start + 64]]
            switch.received(node(peer), Announce(entries), 1.0)
    asker = "02:ff:00:00:00:01"
    frames = [
        Arp(
            ARP_REQUEST,
            asker,
            "10.255.0.1",
            ZERO_MAC,
            ip(n * 7919 % count),
            0,
            asker,
            BROADCAST_MAC,
        )
        for n in range(SAMPLE)
    ]
    switch.captured(frames[0], 2.0)
    passes: Iterable[float] = (
        timed(lambda n: switch.captured(frames[n], 3.0), range(SAMPLE)) for _ in range(PASSES)
    )
    return median(passes) * 1e6


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure the binding table at its full size.")
    parser.add_argument("--bindings", type=int, default=100_000)
    parser.add_argument("--peers", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    rows = {}
    for divisor in (100, 10, 1):
        count, peers = options.bindings // divisor, max(1, options.peers // divisor)
        rows[count] = {
            "bytes_per_binding": memory(count, peers),
            **{f"{name}_us": value for name, value in operations(count, peers).items()},
            "request_to_answer_us": requests(count, peers),
        }
    if options.json:
        json.dump(rows, sys.stdout, indent=1)
        print()
        return 0
    print(f"{'bindings':>24}" + "".join(f"{count:>12,}" for count in rows))
    for name in next(iter(rows.values())):
        print(f"{name:>24}" + "".join(f"{row[name]:>12.1f}" for row in rows.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
