"""The status for programs: stable keys."""

from controller.operator.status import (
    BindingStatus,
    FdbStatus,
    PathStatus,
    PeerStatus,
)
from tests.controller.operator.example import MAC, as_answered, example


class TestShape:
    def test_stable_keys(self) -> None:
        answer = as_answered(
            example(
                peers=[
                    PeerStatus("beta", "b" * 64, "connected", PathStatus("host", "host", "a:1"))
                ],
                bindings=[BindingStatus("10.0.3.5", MAC, 0, "local", "confirmed", 1.5)],
                fdb=[FdbStatus(MAC, 0, "beta", 2.0)],
            )
        )
        assert {"node", "tap", "signal", "peers", "bindings", "fdb", "counters"} <= set(answer)
        assert set(answer["node"]) == {"name", "id"}
        assert {"name", "bridge", "state", "warnings"} <= set(answer["tap"])
        assert {"url", "connected"} <= set(answer["signal"])
        assert {
            *("name", "id", "state", "path", "rtt_ms", "pmtu"),
            *("tx_bytes", "rx_bytes", "tx_frames", "rx_frames"),
        } <= set(answer["peers"][0])
        assert {"local", "remote", "address"} <= set(answer["peers"][0]["path"])
        assert {"ip", "mac", "vlan", "at", "state", "age_s"} <= set(answer["bindings"][0])
        assert set(answer["fdb"][0]) == {"mac", "vlan", "at", "age_s"}
