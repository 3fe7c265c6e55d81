"""Counters: which exist from the start, and how ``status`` shows them. Pure.

A counter is an entry of one ``Counter[str]`` that the composition root hands to everybody. A
name with a dot is one reason of a group: ``frames_dropped.unknown_peer``.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Final

REQUIRED: Final = (
    "arp_answered_locally",
    "arp_requests_relayed",
    "arp_replies_relayed",
    "arp_requests_injected",
)
"""Counters that exist from the start, so that nobody has to ask whether zero means unknown."""
GROUPS: Final = ("frames_dropped", "rpc_received", "rpc_sent")
"""Groups that exist from the start: counted by reason, or by kind of message."""


def new_counters() -> Counter[str]:
    """Return the counters of a controller that has done nothing yet."""
    return Counter(dict.fromkeys(REQUIRED, 0))


def report(counters: Mapping[str, int]) -> dict[str, int | dict[str, int]]:
    """Return the counters by name, those of a group as one object by reason.

    ``{"a": 1, "frames_dropped.loop": 2}`` becomes ``{"a": 1, "frames_dropped": {"loop": 2}}``.
    """
    single: dict[str, int] = dict.fromkeys(REQUIRED, 0)
    groups: dict[str, dict[str, int]] = {group: {} for group in GROUPS}
    for name, count in sorted(counters.items()):
        group, dot, reason = name.partition(".")
        if dot:
            groups.setdefault(group, {})[reason] = count
        else:
            single[name] = count
    for group in single.keys() & groups.keys():
        groups[group]["other"] = single.pop(group)
    return {**single, **groups}
