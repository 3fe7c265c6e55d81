"""Who may have what: static bindings, prefixes, names that mean one node."""

from collections import Counter
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from controller.app import _policy
from controller.config.load import check
from controller.host.node_key import KnownPeers
from controller.packets.addresses import StaticBinding
from controller.packets.packets import ARP_REPLY, Arp
from controller.switch import messages as rpc
from controller.switch.policy import Policy, Prefixes
from controller.switch.switch import Switch
from tests.controller.switch.world import Container, World, mac

IP = "10.0.3.7"
Address = IPv4Address | IPv6Address
STATIC = StaticBinding(IP, mac(7), "bob")


def strict(**fields: object) -> tuple[World, Policy]:
    """Return linked hosts a, b, c of which a has a policy."""
    policy = Policy(**fields)  # type: ignore[arg-type]
    world = World("abc", a=policy)
    return world, policy


def says(world: World, name: str, ip: str, address: str) -> None:
    said = rpc.Announce([rpc.Entry(ip, address, 5)])
    world.a.do(world.a.switch.received(world.hosts[name].node, said, world.now))


def test_a_static_binding_is_nobody_elses() -> None:
    world, _ = strict(static=[STATIC])
    world.a.do(world.a.switch.named(world.b.node, "bob", world.now))
    world.link().run(1)
    says(world, "c", IP, mac(7))  # another node
    says(world, "b", IP, mac(8))  # another MAC
    says(world, "c", IP, mac(8))
    thief = world.a.attach(Container(mac(9), []))
    thief.announce(IP)
    world.run(2)
    assert world.a.table() == {}
    assert world.a.counters["claims_refused.static"] == 4
    says(world, "b", IP, mac(7))
    assert world.a.table() == {(0, IP): (mac(7), world.b.node)}
    (binding,) = world.a.switch.snapshot(world.now)["bindings"]
    assert binding["state"] == "static"


def test_a_static_binding_of_a_node_that_nobody_knows_yet_is_nobodys() -> None:
    world, _ = strict(static=[STATIC])
    world.link().run(1)
    says(world, "b", IP, mac(7))
    assert world.a.table() == {}


def test_an_id_needs_no_name() -> None:
    world, _ = strict(static=[StaticBinding(IP, mac(7), World.id("b"))])
    world.link().run(1)
    says(world, "b", IP, mac(7))
    assert world.a.table() == {(0, IP): (mac(7), world.b.node)}


def test_a_vlan_has_its_own_static_bindings() -> None:
    world, _ = strict(static=[StaticBinding(IP, mac(7), World.id("b"), vlan=12)])
    world.link().run(1)
    says(world, "c", IP, mac(8))
    assert world.a.table() == {(0, IP): (mac(8), world.c.node)}


def test_a_peer_is_limited_to_its_prefixes() -> None:
    prefixes = [ip_network("10.0.3.128/25"), ip_network("fd00:b::/64")]
    world, _ = strict(allow={"bob": prefixes})
    world.a.do(world.a.switch.named(world.b.node, "bob", world.now))
    world.link().run(1)
    for ip in ("10.0.3.127", "10.0.4.200", "fd00:a::1"):
        says(world, "b", ip, mac(7))
    assert world.a.table() == {}
    assert world.a.counters["claims_refused.not_allowed"] == 3
    for ip in ("10.0.3.128", "fd00:b::1", "fe80::1"):
        says(world, "b", ip, mac(7))
        says(world, "c", "10.0.3.1", mac(9))
    assert {ip for _, ip in world.a.table()} == {"10.0.3.128", "fd00:b::1", "fe80::1", "10.0.3.1"}


def test_an_asker_outside_its_prefixes_is_not_spoken_for() -> None:
    world, _ = strict(allow={World.id("b"): [ip_network("10.0.3.128/25")]})
    world.link().run(1)
    asked = rpc.ArpRequest(1, "10.0.3.9", asker=rpc.Entry("10.0.3.1", mac(66), 0))
    world.a.do(world.a.switch.received(world.b.node, asked, world.now))
    world.run(1)
    assert all(p.eth_src != mac(66) for p in world.a.injected())


