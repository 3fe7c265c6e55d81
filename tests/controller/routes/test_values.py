"""Destinations and next hops: parsed, shown, refused."""

import pytest

from controller.errors import RouteError
from controller.routes.values import (
    MAX_VNI,
    Destination,
    IpVersion,
    NextHop,
    NextHopType,
    check_hop,
    check_vni,
)


def test_a_destination_keeps_its_host_bits() -> None:
    destination = Destination.parse("10.0.0.5/24")
    assert str(destination) == "10.0.0.5/24"
    assert str(destination.network) == "10.0.0.0/24"
    assert destination != Destination.parse("10.0.0.0/24")
    assert destination.version is IpVersion.IPV4
    assert Destination.parse("2001:DB8::/32").version is IpVersion.IPV6


@pytest.mark.parametrize("text", ["10.0.0.1", "10.0.0.0/33", "x/8", "fe80::1%eth0/64", "", "/"])
def test_what_is_no_destination(text: str) -> None:
    with pytest.raises(RouteError, match="is not a prefix"):
        Destination.parse(text)


def test_a_next_hop_as_people_read_it() -> None:
    assert str(NextHop.parse("2001:DB8::1")) == "2001:db8::1"
    assert str(NextHop.parse("2001:db8::1", target_vni=7)) == "2001:db8::1 (VNI: 7)"
    assert str(NextHop.parse("192.0.2.1").target_address) == "192.0.2.1"


def test_a_port_range_belongs_to_a_nat() -> None:
    nat = NextHop.parse("::1", NextHopType.NAT, ports=(5, 9))
    assert (nat.nat_port_range_from, nat.nat_port_range_to) == (5, 9)
    for kind, ports in (
        (NextHopType.NAT, None),
        (NextHopType.STANDARD, (1, 2)),
        (NextHopType.NAT, (9, 5)),
        (NextHopType.NAT, (0, 65536)),
    ):
        with pytest.raises(RouteError):
            NextHop.parse("::1", kind, ports=ports)
    with pytest.raises(RouteError):
        check_hop(NextHop(bytes(16), nat_port_range_to=4))


def test_vnis_have_32_bits() -> None:
    assert check_vni(MAX_VNI) == MAX_VNI
    for wrong in (-1, MAX_VNI + 1):
        with pytest.raises(RouteError):
            check_vni(wrong)
