"""Answers, as a container sees them: who gets one, from whom, when, and who does not."""

import pytest

from controller.packets.addresses import ALL_NODES_MAC, BROADCAST_MAC
from controller.packets.packets import (
    ARP_REPLY,
    ARP_REQUEST,
    Arp,
    NeighbourAdvertisement,
    NeighbourSolicitation,
)
from controller.switch import messages as rpc
from tests.controller.switch.world import Container, World, mac

FAMILIES = pytest.mark.parametrize(
    ("asker_ip", "owner_ip"), [("10.0.3.5", "10.0.3.7"), ("fd00::5", "fd00::7")], ids=["arp", "nd"]
)


def pair(
    asker_ip: str = "10.0.3.5", owner_ip: str = "10.0.3.7", names: str = "ab"
) -> tuple[World, Container, Container]:
    """Return a world in which one container on host a and one on host b know each other."""
    world = World(names).link().run(5)
    asker = world.a.run(asker_ip, mac=mac(5))
    owner = world.b.run(owner_ip, mac=mac(7))
    asker.announce(asker_ip)
    owner.announce(owner_ip)
    world.run(5)
    return world, asker, owner


# --- answers to those who ask


@FAMILIES
def test_a_known_owner_is_answered_for_at_once(asker_ip: str, owner_ip: str) -> None:
    world, asker, owner = pair(asker_ip, owner_ip)
    start = world.now
    asker.ask(owner_ip)
    world.run(0)
    assert asker.cache[owner_ip] == owner.mac
    world.run(5)
    assert not [m for t, _, _, m in world.sent if t >= start]
    (reply,) = world.a.injected(since=start)
    assert (reply.eth_src, reply.eth_dst) == (owner.mac, asker.mac)


def test_the_answer_to_arp_is_what_the_owner_would_say() -> None:
    world, asker, owner = pair()
    start = world.now
    asker.ask("10.0.3.7")
    world.run(1)
    assert world.a.injected(since=start) == [
        Arp(ARP_REPLY, owner.mac, "10.0.3.7", asker.mac, "10.0.3.5", 0, owner.mac, asker.mac)
    ]


@pytest.mark.parametrize("router", [False, True])
def test_the_answer_to_a_solicitation_has_the_owners_flags(router: bool) -> None:
    """RFC 4861 section 7.2.4. A wrong R flag would remove a default router."""
    world, asker, owner = pair("fd00::5", "fd00::7")
    owner.send(
        NeighbourAdvertisement(
            *("fd00::7", "fd00::7", "ff02::1", owner.mac, router, False, True),
            *(0, owner.mac, ALL_NODES_MAC),
        )
    )
    world.run(5)
    start = world.now
    asker.ask("fd00::7")
    world.run(1)
    assert world.a.injected(since=start) == [
        NeighbourAdvertisement(
            target="fd00::7",
            src_ip="fd00::7",
            dst_ip="fd00::5",
            lladdr=owner.mac,
            router=router,
            solicited=True,
            override=True,
            vlan=0,
            eth_src=owner.mac,
            eth_dst=asker.mac,
        )
    ]


def test_several_askers_share_one_relay_and_each_gets_its_answer() -> None:
    world = World("ab").link().run(5)
    askers = [world.a.run(f"10.0.3.{n}", mac=mac(n)) for n in (5, 6)]
    owner = world.b.run("10.0.3.7", mac=mac(7))
    start = world.now
    for asker in askers:
        asker.ask("10.0.3.7")
    world.run(1)
    assert len(world.messages(rpc.ArpRequest, start)) == 1
    assert [asker.cache["10.0.3.7"] for asker in askers] == [owner.mac, owner.mac]
    replies = [p for p in world.a.injected(Arp, start) if isinstance(p, Arp) and p.op == ARP_REPLY]
    assert sorted(p.eth_dst for p in replies) == [mac(5), mac(6)]


@FAMILIES
def test_nobody_answers_for_a_container_here(asker_ip: str, owner_ip: str) -> None:
    world = World("ab").link().run(5)
    asker = world.a.run(asker_ip, mac=mac(5))
    owner = world.a.run(owner_ip, mac=mac(7))
    owner.announce(owner_ip)
    world.run(5)
    start = world.now
    asker.ask(owner_ip)
    world.run(3)
    assert asker.cache[owner_ip] == owner.mac
    # but for the check whether the new container is a router, which its questions do not say
    assert all(packet.eth_dst == asker.mac for packet in world.a.injected(since=start))
    assert all(
        isinstance(packet, NeighbourSolicitation) for packet in world.a.injected(since=start)
    )
    assert not world.messages(rpc.ArpRequest, start)


@FAMILIES
def test_an_owner_here_is_found_even_if_it_answers_only_its_neighbour(
    asker_ip: str, owner_ip: str
) -> None:
    """The reply between two ports is unicast and never passes the TAP: so ask, too."""
    world = World("ab").link().run(5)
    asker = world.a.run(asker_ip, mac=mac(5))
    owner = world.a.run(owner_ip, mac=mac(7))
    asker.ask(owner_ip)
    world.run(5)
    assert world.a.table()[0, owner_ip] == (owner.mac, world.a.node)
    assert world.b.table()[0, owner_ip] == (owner.mac, world.a.node)
    start = world.now
    asker.ask(owner_ip)
    world.run(5)
    assert not world.messages(rpc.ArpRequest, start)


