"""The loss matrix: a path of 1 Gbit/s, delay and loss, one TCP flow, contenders in turn per cell.

All contenders stand on the same two hosts at once, each with its own bridge and containers; one
of them is loaded at a time, on a wire that loses the same frames for each in a round.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lab.bench.contenders import Contender
from lab.bench.stage import Stage
from lab.bench.topology import CONTAINERS, Pair, reaches
from lab.bench.wire import Character
from lab.errors import LabError

RATE = 1e9  # bit/s
ROUND_TRIPS = (0.020, 0.080)  # s
LOSSES = (0.0, 0.0001, 0.001, 0.01)
CONTROLS = ("bbr", "cubic")
OMITTED = 2  # s: the start of a flow at 80 ms

# What 1 Gbit/s at 80 ms holds, twice: 10 MB on the way and as much in the queue.
BUFFERS = """
echo "4096 131072 67108864" > /proc/sys/net/ipv4/tcp_rmem
echo "4096 131072 67108864" > /proc/sys/net/ipv4/tcp_wmem
"""


@dataclass(frozen=True)
class Cell:
    """A path and a congestion control. `str` is its key in the results."""

    rtt: float
    loss: float
    control: str

    def __str__(self) -> str:
        return f"{self.control} {self.rtt * 1000:g} ms {self.loss * 100:g} %"

    def character(self, seed: int) -> Character:
        """The wire: its queue holds what the path does."""
        return Character(RATE, int(RATE / 8 * self.rtt), self.rtt / 2, self.loss, seed)


CELLS = tuple(
    Cell(rtt, loss, control)
    for control, rtt, loss in itertools.product(CONTROLS, ROUND_TRIPS, LOSSES)
)


@dataclass
class Run:
    """One flow of one contender in one cell."""

    cell: Cell
    contender: str
    value: float  # Mbit/s
    detail: dict[str, Any]
    problems: list[str]


def run(
    contenders: Sequence[type[Contender]],
    cells: Sequence[Cell],
    rounds: int,
    seconds: float,
    say: Callable[[str], None],
) -> Iterator[Run]:
    """Measure every cell, `rounds` times, the contenders one after the other, taking turns in being
    first. Raises LabError if one does not come up."""
    with Pair(through_wire=True) as pair:
        stages = []
        for kind in contenders:
            segment = pair.segment(kind.mtu)
            contender = kind(pair, segment)
            try:
                contender.start()
                reaches(segment.left, CONTAINERS["right"], 30, kind.name)
                contender.settle()
            except LabError as error:
                raise LabError(f"{error}\n{pair.logged()}") from None
            for container in (segment.left, segment.right):
                container.run(BUFFERS)
            stages.append(Stage(pair, segment, contender, seconds))
        for number in range(rounds):
            for cell in cells:
                order = stages if number % 2 == 0 else stages[::-1]
                for stage in order:
                    done = _measure(stage, cell, seed=number)
                    say(f"round {number + 1}: {cell}: {done.contender} {done.value:.1f} Mbit/s")
                    yield done


def _measure(stage: Stage, cell: Cell, seed: int) -> Run:
    pair, contender = stage.pair, stage.contender
    before = contender.observe()
    pair.change(cell.character(seed))
    time.sleep(2 * cell.rtt)  # what was under way has arrived
    end = stage.iperf3("-C", cell.control, omit=OMITTED)
    counts = pair.change(Character())
    detail, problems = contender.judge("loss", before, contender.observe())
    return Run(
        cell,
        contender.name,
        end["sum_received"]["bits_per_second"] / 1e6,
        {"retransmits": end["sum_sent"]["retransmits"], "wire": counts, **detail},
        problems,
    )


def geometric_mean(values: Sequence[float]) -> float:
    """Of ratios; 0 if one of them is."""
    return statistics.geometric_mean(values) if all(value > 0 for value in values) else 0.0
