"""A wire between two interfaces: rate, queue, delay and loss, one datagram at a time.

    python -m lab.bench.wire LEFT RIGHT --rate 1e9 --queue 2500000 --delay 0.010 --loss 0.001

Runs in the network namespace that holds LEFT and RIGHT, carries every frame from one to the other,
prints one line of JSON (`"ready"`) when it does, and its counts when stdin closes. A line on stdin
with the keys of `Character` changes what it is from there on; it answers with the counts up to it.

The kernel here has no netem, and a relay that handles frames one by one in Python would take the
processors away from what is measured. This one moves them in batches (mmsg.py): a frame costs two
memory copies in the kernel and some 0.3 us of arithmetic, 1 Gbit/s half a processor, and it carries
2.3 Gbit/s at most. It looks every TICK, so that a frame's delay is off by at most that much either
way; `late_s` says when it was kept from the processor for longer. Checksums travel unfinished
(PACKET_VNET_HDR), as between two interfaces with checksum offload.
"""

import argparse
import contextlib
import json
import math
import os
import random
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from lab.bench.mmsg import Ring

TICK = 0.0003  # s between two looks while frames are under way: 25 full frames at 1 Gbit/s
BATCH = 1024  # frames taken from one side before the other has its turn
SLOTS = 32768  # frames under way in one direction: 40 ms and a queue of 10 MB at 1 Gbit/s, thrice

ETH_P_ALL = 3
SOL_PACKET = 263
PACKET_VNET_HDR = 15
PACKET_IGNORE_OUTGOING = 23
SO_RCVBUFFORCE = 33
SO_SNDBUFFORCE = 32
VNET_HEADER = 10  # struct virtio_net_hdr
BUFFER = 64 << 20


@dataclass(frozen=True)
class Character:
    """What one direction does to the frames; both directions have the same.

    rate: bit/s, counting Ethernet frames without preamble and checksum; None: as fast as it goes.
    queue: bytes that may wait for the rate; what comes on top is dropped. delay: seconds, one way.
    loss: probability that a frame that has left the queue is lost. seed: of the random losses, so
    that two runs lose the same frames (the nth, of each direction).
    """

    rate: float | None = None
    queue: int = 1 << 30
    delay: float = 0.0
    loss: float = 0.0
    seed: int = 0


@dataclass
class Counts:
    """Frames of one direction."""

    carried: int = 0
    octets: int = 0
    lost: int = 0
    overflowed: int = 0  # the rate's queue was full
    waited: int = 0  # times that the far end had no room: the frame is sent at the next look
    late_s: float = 0.0  # the longest that the wire itself was late


class Line:
    """One direction of a wire, pure: when each frame arrives, if it does.

    `admit(lengths, now)` takes the frames that came in at `now` (s) and returns for each the time
    at which it comes out, in order, or None where it is dropped.
    """

    def __init__(self, character: Character) -> None:
        self._free = 0.0  # when the transmitter has sent all that waits
        self.change(character)

    def change(self, character: Character) -> None:
        """Be of this character from now on; the counts and those to the next loss start anew."""
        self.character = character
        self.counts = Counts()
        self._random = random.Random(character.seed)
        self._until_loss = self._gap()

    def admit(self, lengths: Sequence[int], now: float) -> list[float | None]:
        character = self.character
        second_per_byte = 8 / character.rate if character.rate else 0.0
        longest_wait = character.queue * second_per_byte if character.rate else math.inf
        free = max(self._free, now)
        due: list[float | None] = []
        for length in lengths:
            if free - now > longest_wait:
                self.counts.overflowed += 1
                due.append(None)
                continue
            free += length * second_per_byte
            if self._until_loss == 0:
                self._until_loss = self._gap()
                self.counts.lost += 1
                due.append(None)
                continue
            self._until_loss -= 1
            due.append(free + character.delay)
        self._free = free
        return due

    def _gap(self) -> float:
        """Frames that arrive before the next one that is lost: a geometric variate."""
        loss = self.character.loss
        if loss <= 0:
            return math.inf
        if loss >= 1:
            return 0
        return math.floor(math.log(1 - self._random.random()) / math.log(1 - loss))


