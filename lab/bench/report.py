"""The tables of a run, in Markdown."""

from collections.abc import Iterator, Sequence

from lab.bench import goals
from lab.bench.matrix import CELLS
from lab.bench.results import Results
from lab.bench.works import Row

REFERENCES = ("vxlan", "openvpn")


def tables(results: Results, rows: Sequence[Row], contenders: Sequence[str]) -> str:
    """Figures, ratios, the loss matrix, goals and failures: what there is of them."""
    about = results.about
    lines = [
        f"Commit {about['commit']}, kernel {about['kernel']}, {about['processors']} x "
        f"{about['processor']}, {about['congestion_control']} unless told otherwise, "
        f"{about['rounds']} rounds, loads of {about['seconds']:g} s.",
        "",
    ]
    if about["load_before"] > 0.5:
        lines += [f"The machine was busy when this began (load {about['load_before']:.1f}).", ""]
    lines += [f"- {name}: {text}" for name, text in about["contenders"].items()]
    rows = [row for row in rows if any(results.values(name, row.name) for name in contenders)]
    if rows:
        lines += ["", "Median (lowest - highest):", ""]
        lines += _table(
            ["work", "unit", *contenders],
            (
                [row.title, row.unit, *(_spread(results, name, row.name) for name in contenders)]
                for row in rows
            ),
        )
    for reference in REFERENCES:
        others = [name for name in contenders if name != reference]
        if rows and reference in contenders and others:
            lines += ["", f"Times {reference} (median of the pairs):", ""]
            lines += _table(
                ["work", "better is", *others],
                (
                    [row.title, "more" if row.more_is_better else "less"]
                    + [_number(results.ratio(name, reference, row.name)) for name in others]
                    for row in rows
                    if row.unit
                ),
            )
    if results.loss:
        lines += ["", "One TCP flow over 1 Gbit/s, Mbit/s:", "", *_loss(results, contenders)]
    beside = {
        (sample["contender"], sample["work"]): sample["detail"]["beside"]
        for sample in results.samples
        if "beside" in sample["detail"]
    }
    if beside:
        lines += ["", "Beside the figures:", ""]
        lines += [f"- {name}, {work}: {text}" for (name, work), text in beside.items()]
    judged = list(goals.judge(results))
    if judged:
        lines += ["", "Goals:", ""]
        lines += _table(
            ["goal", "found", "bound", ""],
            (
                [what, _number(found), bound, "met" if met else "MISSED"]
                for what, found, bound, met in judged
            ),
        )
    if results.failures:
        lines += ["", "FAILED:", *(f"- {failure}" for failure in results.failures)]
    return "\n".join(lines)


def _loss(results: Results, contenders: Sequence[str]) -> Iterator[str]:
    present = {run["contender"] for run in results.loss}
    names = [name for name in contenders if name in present]
    others = [name for name in names if name != "vxlan"] if "vxlan" in names else []
    return _table(
        ["path", *names, *(f"{name} / vxlan" for name in others)],
        (
            [str(cell)]
            + [_spread(results, name, str(cell)) for name in names]
            + [_number(results.ratio(name, "vxlan", str(cell))) for name in others]
            for cell in CELLS
            if any(results.values(name, str(cell)) for name in names)
        ),
    )


def _table(head: Sequence[str], body: Iterator[list[str]]) -> Iterator[str]:
    cells = [list(head), *body]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    cells.insert(1, ["-" * width for width in widths])
    for line in cells:
        padded = (text.ljust(width) for text, width in zip(line, widths, strict=True))
        yield "| " + " | ".join(padded) + " |"


def _spread(results: Results, contender: str, row: str) -> str:
    values = results.values(contender, row)
    if not values:
        return "-"
    middle = _number(results.median(contender, row))
    if len(values) == 1:
        return middle
    return f"{middle} ({_number(min(values))} - {_number(max(values))})"


def _number(value: float | None) -> str:
    """Three figures."""
    if value is None:
        return "-"
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"
