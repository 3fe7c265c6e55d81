"""The status for people, at a glance."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.errors import ControlError
from controller.operator import tables
from controller.operator.status import (
    BindingStatus,
    BlockedStatus,
    ConflictStatus,
    GatewayStatus,
    NodeStatus,
    PathStatus,
    PeerStatus,
    SignalStatus,
    TapStatus,
)
from controller.operator.tables import show_bindings, show_status, size, span, watch_bindings
from tests.controller.operator.example import MAC, as_answered, example


class TestTables:
    def test_at_a_glance(self, capsys: pytest.CaptureFixture[str]) -> None:
        relayed = PathStatus("relay", "srflx", "203.0.113.9:3478")
        own_words = PathStatus("host", "srflx", "198.51.100.7:4711", "direct, both behind NAT")
        show_status(
            as_answered(
                example(
                    peers=[
                        PeerStatus("gamma", "c" * 64, "connected", relayed, 120.0, 1400, 5, 12345),
                        PeerStatus("beta", "b" * 64, "connected", own_words, 12.345, 1444),
                        PeerStatus("", "d" * 64, "connecting", why="no answer to our offer yet"),
                    ],
                    bindings=[BindingStatus("10.0.3.5", MAC, 0, "local", "confirmed", 1.5)],
                    counters={"arp_answered_locally": 3, "x": 0, "frames_dropped": {"loop": 7}},
                    warnings=["something is wrong; do this"],
                    tap=TapStatus("ipop", "lxcbr0", "listening", ["STP delays it; wait 15 s"] * 2),
                    signal=SignalStatus("ws://r.example", False, "wrong secret"),
                )
            )
        )
        out = capsys.readouterr().out
        lines = out.splitlines()
        assert "up 3 h 12 min, version 0.1.0" in out
        assert "in lxcbr0, listening" in out
        assert "not connected: wrong secret" in out
        assert "1 local" in out
        beta = next(line for line in lines if line.startswith("beta"))
        assert "direct, both behind NAT" in beta
        assert "12.3 ms" in beta
        gamma = next(line for line in lines if line.startswith("gamma"))
        assert "relayed by 203.0.113.9: no direct path found" in gamma
        assert "12.3 kB" in gamma
        assert "no answer to our offer yet" in next(x for x in lines if x.startswith("dddddddd"))
        assert [line.split()[0] for line in lines if line[:4] in ("beta", "gamm")] == [
            "beta",
            "gamma",
        ]
        assert "! something is wrong; do this" in lines
        assert lines.count("! STP delays it; wait 15 s") == 1
        assert "frames dropped: loop 7" in lines
        assert "x 0" not in out

    def test_alone(self, capsys: pytest.CaptureFixture[str]) -> None:
        show_status(as_answered(example(tap=TapStatus("ipop", None, "up"))))
        out = capsys.readouterr().out
        assert "no other node is in the network yet" in out
        assert "in no bridge, up" in out

    def test_bindings(self, capsys: pytest.CaptureFixture[str]) -> None:
        show_bindings(
            as_answered(
                example(
                    bindings=[
                        BindingStatus("fd00::1", MAC, 0, "beta", "confirmed", 65.0),
                        BindingStatus("10.0.3.104", MAC, 0, "beta", "conflict", 65.0, 90061.0),
                        BindingStatus("10.0.3.5", MAC, 0, "local", "confirmed", 3.0),
                    ],
                    conflicts=[
                        ConflictStatus(
                            "10.0.3.104", 7, MAC, "beta", "02:00:00:00:00:01", "local", "frozen", 9
                        )
                    ],
                    gateways=[GatewayStatus("10.0.3.1", "00:16:3e:00:00:00", ["alpha", "beta"])],
                    blocked=[BlockedStatus("DHCP", "beta", 'dhcp is "block"', 3, 61)],
                )
            )
        )
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines[:4]] == [
            "address",
            "10.0.3.5",
            "10.0.3.104",
            "fd00::1",
        ]
        assert "vlan" not in lines[0]
        assert "1 d 1 h" in lines[2]
        assert "shared gateway 10.0.3.1 (00:16:3e:00:00:00): local to each of alpha" in lines[4]
        assert 'blocked DHCP from beta: dhcp is "block" (3 times, last 1 min 1 s ago)' in lines[5]
        assert "! 10.0.3.104 (vlan 7) is used twice: 00:16:3e:00:00:05 at beta keeps it" in lines[6]
        assert "controller clear 10.0.3.104" in lines[6]

    def test_vlans_are_shown_where_there_are_any(self, capsys: pytest.CaptureFixture[str]) -> None:
        show_bindings({"bindings": [as_answered(BindingStatus("10.0.3.5", MAC, 7, "b", "x", 1))]})
        assert "vlan" in capsys.readouterr().out

    def test_nothing_known(self, capsys: pytest.CaptureFixture[str]) -> None:
        show_bindings({"bindings": []})
        assert "no address is known yet" in capsys.readouterr().out

    @pytest.mark.parametrize("answer", [None, [], {}, {"bindings": 5}, {"bindings": [{"ip": 5}]}])
    def test_another_version(self, answer: object) -> None:
        for show in (show_status, show_bindings):
            with pytest.raises(ControlError, match="another version"):
                show(answer)

    @given(st.text(max_size=30), st.text(max_size=30), st.floats(), st.integers(0, 2**70))
    @settings(max_examples=60, deadline=None)
    def test_hostile_names_do_not_reach_the_terminal(
        self, name: str, why: str, number: float, count: int
    ) -> None:
        peer = PeerStatus(name, "b" * 64, why, None, number, 1, count, count, why=why)
        blocked = BlockedStatus(name, name, why, count)
        conflict = ConflictStatus("10.0.3.5", 0, MAC, name, MAC, name, why, 0)
        shown = example(
            peers=[peer],
            blocked=[blocked],
            conflicts=[conflict],
            warnings=[why],
            node=NodeStatus(name, "a" * 64),
            tap=TapStatus(name, name, why, [why]),
            signal=SignalStatus(name, False, why),
            counters={name: 5, "frames_dropped": {name: 5}},
        )
        console = tables._console()
        with console.capture() as captured:
            console.print(tables._status(shown))
        assert all(line.isprintable() for line in captured.get().split("\n"))


class TestWatch:
    def test_in_a_pipe_each_follows_the_one_before(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tables, "WATCH_EVERY_S", 0.0)
        answers: list[object] = [{"bindings": []}, {"bindings": []}]

        def ask() -> object:
            if not answers:
                raise KeyboardInterrupt
            return answers.pop()

        with pytest.raises(KeyboardInterrupt):
            watch_bindings(ask)
        assert capsys.readouterr().out.count("no address is known yet") == 2


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (-1, "0 s"),
        (0.9, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3599, "59 min 59 s"),
        (3605, "1 h"),
        (11520, "3 h 12 min"),
        (86400 * 400 + 3600 * 5, "400 d 5 h"),
    ],
)
def test_span(seconds: float, told: str) -> None:
    assert span(seconds) == told


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (12345, "12.3 kB"),
        (999_600, "1 MB"),
        (123_456_789, "123 MB"),
        (5 * 10**15, "5000 TB"),
    ],
)
def test_size(count: int, told: str) -> None:
    assert size(count) == told