class Direction:
    """One direction with its two sockets and its frames under way, in a ring of slots."""

    def __init__(self, source: socket.socket, sink: socket.socket, slots: int, mtu: int) -> None:
        self.source = source
        self.sink = sink
        self.line = Line(Character())
        self._longest = VNET_HEADER + mtu + 18  # 14 of Ethernet, 4 of a VLAN tag
        self._ring = Ring(slots, (self._longest + 63) & ~63)
        self._due: deque[float | None] = deque()  # for each slot from _tail to _head
        self._head = 0
        self._tail = 0

    @property
    def busy(self) -> bool:
        return bool(self._due)

    def pull(self, now: float) -> None:
        """Take in what has arrived."""
        ring = self._ring
        for _ in range(BATCH // 64):
            first = self._head % ring.slots
            room = min(ring.slots - (self._head - self._tail), ring.slots - first, BATCH)
            if room == 0:
                raise RuntimeError("the wire has no slot left: more arrived than it can hold")
            lengths = ring.receive(self.source, first, room, socket.MSG_DONTWAIT | socket.MSG_TRUNC)
            if not lengths:
                return
            if max(lengths) > self._longest:
                raise RuntimeError(
                    f"a frame of {max(lengths) - VNET_HEADER} bytes on the wire: "
                    "segmentation offload is on in front of it"
                )
            frames = [length - VNET_HEADER for length in lengths]
            # The look came up to TICK after the frame did, and so will the one that sends it.
            self._due.extend(self.line.admit(frames, now - TICK))
            self._head += len(lengths)
            self.line.counts.octets += sum(frames)
            if len(lengths) < room:
                return

    def push(self, now: float) -> None:
        """Send what is due."""
        due = self._due
        ring = self._ring
        counts = self.line.counts
        while due:
            if due[0] is None:
                due.popleft()
                self._tail += 1
                continue
            first = self._tail % ring.slots
            most = min(ring.slots - first, BATCH)
            count = 0
            for at in due:
                if count == most or at is None or at > now:
                    break
                count += 1
            if not count:
                return
            counts.late_s = max(counts.late_s, now - due[0])
            sent = ring.send(self.sink, first, count)
            counts.carried += sent
            self._tail += sent
            for _ in range(sent):
                due.popleft()
            if sent < count:
                counts.waited += 1
                return


class Wire:
    """Both directions; see the module. `slots`: frames of `mtu` that one of them can hold."""

    def __init__(self, left: str, right: str, *, slots: int = SLOTS, mtu: int = 1500) -> None:
        ends = [_open(left), _open(right)]
        self.directions = [
            Direction(ends[0], ends[1], slots, mtu),
            Direction(ends[1], ends[0], slots, mtu),
        ]
        self._poll = select.poll()
        for end in ends:
            self._poll.register(end, select.POLLIN)

    def change(self, character: Character) -> None:
        # Two directions, two sequences of losses.
        for number, direction in enumerate(self.directions):
            direction.line.change(replace(character, seed=2 * character.seed + number))

    def counts(self) -> list[dict[str, float]]:
        return [asdict(direction.line.counts) for direction in self.directions]

    def run(self, commands: int) -> None:
        """Carry frames until the descriptor `commands` closes; its lines change the wire."""
        self._poll.register(commands, select.POLLIN)
        pending = b""
        while True:
            idle = not any(direction.busy for direction in self.directions)
            for descriptor, _ in self._poll.poll(None if idle else 0):
                if descriptor != commands:
                    continue
                text = os.read(commands, 65536)
                if not text:
                    return
                *lines, pending = (pending + text).split(b"\n")
                for line in lines:
                    print(json.dumps(self.counts()), flush=True)
                    self.change(Character(**json.loads(line)))
            for direction in self.directions:
                direction.pull(time.monotonic())
            for direction in self.directions:
                direction.push(time.monotonic())
            if not idle:
                time.sleep(TICK)


def _open(interface: str) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, BUFFER)
    sock.bind((interface, ETH_P_ALL))
    return sock


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="wire", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("left")
    parser.add_argument("right")
    parser.add_argument("--rate", type=float, help="bit/s")
    parser.add_argument("--queue", type=int, default=1 << 30, help="bytes that wait for the rate")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds, one way")
    parser.add_argument("--loss", type=float, default=0.0, help="probability")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mtu", type=int, default=1500)
    parser.add_argument("--slots", type=int, default=SLOTS, help="frames one direction can hold")
    told = parser.parse_args(arguments)
    wire = Wire(told.left, told.right, slots=told.slots, mtu=told.mtu)
    wire.change(Character(told.rate, told.queue, told.delay, told.loss, told.seed))
    try:
        # A wire does not compete for the processor: what is measured beside it must wait for it.
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError as error:
        print(f"wire: no real-time priority: {error}", file=sys.stderr)
    print(json.dumps("ready"), flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        wire.run(sys.stdin.fileno())
    print(json.dumps(wire.counts()), flush=True)


if __name__ == "__main__":
    main()
