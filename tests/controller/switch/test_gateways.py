"""Bridges that have the same address: each its own host's gateway, and nothing crosses."""

from controller.packets.addresses import BROADCAST_MAC, NO_IP4, ZERO_MAC
from controller.packets.packets import (
    ARP_REQUEST,
    Arp,
    Echo,
    HostPacket,
    NeighbourSolicitation,
    Prohibited,
)
from controller.switch import messages as rpc
from controller.switch.gateways import LINGER_S
from tests.controller.switch.world import Container, Host, World, mac

IP, MAC, LINK_LOCAL = "10.0.3.1", "00:16:3e:00:00:00", "fe80::216:3eff:fe00:0"
STOCK = {(IP, MAC), (LINK_LOCAL, MAC)}


def bridge(host: Host, addresses: set[tuple[str, str]]) -> Container:
    """Give a host's bridge its addresses, and return the host as it appears on the bridge."""
    host.do(host.switch.bridge_addresses(addresses, host.world.now))
    return host.attach(Container(next(m for _, m in addresses), [ip for ip, _ in addresses]))


def stock(names: str = "ab") -> World:
    """Return hosts with unmodified lxc-net, linked."""
    world = World(names)
    for host in world.hosts.values():
        bridge(host, STOCK)
    return world.link().run(5)


def test_equal_bridges_are_recognised_and_blocked() -> None:
    world = stock("abc")
    for host in world.hosts.values():
        assert host.never.macs == {MAC}
        assert host.never.ips == {IP, LINK_LOCAL}
        assert host.table() == {}
        assert (0, MAC) not in host.pins
        assert not host.reports
        gateways = host.switch.snapshot(world.now)["gateways"]
        assert {g["ip"]: len(g["nodes"]) for g in gateways} == {IP: 3, LINK_LOCAL: 3}


def test_a_third_node_with_another_bridge_blocks_it_too() -> None:
    world = World("abc")
    bridge(world.a, STOCK)
    bridge(world.b, STOCK)
    bridge(world.c, {("10.0.4.1", mac(9))})
    world.link().run(5)
    assert world.c.never.macs == {MAC}
    assert world.c.never.ips == {IP, LINK_LOCAL}
    for host in world.hosts.values():
        assert host.table() == {(0, "10.0.4.1"): (mac(9), world.c.node)}


def test_an_address_with_two_macs_is_shared_and_so_are_both_macs() -> None:
    world = World("ab")
    bridge(world.a, {(IP, mac(1))})
    bridge(world.b, {(IP, mac(2))})
    world.link().run(5)
    assert world.a.never.macs == {mac(1), mac(2)}
    assert IP in world.b.never.ips
    assert world.a.table() == world.b.table() == {}


def test_unequal_bridges_are_ordinary_neighbours() -> None:
    world = World("ab")
    one = bridge(world.a, {("10.0.3.1", mac(1))})
    other = bridge(world.b, {("10.0.3.2", mac(2))})
    world.link().run(5)
    expected = {
        (0, "10.0.3.1"): (mac(1), world.a.node),
        (0, "10.0.3.2"): (mac(2), world.b.node),
    }
    assert world.a.table() == world.b.table() == expected
    one.ask("10.0.3.2")
    world.run(1)
    assert one.cache["10.0.3.2"] == other.mac
    world.run(1000)
    assert world.b.table() == expected


def test_a_container_reaches_its_own_gateway_and_nothing_crosses() -> None:
    world = stock()
    container = world.a.run("10.0.3.5", mac=mac(5))
    start = world.now
    container.ask(IP)
    world.run(2)
    assert container.cache[IP] == MAC
    assert not world.messages(rpc.ArpRequest, start)
    assert not world.a.injected(since=start)
    assert world.b.table() == {(0, "10.0.3.5"): (container.mac, world.a.node)}


def test_a_container_takes_its_gateway_along_when_it_moves() -> None:
    world = stock()
    container = world.a.run("10.0.3.5", mac=mac(5))
    container.ask(IP)
    world.run(2)
    world.a.stop(container)
    world.b.attach(container)
    start = world.now
    container.cache.clear()
    container.ask(IP)
    world.run(2)
    assert container.cache[IP] == MAC
    assert {p.eth_src for p in world.a.injected(since=start)} == {container.mac}
    assert world.a.table()[0, "10.0.3.5"] == (container.mac, world.b.node)


