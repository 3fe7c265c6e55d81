"""The goals that this overlay has set itself, beside what a run found."""

from collections.abc import Iterator
from dataclasses import dataclass

from lab.bench.matrix import CELLS, geometric_mean
from lab.bench.results import Results

OURS = "ours"


@dataclass(frozen=True)
class Goal:
    """`row` of ours, as a multiple of `against`'s if that is given, must be at least or at most
    `bound`."""

    row: str
    against: str | None
    at_least: bool
    bound: float


# Four flows and both directions: the ratios of one flow, within 20 %.
GOALS = (
    *(
        Goal(row, other, True, bound * share)
        for row, share in (("tcp1", 1.0), ("tcp4", 0.8), ("bidir", 0.8))
        for other, bound in (("vxlan", 0.6), ("openvpn", 12), ("tinc", 15), ("n2n", 20))
    ),
    Goal("udp64", "openvpn", True, 1.3),
    Goal("udp64", "vxlan", True, 0.6),
    Goal("udp1400", "openvpn", True, 2),
    Goal("rtt", "openvpn", False, 1.25),
    Goal("rtt_loaded", None, False, 5),
    Goal("rtt_loaded", "openvpn", False, 1),
    Goal("cpu_per_gb", "openvpn", False, 1 / 8),
    Goal("idle_cpu", None, False, 0.5),
    Goal("idle_bytes", None, False, 100),
)
MEMORY = {"tincan": 60, "controller": 110}  # MiB
BBR_CELL = 0.9  # of VXLAN, in every cell
CUBIC_MEAN = 0.85  # of VXLAN, geometric mean over the cells


def judge(results: Results) -> Iterator[tuple[str, float, str, bool]]:
    """For each goal that this run can tell: (what, found, bound, met)."""
    for goal in GOALS:
        if goal.against:
            found = results.ratio(OURS, goal.against, goal.row)
            what = f"{goal.row}, times {goal.against}"
        else:
            found = results.median(OURS, goal.row)
            what = goal.row
        if found is not None:
            met = found >= goal.bound if goal.at_least else found <= goal.bound
            yield what, found, f"{'>=' if goal.at_least else '<='} {goal.bound:.3g}", met
    memory = (results.detail(OURS, "idle") or {}).get("resident_mib", {})
    for program, bound in MEMORY.items():
        if program in memory:
            yield (
                f"memory of {program}, MiB",
                memory[program],
                f"<= {bound}",
                memory[program] <= bound,
            )
    ratios = {cell: results.ratio(OURS, "vxlan", str(cell)) for cell in CELLS}
    bbr = [ratio for cell, ratio in ratios.items() if ratio is not None and cell.control == "bbr"]
    cubic = [r for cell, r in ratios.items() if r is not None and cell.control == "cubic"]
    if bbr:
        yield (
            "lossy path, bbr: worst cell, times vxlan",
            min(bbr),
            f">= {BBR_CELL}",
            min(bbr) >= BBR_CELL,
        )
    if cubic:
        mean = geometric_mean(cubic)
        yield "lossy path, cubic: mean, times vxlan", mean, f">= {CUBIC_MEAN}", mean >= CUBIC_MEAN
