"""What a run found: samples as they come, medians and ratios of them, and their JSON."""

import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lab.bench.matrix import Run
from lab.bench.works import Outcome, Row


@dataclass
class Results:
    """`about`: the machine and the settings of the run. `samples` and `loss`: everything measured,
    in order. `failures`: what makes the run invalid, each one line."""

    about: dict[str, Any]
    samples: list[dict[str, Any]] = field(default_factory=list)
    loss: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _values: defaultdict[tuple[str, str], list[float]] = field(
        default_factory=lambda: defaultdict(list), repr=False
    )

    def add(self, number: int, contender: str, work: str, outcome: Outcome) -> None:
        """One work of one contender, done in round `number`."""
        self.samples.append({"round": number, "contender": contender, "work": work})
        self.samples[-1] |= asdict(outcome)
        for row, value in outcome.values.items():
            self._values[contender, row].append(value)
        self.fail(f"{contender}: {work}, round {number + 1}", outcome.problems)

    def add_loss(self, run: Run) -> None:
        """One flow of the loss matrix."""
        self.loss.append(asdict(run) | {"cell": str(run.cell)})
        self._values[run.contender, str(run.cell)].append(run.value)
        self.fail(f"{run.contender}: {run.cell}", run.problems)

    def fail(self, where: str, problems: Sequence[str]) -> None:
        self.failures += [f"{where}: {problem}" for problem in problems]

    def values(self, contender: str, row: str) -> list[float]:
        """All values of a row (of the table, or a cell of the loss matrix)."""
        return self._values.get((contender, row), [])

    def median(self, contender: str, row: str) -> float | None:
        values = self.values(contender, row)
        return statistics.median(values) if values else None

    def ratio(self, contender: str, other: str, row: str) -> float | None:
        """The median over the pairs (nth of one, nth of the other): both have then seen the same
        state of the machine. None if there is no pair, or the other is 0."""
        pairs = zip(self.values(contender, row), self.values(other, row), strict=False)
        ratios = [one / another for one, another in pairs if another]
        return statistics.median(ratios) if ratios else None

    def detail(self, contender: str, work: str) -> dict[str, Any] | None:
        """The details of the last sample of a work."""
        found = (
            s for s in reversed(self.samples) if (s["contender"], s["work"]) == (contender, work)
        )
        sample = next(found, None)
        return sample["detail"] if sample else None

    def save(self, file: Path, rows: Sequence[Row], contenders: Sequence[str]) -> None:
        """Write everything as JSON, medians by contender and row first."""
        names = [row.name for row in rows] + sorted({run["cell"] for run in self.loss})
        medians = {
            contender: {
                name: value for name in names if (value := self.median(contender, name)) is not None
            }
            for contender in contenders
        }
        text = {
            "about": self.about,
            "failures": self.failures,
            "medians": medians,
            "samples": self.samples,
            "loss": self.loss,
        }
        file.write_text(json.dumps(text, indent=1) + "\n")
