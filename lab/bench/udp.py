"""A sender of numbered datagrams at a steady rate, and a receiver that counts and checks them.

    python -m lab.bench.udp receive PORT SECONDS SIZE
    python -m lab.bench.udp send ADDRESS PORT SECONDS SIZE PER_SECOND

The same for every contender. Each prints one line of JSON when it ends; the receiver prints
`"ready"` first. iperf3 makes one system call for a datagram and sends in bursts of a millisecond;
this one hands the kernel a batch (mmsg.py) every TICK, so that the sender takes a small and equal
part of the processor that it shares with the contender.

    datagram: u64 number, little endian | random bytes, the same in every datagram of that size
"""

import argparse
import json
import random
import socket
import sys
import time
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from lab.bench.mmsg import Ring

TICK = 0.00025  # s: 28 datagrams at 110,000/s
SLOTS = 2048
NUMBER = 8  # bytes
SO_RCVBUFFORCE = 33
SO_SNDBUFFORCE = 32
BUFFER = 16 << 20


@dataclass
class Sent:
    """Datagrams handed to the kernel, those it refused (the interface's queue was full), and the
    seconds it took."""

    sent: int = 0
    refused: int = 0
    seconds: float = 0.0


@dataclass
class Received:
    """Datagrams that came, in the `seconds` from the first to the last. `late`: numbered lower
    than one before (reordered or duplicate). `highest`: the highest number + 1."""

    received: int = 0
    late: int = 0
    damaged: int = 0
    highest: int = 0
    seconds: float = 0.0


def send(address: str, port: int, seconds: float, size: int, per_second: float) -> Sent:
    """Send for `seconds`, `per_second` datagrams of `size` bytes of payload."""
    ring = Ring(SLOTS, (size + 7) & ~7)
    body = _body(size)
    for slot in range(SLOTS):
        start = slot * ring.size
        ring.memory[start + NUMBER : start + size] = body
    ring.fill(0, SLOTS, size)
    numbers: memoryview[int] = ring.memory.cast("Q")[:: ring.size // 8]
    result = Sent()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, BUFFER)
        sock.connect((address, port))
        began = time.monotonic()
        offered = 0
        while (now := time.monotonic()) < began + seconds:
            behind = int((now - began) * per_second) - offered
            count = min(behind, SLOTS)
            numbers[:count] = memoryview(array("Q", range(offered, offered + count)))
            slot = 0
            while slot < count:
                took = ring.send(sock, slot, count - slot, socket.MSG_DONTWAIT)
                result.sent += took
                slot += took
                if slot < count:
                    result.refused += 1
                    slot += 1
            offered += count
            time.sleep(TICK)
        result.seconds = time.monotonic() - began
    return result


def receive(port: int, seconds: float, size: int) -> Received:
    """Receive until nothing has come for half a second, or for `seconds` if nothing comes."""
    ring = Ring(SLOTS, (size + 7) & ~7)
    numbers: memoryview[int] = ring.memory.cast("Q")[:: ring.size // 8]
    body = _body(size)
    result = Received()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        sock.bind(("", port))
        print(json.dumps("ready"), flush=True)
        first = last = 0.0
        give_up = time.monotonic() + seconds
        while (now := time.monotonic()) < give_up:
            lengths = ring.receive(sock, 0, SLOTS, socket.MSG_DONTWAIT | socket.MSG_TRUNC)
            if not lengths:
                time.sleep(TICK)
                continue
            first = first or now
            last = now
            give_up = now + 0.5
            result.received += len(lengths)
            for slot, number in enumerate(numbers[: len(lengths)].tolist()):
                if number >= result.highest:
                    result.highest = number + 1
                else:
                    result.late += 1
                start = slot * ring.size
                if (
                    lengths[slot] != size
                    or ring.memory[start + NUMBER : start + size].tobytes() != body
                ):
                    result.damaged += 1
        result.seconds = last - first
    return result


def _body(size: int) -> bytes:
    return random.Random(size).randbytes(size - NUMBER)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="udp", description=(__doc__ or "").partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    receiver = verbs.add_parser("receive")
    receiver.add_argument("port", type=int)
    receiver.add_argument("seconds", type=float)
    receiver.add_argument("size", type=int)
    sender = verbs.add_parser("send")
    sender.add_argument("address")
    sender.add_argument("port", type=int)
    sender.add_argument("seconds", type=float)
    sender.add_argument("size", type=int)
    sender.add_argument("per_second", type=float)
    told = vars(parser.parse_args(arguments))
    result = send(**told) if told.pop("verb") == "send" else receive(**told)
    print(json.dumps(asdict(result)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
