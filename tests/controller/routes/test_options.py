"""The values of the command line: the Go program's, and what is said of wrong ones."""

import pytest

from controller.errors import ConfigError
from controller.routes import options
from controller.routes.values import NextHopType


def test_lists_repeat_and_take_commas() -> None:
    assert options.each(["1,2", "3"], options.vni, "--subscribe") == [1, 2, 3]
    assert options.each(None, options.vni, "--subscribe") == []


@pytest.mark.parametrize(
    ("text", "kind", "ports"),
    [
        ("23#10.0.1.0/24#2001:db8::1", NextHopType.STANDARD, (0, 0)),
        ("23#10.0.1.0/24#2001:db8::1#STD", NextHopType.STANDARD, (0, 0)),
        ("23#10.0.1.0/24#2001:db8::1#lb", NextHopType.LOADBALANCER_TARGET, (0, 0)),
        ("23#10.0.1.0/24#2001:db8::1#LBTARGET", NextHopType.LOADBALANCER_TARGET, (0, 0)),
        ("23#10.0.1.0/24#2001:db8::1#Nat#1024#65535", NextHopType.NAT, (1024, 65535)),
    ],
)
def test_announcements(text: str, kind: NextHopType, ports: tuple[int, int]) -> None:
    vni, destination, hop = options.announcement(text, "--announce")
    assert (vni, str(destination), str(hop)) == (23, "10.0.1.0/24", "2001:db8::1")
    assert hop.type == kind
    assert (hop.nat_port_range_from, hop.nat_port_range_to) == ports


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("23#10.0.1.0/24", "2 parts"),
        ("23#10.0.1.0/24#::1#STD#1", "5 parts"),
        ("x#10.0.1.0/24#::1", "x is not a VNI"),
        ("16777216#10.0.1.0/24#::1", "is not a VNI; write 0 to 16777215"),
        ("23#10.0.1.0#::1", "10.0.1.0 is not a prefix"),
        ("23#10.0.1.0/24#nowhere", "nowhere is not an address"),
        ("23#10.0.1.0/24#::1#XYZ", "XYZ is no type"),
        ("23#10.0.1.0/24#::1#NAT", "a NAT has no ports"),
        ("23#10.0.1.0/24#::1#NAT#9#65536", "65536 is not a port"),
        ("23#10.0.1.0/24#::1#NAT#9#5", "9 to 5"),
        ("23#10.0.1.0/24#::1#LB#5#9", "LB is not NAT"),
    ],
)
def test_wrong_announcements(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        options.each([text], options.announcement, "metalbond client: --announce")
    said = str(raised.value)
    assert said.startswith(f"metalbond client: --announce {text}: ")
    assert told in said
    assert "\n" not in said


def test_tables() -> None:
    assert options.table("23#100", "") == (23, 100)
    for text in ("23", "23#", "23#0", "23#255", "23#x", "1#2#3", "23#4294967296"):
        with pytest.raises(ConfigError):
            options.table(text, "--install-routes")


def test_keepalives() -> None:
    assert options.keepalive("0", "") == 0
    for text in ("-1", "1.5", "", "3601", "٣"):
        with pytest.raises(ConfigError):
            options.keepalive(text, "--keepalive")