def test_a_second_node_with_a_name_is_refused() -> None:
    world, policy = strict(static=[STATIC])
    world.a.do(world.a.switch.named(world.b.node, "bob", world.now))
    world.a.do(world.a.switch.named(world.c.node, "bob", world.now))
    world.link().run(1)
    says(world, "c", "10.0.3.9", mac(9))
    assert world.a.table() == {}
    assert policy.names == {"bob": world.b.node}
    assert world.a.counters["peers_refused.name_taken"] == 1
    assert world.a.counters["rpc_dropped.refused_peer"]
    assert len(world.a.reports) == 1


def test_names_that_the_config_does_not_mention_are_free() -> None:
    world, policy = strict(static=[STATIC])
    world.a.do(world.a.switch.named(world.b.node, "twin", world.now))
    world.a.do(world.a.switch.named(world.c.node, "twin", world.now))
    assert policy.names == {}
    assert not policy.refused


def test_a_node_knows_its_own_name() -> None:
    switch = Switch(World.id("a"), Counter(), name="bob", policy=Policy(static=[STATIC]))
    switch.peer_up(World.id("b"), 0.0)
    here = Arp(ARP_REPLY, mac(7), IP, mac(1), "10.0.3.1", 0, mac(7), mac(1))
    switch.captured(here, 1.0)
    (binding,) = switch.snapshot(2.0)["bindings"]
    assert (binding["at"], binding["state"]) == ("local", "static")


def test_pins_of_earlier_runs_count() -> None:
    world, _ = strict(static=[STATIC], names={"bob": World.id("b")})
    world.a.do(world.a.switch.named(world.c.node, "bob", world.now))
    world.link().run(1)
    says(world, "b", IP, mac(7))
    says(world, "c", "10.0.3.9", mac(9))
    assert set(world.a.table()) == {(0, IP)}


def test_a_policy_learned_late_holds_for_what_was_learned_before() -> None:
    world, _ = strict(static=[STATIC], allow={"carol": [ip_network("10.0.3.0/25")]})
    world.link().run(1)
    says(world, "c", "10.0.3.200", mac(9))
    says(world, "c", "10.0.3.9", mac(9))
    world.a.do(world.a.switch.named(world.c.node, "carol", world.now))
    assert set(world.a.table()) == {(0, "10.0.3.9")}


@given(st.lists(st.ip_addresses(), min_size=1, max_size=5), st.data())
def test_prefixes_hold_what_their_networks_hold(ips: list[Address], data: st.DataObject) -> None:
    networks = [
        ip_network((ip, data.draw(st.integers(0, ip.max_prefixlen))), strict=False) for ip in ips
    ]
    prefixes = Prefixes(networks)
    other = data.draw(st.ip_addresses())
    for ip in (*ips, other):
        assert (str(ip) in prefixes) == any(ip in network for network in networks)


def test_names_mean_the_same_nodes_after_a_restart(tmp_path: Path) -> None:
    value: dict[str, object] = {
        "network": "n",
        "secret": "a secret",
        "signal": "ws://h:1",
        "node": "ann",
    }
    value |= {"allow": {"bob": ["10.0.3.128/25"]}}
    value["static"] = [{"ip": IP, "mac": mac(7), "node": "ann"}]
    config = check(value, tmp_path / "switch.json")
    known = KnownPeers.load(tmp_path)
    known.pin("bob", World.id("b"))
    known.pin("ann", World.id("c"))  # had our name once
    known.save()
    policy = _policy(config, KnownPeers.load(tmp_path), World.id("a"))
    assert policy.refusal(World.id("b"), (0, "10.0.3.5"), mac(8)) == "not_allowed"
    assert policy.refusal(World.id("a"), (0, IP), mac(7)) == ""
    assert policy.refusal(World.id("c"), (0, IP), mac(7)) == "static"
    assert not policy.refused


def test_a_limited_peer_silences_no_container_as_a_shared_gateway() -> None:
    world, _ = strict(allow={World.id("b"): [ip_network("10.0.3.128/25")]})
    world.link().run(1)
    stock, gateway = "00:16:3e:00:00:00", "10.0.3.1"
    world.a.do(world.a.switch.bridge_addresses([(gateway, stock)], world.now))
    says(world, "c", IP, mac(7))
    lie = rpc.Gateways([rpc.Address(IP, stock), rpc.Address(gateway, stock)])
    world.a.do(world.a.switch.received(world.b.node, lie, world.now))
    assert world.a.table()[0, IP] == (mac(7), world.c.node)
    (shared,) = {g["ip"] for g in world.a.switch.snapshot(world.now)["gateways"]}
    assert shared == gateway  # that one is shared indeed, whatever it may claim
