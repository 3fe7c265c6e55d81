"""Counters start at zero by name, and are shown by reason."""

from controller.node.counters import GROUPS, REQUIRED, new_counters, report


def test_nothing_has_happened() -> None:
    nothing = {**dict.fromkeys(REQUIRED, 0), **{group: {} for group in GROUPS}}
    assert report(new_counters()) == nothing
    assert "frames_dropped" in nothing


def test_groups() -> None:
    counters = new_counters()
    counters["frames_dropped.loop"] += 2
    counters["frames_dropped.no.link"] += 1
    counters["rpc_refused.depth"] += 3
    counters["rpc_refused"] += 4
    counters["frames_dropped"] += 5
    counters["arp_answered_locally"] += 6
    shown = report(counters)
    assert shown["frames_dropped"] == {"loop": 2, "no.link": 1, "other": 5}
    assert shown["rpc_refused"] == {"depth": 3, "other": 4}
    assert shown["arp_answered_locally"] == 6
    assert shown["arp_requests_relayed"] == 0
