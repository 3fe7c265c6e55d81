"""What the machine and a contender's processes have used, read from /proc."""

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Usage:
    """`at` is monotonic; `processor` the user and system seconds of the processes; `machine` the
    seconds that any processor was busy with anything (interrupts too); `stolen` the seconds that
    the hypervisor kept them."""

    at: float
    processor: float
    machine: float
    stolen: float

    @classmethod
    def of(cls, pids: Iterable[int]) -> "Usage":
        """Of these processes, now; one that has ended counts nothing."""
        processor = 0.0
        for pid in pids:
            with contextlib.suppress(OSError):
                stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                processor += (int(stat[11]) + int(stat[12])) / TICKS_PER_SECOND
        first = Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, first[:8])
        busy = user + nice + system + irq + softirq
        return cls(time.monotonic(), processor, busy / TICKS_PER_SECOND, steal / TICKS_PER_SECOND)

    def __sub__(self, earlier: "Usage") -> "Usage":
        return Usage(
            self.at - earlier.at,
            self.processor - earlier.processor,
            self.machine - earlier.machine,
            self.stolen - earlier.stolen,
        )


def resident(pid: int) -> int:
    """Resident memory of a process in bytes, shared libraries included."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def program(pid: int) -> str:
    """The name of the program that a process runs; a script's own, not its interpreter's."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    if Path(words[0]).name.startswith("python") and len(words) > 1:
        if "-m" in words[1:3]:
            return words[words.index("-m") + 1].partition(".")[0]
        return Path(words[1]).name
    return Path(words[0]).name


@contextlib.contextmanager
def pinned(processes: Iterable[tuple[int, int]]) -> Iterator[None]:
    """Keep each (pid, processor) with all its threads on that processor meanwhile."""
    before = {}
    for pid, processor in processes:
        for thread in _threads(pid):
            with contextlib.suppress(OSError):
                before[thread] = os.sched_getaffinity(thread)
                os.sched_setaffinity(thread, {processor})
    try:
        yield
    finally:
        for thread, affinity in before.items():
            with contextlib.suppress(OSError):
                os.sched_setaffinity(thread, affinity)


def _threads(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(thread) for thread in os.listdir(f"/proc/{pid}/task")]
    return []