def test_no_answer_for_owners_that_are_down() -> None:
    world, asker, owner = pair(names="abc")
    world.unlink("a", "b")
    start = world.now
    asker.cache.clear()
    asker.ask("10.0.3.7")
    world.run(3)
    assert "10.0.3.7" not in asker.cache
    states = {b["ip"]: b["state"] for b in world.a.switch.snapshot(world.now)["bindings"]}
    assert states["10.0.3.7"] == "unreachable"
    assert world.messages(rpc.ArpRequest, start)  # it may have moved to one who is connected
    world.link("a", "b").run(1)
    asker.ask("10.0.3.7")
    world.run(0)
    assert asker.cache["10.0.3.7"] == owner.mac


def test_a_node_that_stays_away_is_forgotten() -> None:
    world, _, owner = pair()
    world.unlink("a", "b")
    world.run(1000)
    assert (0, "10.0.3.7") not in world.a.table()
    assert (0, owner.mac) not in world.a.pins


# --- reachability checks are the owner's


@FAMILIES
def test_a_check_goes_to_the_owner_and_its_answer_comes_back_once(
    asker_ip: str, owner_ip: str
) -> None:
    world, asker, owner = pair(asker_ip, owner_ip)
    asker.ask(owner_ip)
    world.run(5)
    start = world.now
    asker.check(owner_ip)
    world.run(0)
    assert not world.a.injected(since=start)  # not answered for
    world.run(1)
    assert len(world.carried) == 1
    (reply,) = world.a.injected(since=start)
    assert (reply.eth_src, reply.eth_dst) == (owner.mac, asker.mac)
    assert len(world.messages(rpc.ArpReply, start)) == 1
    assert not world.messages(rpc.ArpRequest, start)


def test_a_check_of_a_dead_owner_is_not_answered() -> None:
    world, asker, owner = pair()
    asker.ask("10.0.3.7")
    world.run(5)
    owner.answers = False
    start = world.now
    asker.check("10.0.3.7")
    world.run(2)
    assert not world.a.injected(since=start)


# --- relays


def test_an_unknown_address_is_relayed_ever_less_often() -> None:
    world = World("ab").link().run(5)
    asker = world.a.run("10.0.3.5", mac=mac(5))
    start = world.now
    for _ in range(60):
        asker.ask("10.0.3.99")
        world.run(1)
    relays = world.a.counters["arp_requests_relayed"]
    assert 6 <= relays <= 11
    assert world.b.counters["arp_requests_injected"] == relays
    assert len(world.messages(rpc.ArpRequest, start)) == 2 * relays  # each sent twice: no answer


def test_a_container_that_appears_is_found_whatever_was_asked_in_vain() -> None:
    world = World("ab").link().run(5)
    asker = world.a.run("10.0.3.5", mac=mac(5))
    for _ in range(30):
        asker.ask("10.0.3.7")
        world.run(1)
    owner = world.b.run("10.0.3.7", mac=mac(7))
    owner.announce("10.0.3.7")
    world.run(0.1)
    asker.ask("10.0.3.7")
    world.run(0)
    assert asker.cache["10.0.3.7"] == owner.mac


def test_a_question_asked_before_the_link_is_answered_with_the_link() -> None:
    world = World("ab")
    asker = world.a.run("10.0.3.5", mac=mac(5))
    owner = world.b.run("10.0.3.7", mac=mac(7))
    for _ in range(5):
        asker.ask("10.0.3.7")
        world.run(1)
    asker.ask("10.0.3.7")
    world.link().run(0.2)
    assert asker.cache["10.0.3.7"] == owner.mac


def test_a_lost_request_is_sent_again_and_asked_once() -> None:
    world = World("ab").link().run(5)
    asker = world.a.run("10.0.3.5", mac=mac(5))
    owner = world.b.run("10.0.3.7", mac=mac(7))
    start = world.now
    world.loss = 1.0
    asker.ask("10.0.3.7")
    world.run(0.1)
    world.loss = 0.0
    world.repeat = 1.0
    world.run(0.5)
    assert asker.cache["10.0.3.7"] == owner.mac
    assert world.b.counters["arp_requests_injected"] == 1
    replies = [p for p in world.a.injected(Arp, start) if isinstance(p, Arp) and p.op == ARP_REPLY]
    assert len(replies) == 1


def test_a_storm_of_questions_is_held_back_and_a_known_container_still_heard() -> None:
    world = World("ab").link().run(5)
    asker = world.a.run("10.0.3.5", mac=mac(5))
    asker.announce("10.0.3.5")
    owner = world.b.run("10.0.3.7", mac=mac(7))
    world.run(5)
    for n in range(2000):
        stranger = Arp(
            *(ARP_REQUEST, mac(1000 + n), f"10.1.{n >> 8}.{n & 255}", "00:00:00:00:00:00"),
            *(f"10.2.{n >> 8}.{n & 255}", 0, mac(1000 + n), BROADCAST_MAC),
        )
        world.a.to_tap(stranger)
    assert world.a.counters["arp_requests_relayed"] <= 150
    assert len(world.a.table()) <= 520
    asker.ask("10.0.3.7")
    world.run(0.2)
    assert asker.cache["10.0.3.7"] == owner.mac