def test_a_host_resolves_a_container_elsewhere_in_nobodys_name() -> None:
    world = stock()
    gateway = world.a.containers[0]
    owner = world.b.run("10.0.3.7", mac=mac(7))
    start = world.now
    gateway.ask("10.0.3.7")
    world.run(1)
    assert gateway.cache["10.0.3.7"] == owner.mac
    (request,) = {m for m in world.messages(rpc.ArpRequest, start) if isinstance(m, rpc.ArpRequest)}
    assert request.asker is None
    assert request.prober is None
    for packet in world.b.injected(since=start):
        assert packet.eth_src != MAC
    assert owner.cache == {}


def test_a_peers_talk_about_a_gateway_is_refused_and_reported_once() -> None:
    world = stock()
    said = rpc.Entry(IP, mac(66), 9)
    for n in range(3):
        world.a.do(world.a.switch.received(world.b.node, rpc.Announce([said]), world.now + n))
        asked = rpc.ArpRequest(n, IP, asker=rpc.Entry("10.0.3.9", MAC, 0))
        world.a.do(world.a.switch.received(world.b.node, asked, world.now + n))
    assert world.a.table() == {}
    assert world.a.counters["claims_refused.gateway"] == 6
    assert len(world.a.reports) == 2  # one about the address, one about the MAC
    assert not world.a.injected()
    (first, *_) = world.a.switch.snapshot(world.now)["blocked"]
    assert (first["peer"], first["why"], first["count"]) == (world.b.node, "gateway", 6)


def test_a_container_that_poses_as_the_gateway_is_refused() -> None:
    for shared in (True, False):
        world = stock() if shared else World("ab")
        if not shared:
            bridge(world.a, STOCK)
            world.link().run(5)
        container = world.a.run(mac=mac(66))
        container.announce(IP)
        world.run(2)
        assert world.a.counters["claims_refused.gateway"] == 1
        assert (mac(66), world.a.node) not in world.b.table().values()


def test_an_own_bridge_address_is_not_lost_to_a_peer() -> None:
    world = World("ab")
    bridge(world.a, {("10.0.3.1", mac(1))})
    world.link().run(5)
    said = rpc.Announce([rpc.Entry("10.0.3.1", mac(66), 9)])
    world.a.do(world.a.switch.received(world.b.node, said, world.now))
    world.run(2)
    assert world.a.table() == {(0, "10.0.3.1"): (mac(1), world.a.node)}


def test_a_gateway_stays_shared_while_a_link_flaps_and_not_for_ever() -> None:
    world = stock("abc")
    world.unlink("a", "b")
    world.unlink("c", "b")
    world.run(60)
    assert world.a.never.macs == {MAC}
    world.run(LINGER_S)
    assert world.a.never.macs == {MAC}  # c still has it
    world.unlink("a", "c")
    world.run(LINGER_S + 60)
    assert world.a.never.macs == frozenset()
    assert world.a.table()[0, IP] == (MAC, world.a.node)


def test_a_gateway_that_is_changed_becomes_ordinary() -> None:
    world = stock()
    gateway = world.b.containers[0]
    gateway.mac, gateway.ips = mac(2), ["10.0.3.2"]
    world.b.do(world.b.switch.bridge_addresses({("10.0.3.2", mac(2))}, world.now))
    world.run(2)
    for host in (world.a, world.b):
        assert host.never.macs == frozenset()
        assert host.table() == {
            (0, IP): (MAC, world.a.node),
            (0, LINK_LOCAL): (MAC, world.a.node),
            (0, "10.0.3.2"): (mac(2), world.b.node),
        }


def test_a_lost_report_is_made_up_for() -> None:
    world = World("ab")
    bridge(world.a, STOCK)
    bridge(world.b, STOCK)
    world.loss = 1.0
    world.link().run(0.5)
    world.loss = 0.0
    world.run(3)
    assert world.a.never.macs == world.b.never.macs == {MAC}


# --- what a host itself sends


def echo(dst_mac: str = mac(7), dst: str = "10.0.3.7", src_mac: str = MAC) -> Echo:
    return Echo(False, IP, dst, 77, 1, b"dnsmasq", 0, src_mac, dst_mac)


def with_owner() -> tuple[World, Container]:
    world = stock("abc")
    owner = world.b.run("10.0.3.7", mac=mac(7))
    owner.announce("10.0.3.7")
    world.run(5)
    return world, owner


