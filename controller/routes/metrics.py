"""The figures of a node in the text format of Prometheus (version 0.0.4)."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from controller.routes.machine import State
from controller.routes.speaker import Speaker

MAX_VNIS: Final = 10_000
"""VNIs that are listed one by one; the sums have all."""


def as_text(speaker: Speaker) -> bytes:
    """Return what /metrics has."""
    return "".join(_families(speaker)).encode()


def _families(speaker: Speaker) -> Iterator[str]:
    peers = list(speaker.peers.values())
    states = Counter(peer.state for peer in peers)
    yield from _family(
        "peers",
        "gauge",
        "Peers by state.",
        [(f'{{state="{state.value}"}}', states[state]) for state in State],
    )
    received = speaker.reflector.received
    by_vni = list(received.vnis.items())[:MAX_VNIS]
    yield from _family(
        "routes",
        "gauge",
        "Received routes by VNI.",
        [(f'{{vni="{vni}"}}', len(routes)) for vni, routes in by_vni],
    )
    yield from _family("routes_all", "gauge", "Received routes.", [("", received.routes)])
    own = len(speaker.reflector.own)
    yield from _family("announced", "gauge", "Routes that this node announces.", [("", own)])
    subscriptions = sum(len(peer.cursors) for peer in peers)
    yield from _family("subscriptions", "gauge", "Peers' subscriptions.", [("", subscriptions)])
    sent = speaker.frames_out + sum(peer.frames_out for peer in peers)
    yield from _family("updates_in_total", "counter", "UPDATEs in.", [("", speaker.updates_in)])
    yield from _family("frames_out_total", "counter", "Frames of all kinds out.", [("", sent)])
    queued = [(f'{{peer="{_escaped(peer.name)}"}}', peer.unread) for peer in peers if peer.unread]
    yield from _family("unread_bytes", "gauge", "Changes not sent yet, by peer.", queued)
    yield from _family(
        "unread_bytes_all", "gauge", "Changes kept for peers.", [("", speaker.reflector.unread())]
    )
    replaying = sum(len(peer.replays) for peer in peers)
    yield from _family("replays", "gauge", "Replays not finished yet.", [("", replaying)])
    yield from _family(
        "dropped_total", "counter", "What was left out, and why.", _why(speaker.dropped)
    )
    yield from _family(
        "closed_total", "counter", "Connections lost, and why.", _why(speaker.closed)
    )


def _why(counted: Counter[str]) -> list[tuple[str, int]]:
    return [(f'{{reason="{_escaped(why)}"}}', count) for why, count in sorted(counted.items())]


def _family(name: str, kind: str, told: str, samples: Iterable[tuple[str, int]]) -> Iterator[str]:
    yield f"# HELP metalbond_{name} {told}\n# TYPE metalbond_{name} {kind}\n"
    for labels, value in samples:
        yield f"metalbond_{name}{labels} {value}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