# --- who must not be answered


@FAMILIES
def test_a_host_that_asks_for_its_own_address_hears_nothing(asker_ip: str, owner_ip: str) -> None:
    """An answer with its own MAC from elsewhere would make it give up its address."""
    world, _, owner = pair(asker_ip, owner_ip)
    world.b.stop(owner, noticed=False)
    world.a.attach(owner)
    start = world.now
    owner.probe(owner_ip)
    world.run(3)
    assert not owner.conflicts
    assert not world.a.injected(since=start)


def test_an_unknown_option_goes_to_the_owner() -> None:
    """RFC 9161 section 3.2: SEND, say. Only the owner can answer."""
    world, asker, owner = pair("fd00::5", "fd00::7", names="abc")
    options = bytes.fromhex("0101") + bytes(6) + bytes.fromhex("0b01") + bytes(6)
    start = world.now
    asked = NeighbourSolicitation(
        *("fd00::7", "fd00::5", "ff02::1:ff00:7", asker.mac, 0, asker.mac, "33:33:ff:00:00:07"),
        options,
    )
    asker.send(asked)
    world.run(0)
    assert not world.a.injected(since=start)
    world.run(1)
    (arrived,) = [p for p in owner.heard if isinstance(p, NeighbourSolicitation) and p.options]
    assert (arrived.options, arrived.eth_dst, arrived.src_ip) == (options, owner.mac, "fd00::5")
    assert asker.cache["fd00::7"] == owner.mac
    assert not world.c.injected(since=start)


# --- the wire's edges


def test_vlans_are_separate() -> None:
    world, _, owner = pair()
    other = world.a.attach(Container(mac(8), ["10.0.3.8"], vlan=12))
    twin = world.b.attach(Container(mac(9), ["10.0.3.7"], vlan=12))
    other.ask("10.0.3.7")
    world.run(1)
    assert other.cache["10.0.3.7"] == twin.mac
    assert world.a.table()[12, "10.0.3.7"] == (twin.mac, world.b.node)
    assert world.a.table()[0, "10.0.3.7"] == (owner.mac, world.b.node)
    assert not world.a.counters["contests"]


def test_a_sender_that_contradicts_itself_is_reported_once() -> None:
    world, asker, _ = pair()
    for n in range(5):
        asker.send(
            Arp(
                *(ARP_REPLY, mac(66), "10.0.3.7", mac(5), "10.0.3.5", 0),
                *(asker.mac, BROADCAST_MAC),
            )
        )
        world.run(n)
    assert world.a.counters["frames_dropped.contradicts_source"] == 5
    assert len(world.a.reports) == 1
    assert world.a.table()[0, "10.0.3.7"] == (mac(7), world.b.node)


def test_a_question_is_not_asked_in_the_name_of_a_third_nodes_container() -> None:
    world, _, owner = pair(names="abc")
    asked = rpc.ArpRequest(1, "10.0.3.99", prober=owner.mac)
    world.a.do(world.a.switch.received(world.c.node, asked, world.now))
    world.run(1)
    assert {p.eth_src for p in world.a.injected()} == {world.a.switch.probe_mac}


def test_replies_to_strangers_are_held_back() -> None:
    world, asker, _ = pair()
    for n in range(500):
        reply = Arp(
            ARP_REPLY, asker.mac, "10.0.3.5", mac(n + 100), "10.9.9.9", 0, asker.mac, mac(n + 100)
        )
        world.a.do(world.a.switch.captured(reply, world.now))
    assert len(world.messages(rpc.ArpReply)) <= 60


def test_the_controllers_own_questions_teach_nobody_anything() -> None:
    world = World("ab").link().run(5)
    bystander = world.a.run("10.0.3.6", mac=mac(6))
    bystander.cache = {"10.0.3.5": mac(5), "10.0.3.7": mac(7)}
    asker = world.a.run("10.0.3.5", mac=mac(5))
    asker.ask("10.0.3.99")
    world.run(700)
    assert bystander.cache == {"10.0.3.5": mac(5), "10.0.3.7": mac(7)}
    assert asker.cache == {}


def test_a_container_may_check_on_the_controller_that_checks_on_it() -> None:
    """Asked from fe80::..., a kernel probes that neighbour in turn."""
    world = World("ab").link().run(5)
    owner = world.a.run("fd00::7", mac=mac(7))
    owner.announce("fd00::7")
    world.run(250)
    ((prober, prober_mac),) = owner.cache.items()
    assert prober.startswith("fe80::")
    owner.check(prober)
    world.run(1)
    assert owner.heard[-1].eth_src == prober_mac
    assert not world.carried
    assert world.a.pins[0, prober_mac] is None