def test_an_echo_is_answered_once_the_owner_has_just_been_heard() -> None:
    world, owner = with_owner()
    start, heard = world.now, len(owner.heard)
    world.a.do(world.a.switch.captured(echo(), world.now))
    world.run(0.1)
    assert world.a.injected(since=start) == [
        Echo(True, "10.0.3.7", IP, 77, 1, b"dnsmasq", 0, mac(7), MAC)
    ]
    assert [p.eth_dst for p in owner.heard[heard:]] == [owner.mac]
    assert world.a.counters["echo_answered_by_proxy"] == 1


def test_an_echo_to_a_dead_owner_is_not_answered() -> None:
    world, owner = with_owner()
    owner.answers = False
    world.a.do(world.a.switch.captured(echo(), world.now))
    world.run(3)
    assert not world.a.injected(Echo)
    world.run(10)
    assert (0, "10.0.3.7") not in world.a.table()


def test_an_echo_that_is_not_ours_to_answer() -> None:
    world, _ = with_owner()
    local = world.a.run("10.0.3.8", mac=mac(8))
    local.announce("10.0.3.8")
    world.run(1)
    for packet in (
        echo(dst="10.0.3.99"),
        echo(dst_mac=mac(9)),
        echo(mac(8), "10.0.3.8"),
        echo(src_mac=mac(5)),
    ):
        world.a.do(world.a.switch.captured(packet, world.now))
        world.run(2)
    assert not world.a.injected(Echo)


def test_anything_else_from_the_host_is_refused_visibly() -> None:
    world, _ = with_owner()
    packet = HostPacket(IP, "10.0.3.7", b"E\0\0\x28...", 0, MAC, mac(7))
    for _ in range(100):
        world.a.do(world.a.switch.captured(packet, world.now))
    refusals = world.a.injected(Prohibited)
    assert refusals[0] == Prohibited("10.0.3.7", IP, b"E\0\0\x28...", 0, mac(7), MAC)
    assert 10 <= len(refusals) <= 30
    assert world.a.counters["host_packets_refused"] == 100
    assert len(world.a.reports) == 1
    (warning,) = world.a.switch.snapshot(world.now)["warnings"]
    assert "bridge" in warning


def test_dnsmasqs_check_of_a_free_address_stays_unanswered() -> None:
    world = stock()
    gateway = world.a.containers[0]
    for _ in range(3):
        gateway.ask("10.0.3.99")
        world.run(1)
    assert "10.0.3.99" not in gateway.cache


def test_dnsmasqs_check_finds_an_address_on_a_cold_table() -> None:
    world = stock()
    gateway = world.a.containers[0]
    world.b.run("10.0.3.7", mac=mac(7))
    gateway.ask("10.0.3.7")
    world.run(0.2)
    world.a.do(world.a.switch.captured(echo(gateway.cache["10.0.3.7"]), world.now))
    world.run(0.2)
    assert len(world.a.injected(Echo)) == 1


def test_a_question_in_nobodys_name_is_no_rival_to_a_prober() -> None:
    world = stock()
    prober = world.b.run(mac=mac(7))
    prober.probe("10.0.3.7")
    world.run(0.1)
    world.a.containers[0].ask("10.0.3.7")
    world.run(0.5)
    probes = [
        p
        for p in world.b.injected(Arp)
        if isinstance(p, Arp) and p.spa == NO_IP4 and p.op == ARP_REQUEST
    ]
    assert not probes
    assert not prober.conflicts


def test_the_gateways_own_questions_are_not_sightings() -> None:
    world = stock()
    asked = Arp(ARP_REQUEST, MAC, IP, ZERO_MAC, "10.0.3.5", 0, MAC, BROADCAST_MAC)
    world.a.do(world.a.switch.captured(asked, world.now))
    asked6 = NeighbourSolicitation(
        "fe80::5", LINK_LOCAL, "ff02::1:ff00:5", MAC, 0, MAC, "33:33:ff:00:00:05"
    )
    world.a.do(world.a.switch.captured(asked6, world.now))
    assert world.a.table() == {}


def test_two_leases_of_one_address_are_reported_within_three_seconds() -> None:
    """Both servers skipped their check; the containers ask for their gateways."""
    world = stock("abc")
    for host, number in ((world.a, 7), (world.b, 8)):
        host.run("10.0.3.50", mac=mac(number)).ask(IP)
    world.run(3)
    for host in (world.a, world.b):
        assert host.counters["conflicts"] == 1
        assert any("duplicate" in r.text for r in host.reports)
    assert world.a.table() == world.b.table() == world.c.table()
