"""The chart of a run, as PNG. Needs matplotlib (the `bench` extra)."""

from collections.abc import Sequence
from pathlib import Path

from lab.bench.matrix import CELLS, CONTROLS
from lab.bench.results import Results
from lab.bench.works import Row

SHOWN = ("tcp1", "tcp4", "bidir", "udp64", "udp1400", "rtt", "rtt_loaded", "cpu_per_gb")
COLUMNS = 4
COLOURS = {"ours": "#d1495b", "vxlan": "#2e4057", "veth": "#9aa5b1"}
OTHERS = "#7fb7be"


def draw(results: Results, rows: Sequence[Row], contenders: Sequence[str], file: Path) -> None:
    """One panel for each work, a bar with its range for each contender; the loss matrix below."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [
        row
        for row in rows
        if row.name in SHOWN and any(results.values(name, row.name) for name in contenders)
    ]
    lossy = [
        control for control in CONTROLS if any(r["cell"].startswith(control) for r in results.loss)
    ]
    lines = -(-len(shown) // COLUMNS) + bool(lossy)
    figure = pyplot.figure(figsize=(15, 3.4 * lines), layout="constrained")
    grid = figure.add_gridspec(lines, COLUMNS)
    for number, row in enumerate(shown):
        axes = figure.add_subplot(grid[number // COLUMNS, number % COLUMNS])
        names = [name for name in contenders if results.values(name, row.name)]
        middles = [results.median(name, row.name) or 0.0 for name in names]
        spread = [
            [
                middle - min(results.values(name, row.name))
                for name, middle in zip(names, middles, strict=True)
            ],
            [
                max(results.values(name, row.name)) - middle
                for name, middle in zip(names, middles, strict=True)
            ],
        ]
        bars = axes.bar(
            names,
            middles,
            yerr=spread,
            capsize=3,
            color=[COLOURS.get(name, OTHERS) for name in names],
        )
        axes.bar_label(bars, fmt="%.3g", fontsize=8)
        better = "more is better" if row.more_is_better else "less is better"
        axes.set_title(f"{row.title} [{row.unit}]\n{better}", fontsize=10)
        axes.tick_params(axis="x", rotation=30, labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    for number, control in enumerate(lossy):
        half = COLUMNS // len(lossy)
        axes = figure.add_subplot(grid[lines - 1, number * half : (number + 1) * half])
        measured = {run["cell"] for run in results.loss}
        cells = [cell for cell in CELLS if cell.control == control and str(cell) in measured]
        names = [name for name in contenders if any(results.values(name, str(c)) for c in cells)]
        for place, name in enumerate(names):
            axes.bar(
                [
                    at + (place - (len(names) - 1) / 2) * 0.8 / len(names)
                    for at in range(len(cells))
                ],
                [results.median(name, str(cell)) or 0.0 for cell in cells],
                width=0.8 / len(names),
                label=name,
                color=COLOURS.get(name, OTHERS),
            )
        labels = [f"{cell.rtt * 1000:g} ms\n{cell.loss * 100:g} %" for cell in cells]
        axes.set_xticks(range(len(cells)), labels, fontsize=8)
        axes.set_yscale("log")
        axes.set_ylim(1, 1000)
        axes.set_title(
            f"one TCP flow ({control}) over 1 Gbit/s by RTT and loss [Mbit/s]", fontsize=10
        )
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8)
    about = results.about
    figure.suptitle(
        f"container to container across two hosts on one machine with {about['processors']} "
        f"processors, kernel {about['kernel']}, commit {about['commit']}",
        fontsize=11,
    )
    figure.savefig(file, dpi=110)
    pyplot.close(figure)
