"""A status as a running controller answers it, for the tests of its shape and of its tables."""

import json
from typing import Any

from controller.operator.status import NodeStatus, SignalStatus, Status, TapStatus
from tincan.control.codec import encode

MAC = "00:16:3e:00:00:05"


def example(**more: Any) -> Status:
    """Return a status of a node without peers, with ``more`` in place of its fields."""
    given: dict[str, Any] = {
        "node": NodeStatus("alpha", "a" * 64),
        "tap": TapStatus("ipop", "lxcbr0", "forwarding"),
        "signal": SignalStatus("ws://rendezvous.example:8765", True),
        "peers": [],
        "bindings": [],
        "fdb": [],
        "counters": {"arp_answered_locally": 0, "frames_dropped": {}},
        "network": "lab",
        "version": "0.1.0",
        "uptime_s": 11520.0,
    }
    return Status(**{**given, **more})


def as_answered(value: object) -> Any:
    """Return ``value`` as it comes through the control socket."""
    return json.loads(encode(value))
