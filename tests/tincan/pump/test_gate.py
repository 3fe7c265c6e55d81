"""The gate in bad times."""

from collections import Counter
from typing import Any, cast

from tincan.pump.gate import Gate
from tincan.switching.policy import Policy


class FakeTap:
    """Drops 5 frames; from then on nobody can look."""

    name = "tap"

    def __init__(self) -> None:
        self.readable = True
        self.filters: list[bytes | None] = []

    def dropped(self) -> int:
        if not self.readable:
            raise OSError(24, "Too many open files")
        return 5

    def set_filter(self, program: bytes | None) -> None:
        self.filters.append(program)


def test_without_a_descriptor_for_the_count_the_filter_is_set_all_the_same() -> None:
    counters: Counter[str] = Counter()
    tap = FakeTap()
    policy: Policy[Any] = Policy(counters, lambda *_: None)
    gate = Gate(cast(Any, tap), policy, counters, 0.0)
    tap.readable = False
    policy.set_blocked(True)
    gate.observe(1.0)
    assert len(tap.filters) == 1
    assert gate.count_dropped() == 0
