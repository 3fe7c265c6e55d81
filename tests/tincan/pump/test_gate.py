"""The gate in bad times."""

import errno
from collections import Counter
from typing import Any

from tincan.device.twin import Twin
from tincan.pump.gate import Gate
from tincan.switching.policy import Policy


class Unreadable(Twin):
    """Drops 5 frames; from then on nobody can look."""

    readable = True

    def dropped(self) -> int:
        if not self.readable:
            raise OSError(errno.EMFILE, "Too many open files")
        return 5


def test_without_a_descriptor_for_the_count_the_filter_is_set_all_the_same() -> None:
    counters: Counter[str] = Counter()
    tap = Unreadable()
    policy: Policy[Any] = Policy(counters, lambda *_: None)
    gate = Gate(tap, policy, counters, 0.0)
    tap.readable = False
    policy.set_blocked(True)
    gate.observe(1.0)
    assert len(tap.filters) == 1
    assert gate.count_dropped() == 0
