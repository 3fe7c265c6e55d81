"""What people are shown: plain containers with all that ``status`` needs."""

import json

from tests.controller.switch.test_gateways import MAC, STOCK, bridge, stock
from tests.controller.switch.world import World, mac


def test_a_binding_has_an_owner_a_state_and_ages() -> None:
    world = World("ab").link().run(5)
    world.a.run("10.0.3.5", mac=mac(5)).announce("10.0.3.5")
    world.b.run("10.0.3.7", mac=mac(7)).announce("10.0.3.7")
    world.run(50)
    snapshot = world.a.switch.snapshot(world.now)
    by_ip = {b.pop("ip"): b for b in snapshot["bindings"]}
    assert by_ip["10.0.3.5"] == {
        "mac": mac(5),
        "vlan": 0,
        "at": "local",
        "state": "alive",
        "age_s": 50.0,
        "since_s": 50.0,
    }
    assert by_ip["10.0.3.7"]["at"] == world.b.node
    assert by_ip["10.0.3.7"]["age_s"] == 0.0  # its node vouches for it
    world.unlink("a", "b")
    world.run(10)
    states = {b["ip"]: b["state"] for b in world.a.switch.snapshot(world.now)["bindings"]}
    assert states == {"10.0.3.5": "alive", "10.0.3.7": "unreachable"}


def test_a_bridges_own_address_is_the_hosts() -> None:
    world = World("ab")
    bridge(world.a, STOCK)
    world.link().run(5)
    assert {b["state"] for b in world.a.switch.snapshot(world.now)["bindings"]} == {"host"}


def test_a_snapshot_is_plain() -> None:
    world = stock()
    world.a.run("10.0.3.5", mac=mac(5)).announce("10.0.3.5")
    world.b.run("10.0.3.5", mac=mac(6)).announce("10.0.3.5")
    world.b.run(mac=mac(66)).announce("10.0.3.1")
    world.run(5)
    for host in (world.a, world.b):
        snapshot = host.switch.snapshot(world.now)
        assert set(snapshot) == {"bindings", "conflicts", "gateways", "blocked", "warnings"}
        assert json.loads(json.dumps(snapshot)) == snapshot
        assert snapshot["conflicts"]
        assert {g["mac"] for g in snapshot["gateways"]} == {MAC}
    (blocked,) = world.b.switch.snapshot(world.now)["blocked"]
    assert (blocked["kind"], blocked["peer"], blocked["why"]) == ("claim", "local", "gateway")
