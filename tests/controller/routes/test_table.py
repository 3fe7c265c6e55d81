"""Routes and their sources."""

from hypothesis import given
from hypothesis import strategies as st

from controller.routes.table import Routes, RouteTable
from controller.routes.values import Destination, NextHop, Vni

VNI, OTHER = Vni(1), Vni(2)
HOP = NextHop.parse("::1")


def net(number: int) -> Destination:
    return Destination(number.to_bytes(4, "big"), 32)


def test_a_route_is_there_while_a_source_announces_it() -> None:
    table = RouteTable()
    route = table.new(VNI, net(1), HOP)
    table.hold(route, 1)
    table.hold(route, 2)
    assert table.find(VNI, net(1), HOP) is route
    assert table.find(OTHER, net(1), HOP) is None
    assert route.sources == (1, 2)
    assert (table.held(1), table.of(1, VNI), table.of(1, OTHER)) == (1, [route], [])
    table.release(route, 1)
    assert table.find(VNI, net(1), HOP) is route
    table.release(route, 2)
    assert (table.find(VNI, net(1), HOP), table.routes, table.vnis) == (None, 0, {})
    assert (table.held(1), table.some_of(2, 5)) == (0, [])


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 600))), st.integers(0, 700))
def test_in_order_of_serials_whatever_went(history: list[tuple[bool, int]], after: int) -> None:
    table = RouteTable()
    for number in range(600):
        table.hold(table.new(VNI, net(number), HOP), 1)
    history += [(False, number) for number in range(500)]
    for there, number in history:
        route = table.find(VNI, net(number), HOP)
        if there and route is None:
            table.hold(table.new(VNI, net(number), HOP), 1)
        elif not there and route is not None:
            table.release(route, 1)
    routes = table.vnis.get(VNI, Routes())
    expected = sorted(r.serial for r in routes if r.serial > after)
    assert [route.serial for route in routes.after(after)] == expected
    assert len(routes._in_order) <= 2 * max(256, len(routes)) + 1


def test_some_of_a_source() -> None:
    table = RouteTable()
    for number in range(10):
        table.hold(table.new(VNI if number % 2 else OTHER, net(number), HOP), 3)
    assert len(table.some_of(3, 7)) == 7
    assert len(table.some_of(3, 70)) == 10
