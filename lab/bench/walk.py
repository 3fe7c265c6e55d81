"""How many files one event's way leads through: files entered, changes of file, calls.

    .venv/bin/python -m lab.bench.walk

A profiler (sys.setprofile) notes every Python function that runs, of this repository's programs
only. Each walk goes its way a few times first, so that what is counted is what happens every time.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

from lab.bench.ends import POOL, frame, pair
from tincan.pump.loop import HotSelector
from tincan.pump.pump import Pump

ROOT: Final = Path(__file__).parent.parent.parent
PACKAGES: Final = ("controller", "tincan")
"""What is counted: neither the benches nor libraries."""
FULL: Final = 65226
"""Bytes of a full TCP super-frame: one record of 45 datagrams at an MTU of 1500."""
WARM_UP: Final = 20
"""Times that a way is gone before it is counted."""
TURNS: Final = 30
"""Times that it is counted; the shortest walk is told."""


@dataclass
class Walk:
    """One way, and what was noted on it."""

    name: str
    files: list[str] = field(default_factory=list)
    """The files in the order in which they were entered first."""
    changes: int = 0
    """How often a function of one file called, or returned to, one of another."""
    calls: int = 0

    def note(self, file: str, event: str) -> None:
        """Take note that a function of ``file`` was called, or returned to."""
        if file not in self.files:
            self.files.append(file)
        self.calls += event == "call"


def profiled(name: str, step: Callable[[], object]) -> Walk:
    """Return the walk that ``step`` takes."""
    walk = Walk(name)
    stack: list[str] = []
    where = ""

    def profile(at: FrameType, event: str, _: Any) -> None:
        nonlocal where
        if event == "call":
            file = _ours(at.f_code.co_filename)
            stack.append(file or (stack[-1] if stack else ""))
            if file:
                walk.note(file, event)
        elif event == "return" and stack:
            stack.pop()
        else:
            return
        here = stack[-1] if stack else where
        if here != where and where and here:
            walk.changes += 1
        where = here or where

    sys.setprofile(profile)
    try:
        step()
    finally:
        sys.setprofile(None)
    return walk


def _ours(file: str) -> str:
    """Return the name of a file of ours, or nothing."""
    path = Path(file)
    if not path.is_relative_to(ROOT):
        return ""
    relative = path.relative_to(ROOT)
    return str(relative) if relative.parts[0] in PACKAGES else ""


def typical(name: str, prepare: Callable[[], object], step: Callable[[], object]) -> Walk:
    """Return the walk that ``step`` takes every time: the shortest of many, in quick succession.

    ``prepare`` is done before each, and not counted. What is done once in a while (the queue before
    the device is looked at every millisecond, path MTU discovery is told every 50) is left out.
    """
    walks = []
    for turn in range(WARM_UP + TURNS):
        prepare()
        if turn < WARM_UP:
            step()
        else:
            walks.append(profiled(name, step))
    return min(walks, key=lambda walk: (len(walk.files), walk.calls))


def tincan_walks() -> list[Walk]:
    """Return the two ways of one full record: TAP to wire, and wire to TAP."""
    one, two = pair(1500)
    readable = os.eventfd(1)  # a device that always has something
    try:
        one.tap.fd = readable
        out = HotSelector()
        Pump(one.tap, one.policy, one.counters, out, POOL).start()
        into = HotSelector()
        receiving = Pump(two.tap, two.policy, two.counters, into, POOL)
        receiving.keys.update(two.session.opening)
        receiving.watch(two.port)
        waiting = [frame(FULL)]

        def fill() -> None:
            into.select(0.0)
            one.tap.waiting = list(waiting)

        def send() -> None:
            fill()
            out.select(0.0)

        walks = [
            typical("TAP to wire", fill, lambda: out.select(0.0)),
            typical("wire to TAP", send, lambda: into.select(0.0)),
        ]
        assert two.tap.frames == 2 * (WARM_UP + TURNS) - 1 + 1, "every record has arrived"
        return walks
    finally:
        os.close(readable)
        one.close()
        two.close()


WALKS: Final[list[Callable[[], list[Walk]]]] = [tincan_walks]
"""Each returns the walks of one program, for the table."""


def main() -> None:
    """Print the walks as a table, and the files of each in order."""
    walks = [walk for of_program in WALKS for walk in of_program()]
    print(f"{'walk':16} {'files':>5} {'changes':>7} {'calls':>5}")
    for walk in walks:
        print(f"{walk.name:16} {len(walk.files):5} {walk.changes:7} {walk.calls:5}")
    for walk in walks:
        print(f"\n{walk.name}: " + ", ".join(walk.files))


if __name__ == "__main__":
    main()
