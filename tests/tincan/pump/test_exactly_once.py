"""Whatever the network does to datagrams, a sealed frame comes out once, or not at all.

The real receive path on loopback sockets: batches as the kernel makes them, fragments in any
order, lost, doubled, and strangers' datagrams between them.
"""

import contextlib
import itertools
import select
import socket
import struct
import time
from dataclasses import dataclass, field

from hypothesis import example, given, settings
from hypothesis import strategies as st

from lab.bench.ends import End, frame, pair
from tincan.device.udp import UDP_SEGMENT
from tincan.record.layout import HEADER, RECORD, TAG_SIZE, VERSION, VNET_SIZE, Item, item
from tincan.record.slots import MAX_BATCH

BODIES = [1456, 1436, 1156, 900, 8956]  # bytes of record in a datagram, by path MTU
SIZES = [60, 61, 200, 1400, 1501, 2900, 9000, 40000, 65226]
GARBAGE = [
    b"\x80",
    bytes(700),
    b"\xff" * 1472,
    HEADER.pack(RECORD, 0, 3, VERSION, 0xDEAD, 1) + bytes(1456),
    HEADER.pack(RECORD, 9, 3, VERSION, 1, 1 << 50) + bytes(300),
]


@dataclass
class Plan:
    """Records as lists of frame sizes, how each is cut, and what becomes of their datagrams."""

    records: list[list[int]]
    bodies: list[int]
    protect: list[bool]  # which records have a parity
    order: list[int] = field(default_factory=list)  # a sort key for each datagram, in turn
    lost: set[int] = field(default_factory=set)
    doubled: set[int] = field(default_factory=set)
    strangers: dict[int, bytes] = field(default_factory=dict)
    batch: list[int] = field(default_factory=lambda: [45])
    wake_every: int = 1


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    records = draw(
        st.lists(st.lists(st.sampled_from(SIZES), min_size=1, max_size=3), min_size=1, max_size=6)
    )
    places = st.integers(0, 200)
    bursts = st.tuples(places, st.integers(0, 60)).map(lambda at: (at[0], at[0] + at[1]))
    return Plan(
        [sizes if sum(sizes) < 100_000 else sizes[:1] for sizes in records],
        draw(st.lists(st.sampled_from(BODIES), min_size=1, max_size=3)),
        draw(st.lists(st.booleans(), min_size=1, max_size=3)),
        # Small steps: most datagrams overtake a few others, some many.
        draw(st.lists(st.sampled_from([0, 0, 0, 0, 1, 2, 5, 60]), min_size=1, max_size=40))
        if draw(st.booleans())
        else [0],
        draw(st.sets(places, max_size=3)) if draw(st.booleans()) else set(range(*draw(bursts))),
        draw(st.sets(places, max_size=6)) if draw(st.booleans()) else set(),
        draw(st.dictionaries(places, st.sampled_from(GARBAGE), max_size=6)),
        draw(st.lists(st.integers(1, 64), min_size=1, max_size=4)),
        draw(st.integers(1, 5)),
    )


@dataclass
class Sealed:
    """A record: its frames, its datagrams by number, and its parity's number if it has one."""

    frames: list[bytes]
    parts: set[int]
    parity: int | None


def seal(one: End, plan: Plan) -> tuple[list[bytes], list[Sealed]]:
    """Return all datagrams in order, and whose they are."""
    datagrams: list[bytes] = []
    records = []
    number = itertools.count()
    key = one.session.sealing
    assert key is not None
    cuts = zip(itertools.cycle(plan.bodies), itertools.cycle(plan.protect), strict=False)
    for sizes, (body, protected) in zip(plan.records, cuts, strict=False):
        record = one.link.record
        inside = []
        for size in sizes:
            made = frame(size)
            inside.append(made[:-4] + struct.pack(">I", next(number)))
            record.append(item(Item.FRAME, inside[-1]))
        first, parity = len(datagrams), None
        protected = protected and record.fill + TAG_SIZE > body
        if protected:
            record.seal_protected(key, body, None)
        else:
            record.seal(key, body, None)
        datagrams += record.datagrams()
        if protected:
            parity = len(datagrams) - 1
        parts = set(range(first, len(datagrams))) - {parity}
        record.clear()
        records.append(Sealed(inside, parts, parity))
    return datagrams, records


def arrival(datagrams: list[bytes], plan: Plan) -> list[bytes]:
    """What arrives, in the order of its arrival."""
    late = itertools.cycle(plan.order)
    order = sorted(range(len(datagrams)), key=lambda n: (n + next(late), n))
    found = []
    for place, n in enumerate(order):
        if place in plan.strangers:
            found.append(plan.strangers[place])
        if n not in plan.lost:
            found.append(datagrams[n])
        if n in plan.doubled:
            found.append(datagrams[n])
    return found


def batches(datagrams: list[bytes], plan: Plan) -> list[list[bytes]]:
    """Runs of one size (but the last), as UDP_SEGMENT and UDP_GRO know them."""
    limits = itertools.cycle(plan.batch)
    found: list[list[bytes]] = []
    limit = 0
    for each in datagrams:
        run = found[-1] if found else []
        if (
            not run
            or len(run) >= limit
            or len(run[-1]) != len(run[0])
            or len(each) > len(run[0])
            or sum(map(len, run)) + len(each) > MAX_BATCH
        ):
            found.append([each])
            limit = next(limits)
        else:
            run.append(each)
    return found


def send(sender: socket.socket, run: list[bytes], to: tuple[str, int]) -> None:
    size = struct.pack("=H", len(run[0]))
    with contextlib.suppress(OSError):  # too many for one call: one by one
        if len(run) > 1:
            sender.sendmsg(run, [(socket.SOL_UDP, UDP_SEGMENT, size)], 0, to)
            return
    for each in run:
        sender.sendto(each, to)


@given(plans())
@example(
    # The last pieces of the second record come among the first of the third, whose end is lost.
    Plan(
        [[60], [40000], [9000]],
        [1456],
        [True],
        order=[0, 5],
        lost={33, 34, 35, 36},
        batch=[2],
    )
)
@settings(max_examples=150, deadline=None)
def test_exactly_once(plan: Plan) -> None:
    one, two = pair(1500)
    two.tap.keep = True
    written = two.tap.written
    now = time.monotonic()
    try:
        datagrams, records = seal(one, plan)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for number, run in enumerate(batches(arrival(datagrams, plan), plan)):
                send(sender, run, two.sock.address)
                if number % plan.wake_every == 0:
                    two.ingress.wake(two.port, now)
            while select.select([two.sock.fileno()], [], [], 0)[0]:
                two.ingress.wake(two.port, now)
        assert len(written) == len(set(written))
        gone = plan.lost - plan.doubled
        must, may = set[bytes](), set[bytes]()
        for record in records:
            missing = len(record.parts & gone)
            if not missing:
                must.update(record.frames)
            if not missing or (missing == 1 and record.parity not in {None, *gone}):
                may.update(record.frames)
        assert must <= set(written) <= may
        if not any(plan.order):  # a parity that overtakes its record makes nothing good
            assert set(written) == may
        assert all(len(each) > VNET_SIZE for each in written)
    finally:
        one.close()
        two.close()
