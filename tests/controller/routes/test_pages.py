"""The pages: the real program's routes, as it showed them."""

import json
from pathlib import Path

import pytest
import yaml

from controller.routes.pages import Snapshot, as_html, as_json, as_yaml
from controller.routes.table import RouteTable
from controller.routes.values import Destination, NextHop, NextHopType, Vni

VECTORS = Path(__file__).parents[2] / "vectors" / "metalbond-v0.5.0.json"
PAGES = json.loads(VECTORS.read_text())["http"]
DATE = "2026-11-27 11:07:52"


def snapshot(compatible: str = "0.5.0", more: int = 0, name: str = "[::1]:1") -> Snapshot:
    table = RouteTable()
    nat = NextHop.parse("2001:db8::a2", NextHopType.NAT, ports=(1024, 2047))
    lb = NextHop.parse("2001:db8::a2", NextHopType.LOADBALANCER_TARGET)
    a1, a2 = NextHop.parse("2001:db8::a1"), NextHop.parse("2001:db8::a2")
    for vni, prefix, hop in (
        (42, "10.9.0.7/32", nat),
        (23, "2001:db8:1::/64", a1),
        (23, "10.0.3.1/32", lb),
        (23, "10.0.2.0/24", a2),
        (23, "10.0.1.0/24", a1),
    ):
        table.new(Vni(vni), Destination.parse(prefix), hop)
    for number in range(more):
        table.new(Vni(7), Destination(number.to_bytes(4, "big"), 32), a1)
    routes = [route for routes in table.vnis.values() for route in routes]
    peers = [(name, "ESTABLISHED", "incoming")]
    return Snapshot(DATE, "development", routes, peers, compatible)


def test_json_is_the_real_programs_byte_for_byte() -> None:
    assert as_json(snapshot()).decode() == PAGES["/routes.json"]


def test_yaml_says_the_same() -> None:
    ours, theirs = yaml.safe_load(as_yaml(snapshot())), yaml.safe_load(PAGES["/routes.yaml"])
    assert ours == theirs
    lines = as_yaml(snapshot()).decode().splitlines()
    assert set(lines) - set(PAGES["/routes.yaml"].splitlines()) == {
        'metalbondversion: "development"'
    }


def test_nothing_received() -> None:
    empty = Snapshot(DATE, "x", [], [])
    assert json.loads(as_json(empty))["vnet"] == {}
    assert yaml.safe_load(as_yaml(empty))["vnet"] == {}
    assert b"No routes" in as_html(empty)


def test_v0_3_0_shows_texts() -> None:
    shown = json.loads(as_json(snapshot("0.3.0")))
    assert shown["vnet"]["23"]["10.0.1.0/24"] == ["2001:db8::a1"]
    assert yaml.safe_load(as_yaml(snapshot("0.3.0")))["vnet"][42] == {
        "10.9.0.7/32": ["2001:db8::a2"]
    }


def test_html_is_sorted_escaped_and_bounded() -> None:
    page = as_html(snapshot(more=3000, name="<b>&")).decode()
    assert page.index("10.0.1.0/24") < page.index("10.0.2.0/24") < page.index("2001:db8:1::/64")
    assert "NAT, ports 1024–2047" in page
    assert "load balancer" in page
    assert "&lt;b&gt;&amp;" in page
    assert "… 1000 more" in page
    assert 'http-equiv="refresh"' in page
    assert 'name="viewport"' in page


@pytest.mark.parametrize("address", ["::1", "2001:db8::", "::"])
def test_yaml_of_addresses_with_colons_at_their_ends(address: str) -> None:
    table = RouteTable()
    route = table.new(Vni(1), Destination.parse("10.0.0.0/8"), NextHop.parse(address))
    [hops] = yaml.safe_load(as_yaml(Snapshot(DATE, "x", [route], [])))["vnet"][1].values()
    assert hops[0]["targetaddress"] == address
