"""The pump without a network: records and frames per second through both ends, on one core.

    .venv/bin/python -m lab.bench.pump [--seconds 1] [--profile]

Two tincans' hot paths in one process, joined by two UDP sockets on the loopback: egress reads
frames from a device in memory, seals and sends; ingress receives, opens and writes to another.
Run it before and after a change, several times in turn: the machine drifts.
"""

import argparse
import asyncio
import cProfile
import pstats
import time

from lab.bench.ends import frame, pair

WORKS = {
    "super 64 KiB": ([65226], 1500),
    "super 64 KiB, 3 at a time": ([65226] * 3, 1500),
    "super 64 KiB, MTU 9000": ([65226], 9000),
    "acks, 8 at a time": ([66] * 8, 1500),
    "64-byte UDP, one at a time": ([106], 1500),
    "64-byte UDP, 16 at a time": ([106] * 16, 1500),
    "1400-byte UDP, 16 at a time": ([1442] * 16, 1500),
    "mixed": ([1514, 98, 65226, 66], 1500),
}
"""Name -> (frame sizes of one wake-up, path MTU)."""


def run(name: str, seconds: float) -> None:
    """Print what one work costs at either end."""
    sizes, mtu = WORKS[name]
    one, two = pair(mtu)
    frames = [frame(size) for size in sizes]
    wakes = 0
    sending = receiving = 0.0
    end = time.thread_time() + seconds
    while (began := time.thread_time()) < end:
        one.tap.waiting = frames.copy()
        one.egress.wake(began)
        sent = time.thread_time()
        two.ingress.wake(two.port, sent)
        done = time.thread_time()
        sending += sent - began
        receiving += done - sent
        wakes += 1
    while two.ingress.wake(two.port, time.thread_time()):
        pass  # a wake-up may have sent two batches, and each turn has read one
    count = two.tap.frames
    lost = wakes * len(sizes) - count
    print(
        f"{name:28} {sending / wakes * 1e6:7.1f} us out {receiving / wakes * 1e6:7.1f} us in  "
        f"{count / (sending + receiving):9.0f} frames/s "
        f"{two.tap.total * 8 / (sending + receiving) / 1e9:6.2f} Gbit/s"
        + (f"  LOST {lost} {dict(two.counters)}" if lost else "")
    )
    one.close()
    two.close()


async def main() -> None:
    """Run the works that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="for each work")
    parser.add_argument("--profile", action="store_true", help="show where the time goes")
    parser.add_argument("--only", help="one work, by the beginning of its name")
    options = parser.parse_args()
    for name in WORKS:
        if options.only and not name.startswith(options.only):
            continue
        profile = cProfile.Profile()
        if options.profile:
            profile.enable()
        run(name, options.seconds)
        if options.profile:
            profile.disable()
            pstats.Stats(profile).sort_stats("tottime").print_stats(14)


if __name__ == "__main__":
    asyncio.run(main())
