"""`lab/bench/run`: all contenders, all works, several rounds, and the tables."""

import argparse
import importlib.util
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lab.bench import chart, contenders, matrix, report, works
from lab.bench.contenders import Contender
from lab.bench.results import Results
from lab.bench.stage import Stage
from lab.bench.topology import CONTAINERS, ROOT, Pair, reaches, reap
from lab.errors import LabError

PACKAGES = ("iproute2", "iperf3", "ethtool", "nftables", "iputils-ping", "util-linux", "procps")
LOSS = "loss"
MATRIX = ("vxlan", "ours")
QUICK_CELLS = tuple(cell for cell in matrix.CELLS if cell.rtt < 0.05 and cell.loss in (0.0, 0.001))


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0; 1 if a contender did not run, or a figure is invalid; 2: wrong usage."""
    told = _parse(arguments)
    for asked in (signal.SIGINT, signal.SIGTERM):
        signal.signal(asked, _leave)
    reap()
    kinds = [kind for kind in contenders.ALL if kind.name in told.only]
    chosen = [works.ALL[name] for name in works.ALL if name in told.works]
    rows = [row for work in works.ALL.values() for row in work.rows]
    names = [kind.name for kind in kinds]
    _install([*PACKAGES, *(package for kind in kinds for package in kind.packages)])
    results = Results(_about(told, kinds))
    begun = time.monotonic()
    for number in range(told.rounds):
        # Whoever comes first finds the machine cooler, or its caches colder: they take turns.
        turn = number % len(kinds) if kinds else 0
        for kind in kinds[turn:] + kinds[:turn]:
            if chosen:
                _perform(kind, chosen, number, told, results)
    if LOSS in told.works:
        _lossy([kind for kind in kinds if kind.name in MATRIX], told, results)
    results.about["took_s"] = round(time.monotonic() - begun)
    print(report.tables(results, rows, names))
    if told.json:
        results.save(told.json, rows, names)
    if told.png:
        chart.draw(results, rows, names, told.png)
    return 1 if results.failures else 0


def _perform(
    kind: type[Contender],
    chosen: Sequence[works.Work],
    number: int,
    told: argparse.Namespace,
    results: Results,
) -> None:
    """One contender's turn in round `number`."""
    where = f"round {number + 1}: {kind.name}"
    with Pair() as pair:
        try:
            segment = pair.segment(kind.mtu)
            contender = kind(pair, segment)
            contender.start()
            reaches(segment.left, CONTAINERS["right"], 30, kind.name)
            contender.settle()
        except LabError as error:
            say(f"{where}: {error}\n{pair.logged()}")
            results.fail(where, [f"does not come up: {_first_line(error)}"])
            return
        stage = Stage(pair, segment, contender, told.seconds)
        for work in chosen:
            if (work.once and number) or (work.contenders and kind.name not in work.contenders):
                continue
            for _ in range(work.repeat):
                try:
                    before = contender.observe()
                    outcome = work.measure(stage)
                    noted, problems = contender.judge(work.name, before, contender.observe())
                except (LabError, OSError, ValueError, subprocess.SubprocessError) as error:
                    say(f"{where}: {work.name}: {error}\n{pair.logged()}")
                    results.fail(where, [f"{work.name}: {_first_line(error)}"])
                    continue
                outcome.detail |= noted
                outcome.problems += problems
                results.add(number, kind.name, work.name, outcome)
                say(f"{where}: " + _line(outcome))


def _lossy(kinds: Sequence[type[Contender]], told: argparse.Namespace, results: Results) -> None:
    cells = QUICK_CELLS if told.quick else matrix.CELLS
    rounds = min(told.rounds, 3)
    try:
        for run in matrix.run(kinds, cells, rounds, told.seconds, say):
            results.add_loss(run)
    except LabError as error:
        say(str(error))
        results.fail(LOSS, [_first_line(error)])


def _leave(number: int, _: object) -> None:
    """Take down what was begun, undisturbed, and leave."""
    for other in (signal.SIGINT, signal.SIGTERM):
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


def _line(outcome: works.Outcome) -> str:
    values = ", ".join(f"{row} {value:.4g}" for row, value in outcome.values.items())
    return "; ".join([values, *outcome.problems])


def _first_line(error: BaseException) -> str:
    return (str(error) or repr(error)).partition("\n")[0]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="lab/bench/run",
        description="Measure this overlay beside the others that Debian packages. Needs root.",
    )
    every = [kind.name for kind in contenders.ALL]
    parser.add_argument("--quick", action="store_true", help="one round of short loads")
    parser.add_argument("--rounds", type=_positive, help="default 5; with --quick 1")
    parser.add_argument("--seconds", type=float, help="length of a load; default 3, with --quick 2")
    parser.add_argument(
        "--only", type=_some_of(every), default=every, help=f"contenders: {','.join(every)}"
    )
    all_works = [*works.ALL, LOSS]
    parser.add_argument(
        "--works",
        type=_some_of(all_works),
        default=all_works,
        help=f"works: {','.join(all_works)}",
    )
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    parser.add_argument("--png", type=Path, help="draw a chart (needs matplotlib)")
    told = parser.parse_args(arguments)
    told.rounds = told.rounds or (1 if told.quick else 5)
    told.seconds = told.seconds or (2.0 if told.quick else 3.0)
    if os.geteuid():
        parser.error("needs root: network namespaces, bridges, packet filters")
    if told.png and not importlib.util.find_spec("matplotlib"):
        parser.error("--png needs matplotlib: pip install '.[bench]'")
    return told


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _some_of(known: Sequence[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
        return names

    return parse


def _install(packages: Sequence[str]) -> None:
    """Install the Debian packages that are missing."""
    query = ["dpkg-query", "-W", "-f", "${binary:Package} ${db:Status-Status}\n"]
    lines = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
    present = {line.split()[0].partition(":")[0] for line in lines if line.endswith(" installed")}
    missing = sorted(set(packages) - present)
    if not missing:
        return
    say(f"installing {' '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # None of them is to start as a service: the bench runs them by itself.
    command = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    subprocess.run(["apt-get", "update"], env=environment, check=False, stdout=sys.stderr)
    subprocess.run(command, env=environment, check=True, stdout=sys.stderr)


def _about(told: argparse.Namespace, kinds: Sequence[type[Contender]]) -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = next(
        (s.split(": ")[1] for s in cpuinfo.splitlines() if s.startswith("model name")), "?"
    )
    control = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    return {
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "processor": model,
        "processors": os.cpu_count(),
        "congestion_control": control,
        "load_before": os.getloadavg()[0],
        "path": "veth with its offloads; loss: a wire of single datagrams, GRO of 50 us on arrival",
        "rounds": told.rounds,
        "seconds": told.seconds,
        "contenders": {kind.name: kind.settings for kind in kinds},
    }


def _commit() -> str:
    """The commit measured, with a `+` if the tree differs from it."""
    if not shutil.which("git"):
        return "unknown"
    git = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT)]
    commit = subprocess.run(
        [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    changed = subprocess.run(
        [*git, "status", "--porcelain", "--", "tincan", "controller"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return (commit or "unknown") + ("+" if changed else "")
