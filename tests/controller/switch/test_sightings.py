"""Moves, failovers, duplicates, freezes (RFC 7432 sections 7.7 and 15), as hosts see them."""

import pytest

from controller.node.actions import Inject
from controller.packets.addresses import BROADCAST_MAC, ZERO_MAC
from controller.packets.packets import ARP_REQUEST, Arp, NeighbourAdvertisement
from controller.switch import messages as rpc
from controller.switch.conflicts import CONFLICT_S, MOVES, QUIET_S
from tests.controller.switch.world import Container, World, mac

IP = "10.0.3.7"
ADDRESSES = pytest.mark.parametrize("ip", ["10.0.3.7", "fd00::7"], ids=["arp", "nd"])


def at(world: World, name: str, ip: str = IP) -> tuple[str, str] | None:
    """Return the MAC and the name of the node that a host believes ``ip`` to be at."""
    found = world.hosts[name].table().get((0, ip))
    names = {h.node: n for n, h in world.hosts.items()}
    return (found[0], names[found[1]]) if found else None


def holder(*ips: str) -> tuple[World, Container]:
    """Return three hosts and a container on the first that all know."""
    world = World("abc").link().run(5)
    owner = world.a.run(*ips, mac=mac(7))
    for ip in ips:
        owner.announce(ip)
    world.run(30)
    return world, owner


# --- moves


@ADDRESSES
@pytest.mark.parametrize("noticed", [True, False], ids=["port gone", "port not seen to go"])
def test_a_container_that_moves_is_reachable_within_a_second(ip: str, noticed: bool) -> None:
    world, owner = holder(ip)
    world.a.stop(owner, noticed=noticed)
    world.b.attach(owner)
    owner.announce(ip)
    world.run(0.1 if noticed else 0.8)
    for name in "abc":
        assert at(world, name, ip) == (owner.mac, "b")
    assert world.c.pins[0, owner.mac] == world.b.node
    assert world.a.pins[0, owner.mac] == world.b.node
    assert world.b.pins[0, owner.mac] is None
    assert not world.b.counters["conflicts"]


def test_all_addresses_of_a_container_move_with_it() -> None:
    world, owner = holder("10.0.3.7", "fe80::7", "fd00::7")
    world.a.stop(owner, noticed=False)
    world.b.attach(owner)
    owner.announce("fe80::7")
    world.run(1.0)
    for ip in ("10.0.3.7", "fe80::7", "fd00::7"):
        assert at(world, "a", ip) == at(world, "c", ip) == (owner.mac, "b")


@ADDRESSES
def test_a_failover_address_is_reachable_within_a_second(ip: str) -> None:
    """The address moves to another MAC elsewhere; caches in a third place must follow."""
    world, master = holder(ip)
    asker = world.c.run("10.0.3.5", "fd00::5", mac=mac(5))
    asker.ask(ip)
    world.run(5)
    assert asker.cache[ip] == master.mac
    start = world.now
    master.ips.remove(ip)
    backup = world.b.run(mac=mac(8))
    backup.announce(ip)
    world.run(0.8)
    assert asker.cache[ip] == backup.mac
    assert len(world.c.injected(since=start)) == 1
    for name in "abc":
        assert at(world, name, ip) == (backup.mac, "b")


@ADDRESSES
def test_a_failover_between_two_containers_of_one_host(ip: str) -> None:
    world, master = holder(ip)
    asker = world.c.run("10.0.3.5", "fd00::5", mac=mac(5))
    asker.ask(ip)
    world.run(5)
    master.ips.remove(ip)
    backup = world.a.run(mac=mac(8))
    backup.announce(ip)
    world.run(0.8)
    assert asker.cache[ip] == backup.mac
    assert at(world, "c", ip) == (backup.mac, "a")


def test_an_announcement_of_what_is_known_disturbs_nobody() -> None:
    world, owner = holder(IP)
    start = world.now
    owner.announce(IP)
    world.run(5)
    assert not world.messages(rpc.Announce, start)
    assert not world.b.injected(since=start)


def test_a_move_while_the_old_node_is_away() -> None:
    world, owner = holder(IP)
    world.unlink("a", "b")
    world.unlink("a", "c")
    world.a.stop(owner)
    world.b.attach(owner)
    owner.announce(IP)
    world.run(0.1)
    assert at(world, "c") == (owner.mac, "b")
    world.link().run(3)
    for name in "abc":
        assert at(world, name) == (owner.mac, "b")


def test_a_late_message_resurrects_nothing() -> None:
    world, owner = holder(IP)
    late = rpc.Announce([rpc.Entry(IP, owner.mac, 0)])
    world.a.stop(owner)
    world.run(1)
    world.c.do(world.c.switch.received(world.a.node, late, world.now))
    assert at(world, "c") is None
    world.b.attach(owner)
    owner.announce(IP)
    world.run(1)
    world.c.do(world.c.switch.received(world.a.node, late, world.now))
    assert at(world, "c") == (owner.mac, "b")


def test_nobody_withdraws_for_others() -> None:
    world, owner = holder(IP)
    foreign = rpc.Withdraw([rpc.Gone(IP, 7)])
    world.c.do(world.c.switch.received(world.b.node, foreign, world.now))
    assert at(world, "c") == (owner.mac, "a")
    world.a.do(world.a.switch.received(world.b.node, foreign, world.now))
    world.run(1)
    assert at(world, "a") == at(world, "c") == (owner.mac, "a")


def test_frames_that_come_from_elsewhere_tell_of_a_move() -> None:
    """A container that moved keeps its caches and sends no ARP; tincan sees its frames."""
    world, owner = holder("10.0.3.7", "fd00::7")
    world.a.stop(owner, noticed=False)
    world.b.attach(owner)
    world.b.do(world.b.switch.mac_claimed(owner.mac, 0, None, world.now))
    world.c.do(world.c.switch.mac_claimed(owner.mac, 0, world.b.node, world.now))
    world.run(1.5)
    for ip in ("10.0.3.7", "fd00::7"):
        assert at(world, "c", ip) == (owner.mac, "b")
    assert not world.c.counters["conflicts"]


def test_frames_with_a_stolen_mac_are_a_conflict() -> None:
    world, owner = holder(IP)
    world.c.do(world.c.switch.mac_claimed(owner.mac, 0, world.b.node, world.now))
    world.a.do(world.a.switch.mac_claimed(owner.mac, 0, world.b.node, world.now))
    world.run(1.5)
    assert at(world, "c") == (owner.mac, "a")
    assert world.c.pins[0, owner.mac] == world.a.node
    for host in (world.a, world.c):
        assert host.counters["conflicts"] == 1
        (conflict,) = host.switch.snapshot(world.now)["conflicts"]
        assert conflict["other_at"] == world.b.node


# --- duplicates


@ADDRESSES
def test_a_duplicate_elsewhere_is_found_and_the_first_holder_keeps_it(ip: str) -> None:
    world, first = holder(ip)
    asker = world.b.run("10.0.3.5", "fd00::5", mac=mac(5))
    asker.ask(ip)
    world.run(5)
    second = world.b.run(mac=mac(8))
    second.announce(ip)
    world.run(1)
    for name in "abc":
        assert at(world, name, ip) == (first.mac, "a")
    # reported at both nodes, with both MACs and both nodes
    for host in (world.a, world.b):
        assert host.counters["conflicts"] == 1
        (report,) = host.reports
        assert first.mac in report.text
        assert second.mac in report.text
        (conflict,) = host.switch.snapshot(world.now)["conflicts"]
        assert (conflict["mac"], conflict["other_mac"]) == (first.mac, second.mac)
        states = {b["ip"]: b["state"] for b in host.switch.snapshot(world.now)["bindings"]}
        assert states[ip] == "conflict"
    # and the neighbours of the second are told the truth
    assert asker.cache[ip] == first.mac


def test_a_duplicate_on_the_same_host() -> None:
    world, first = holder(IP)
    second = world.a.run(mac=mac(8))
    second.announce(IP)
    world.run(1)
    assert at(world, "c") == (first.mac, "a")
    (report,) = world.a.reports
    assert first.mac in report.text
    assert second.mac in report.text


def test_several_hosts_may_answer_for_one_anycast_address() -> None:
    """RFC 4861 section 7.2.7: without the override flag, and without a conflict."""
    world, first = holder("fd00::7")
    other = NeighbourAdvertisement(
        *("fd00::7", "fd00::7", "fd00::5", mac(8), False, True, False),
        *(0, mac(8), mac(5)),
    )
    world.b.do(world.b.switch.captured(other, world.now))
    world.run(2)
    assert not world.b.counters["contests"]
    assert at(world, "b", "fd00::7") == (first.mac, "a")


def test_at_most_one_defence_in_ten_seconds() -> None:
    """RFC 5227 section 2.4 (c)."""
    world, _ = holder(IP)
    second = world.b.run(mac=mac(8))
    start = world.now
    for _ in range(40):
        second.announce(IP)
        world.run(0.5)
    assert 2 <= world.b.counters["defences"] <= 3
    assert len(world.messages(rpc.Probe, start)) <= 6
    assert len(world.b.reports) == 1


def test_the_contender_gets_the_address_when_its_holder_goes() -> None:
    world, first = holder(IP)
    second = world.b.run(mac=mac(8))
    second.announce(IP)
    world.run(5)
    world.a.stop(first)
    world.run(1)
    for name in "abc":
        assert at(world, name) == (second.mac, "b")
    assert not list(world.b.switch.snapshot(world.now)["conflicts"])


def test_a_conflict_ends_when_the_contender_gives_up() -> None:
    world, first = holder(IP)
    second = world.b.run(mac=mac(8))
    second.announce(IP)
    world.run(1)
    second.ips.remove(IP)
    world.run(CONFLICT_S + 5)
    for host in (world.a, world.b):
        assert not host.switch.snapshot(world.now)["conflicts"]
    assert at(world, "b") == (first.mac, "a")


def test_two_that_took_an_address_while_apart_are_found_when_they_meet() -> None:
    world = World("ab")
    first, second = world.a.run(IP, mac=mac(7)), world.b.run(IP, mac=mac(8))
    first.announce(IP)
    second.announce(IP)
    world.run(5)
    world.link().run(3)
    assert at(world, "a") == at(world, "b") is not None
    assert world.a.counters["conflicts"] == world.b.counters["conflicts"] == 1


def test_a_lost_question_to_the_holder_gives_nothing_away() -> None:
    world, first = holder(IP)
    world.loss = 0.6
    second = world.b.run(mac=mac(8))
    second.announce(IP)
    world.run(3)
    world.loss = 0.0
    world.run(70)
    second.announce(IP)
    world.run(3)
    assert world.b.counters["conflicts"] >= 1
    assert at(world, "a") == at(world, "b") == at(world, "c")
    assert at(world, "a") in [(first.mac, "a"), (second.mac, "b")]


# --- freezes


def shuttle(world: World, container: Container, times: int) -> None:
    """Move ``container`` back and forth between hosts a and b."""
    for _ in range(times):
        here = container.host
        assert here is not None
        here.stop(container)
        (world.b if here is world.a else world.a).attach(container)
        container.announce(IP)
        world.run(10)


def test_five_moves_in_three_minutes_freeze_an_address() -> None:
    world, owner = holder(IP)
    shuttle(world, owner, MOVES)
    place = at(world, "c")
    assert place is not None
    for host in world.hosts.values():
        assert any("frozen" in r.text for r in host.reports)
        states = {b["ip"]: b["state"] for b in host.switch.snapshot(world.now)["bindings"]}
        assert states[IP] == "frozen"
    shuttle(world, owner, 1)
    assert at(world, "c") is None  # where it was, it is not; elsewhere it must not be
    assert world.a.counters["moves_refused.frozen"]


def test_four_moves_do_not() -> None:
    world, owner = holder(IP)
    shuttle(world, owner, MOVES - 1)
    assert not any("frozen" in r.text for h in world.hosts.values() for r in h.reports)
    assert at(world, "c") == (owner.mac, "a")


def test_a_frozen_address_thaws_when_it_has_been_quiet() -> None:
    world, owner = holder(IP)
    shuttle(world, owner, MOVES + 1)
    world.run(QUIET_S + 1)
    owner.announce(IP)
    world.run(1)
    assert at(world, "c") == (owner.mac, "a")


def test_a_frozen_address_stays_where_it_is() -> None:
    """Its own container may come and go there."""
    world, owner = holder(IP)
    shuttle(world, owner, MOVES)
    here = owner.host
    assert here is world.b
    here.stop(owner)
    world.run(1)
    here.attach(owner)
    owner.announce(IP)
    world.run(1)
    assert at(world, "c") == (owner.mac, "b")


def test_the_operator_clears_a_frozen_address_everywhere() -> None:
    world, owner = holder(IP)
    shuttle(world, owner, MOVES + 1)
    world.c.do(world.c.switch.clear(IP, world.now))
    world.run(1)
    owner.announce(IP)
    world.run(1)
    assert at(world, "c") == (owner.mac, "a")


def test_clearing_a_conflict_asks_again() -> None:
    world, first = holder(IP)
    second = world.b.run(mac=mac(8))
    second.announce(IP)
    world.run(1)
    first.ips.remove(IP)
    world.c.do(world.c.switch.clear(IP, world.now))
    world.run(2)
    assert at(world, "c") == (second.mac, "b")


# --- age


def test_a_silent_owner_is_asked_before_it_is_forgotten() -> None:
    world, owner = holder("10.0.3.7", "fd00::7")
    heard = len(owner.heard)
    world.run(1000)
    assert at(world, "c", "10.0.3.7") == at(world, "c", "fd00::7") == (owner.mac, "a")
    asked = owner.heard[heard:]
    assert 6 <= len(asked) <= 10  # every four minutes
    assert all(p.eth_dst == owner.mac for p in asked)


def test_a_dead_owner_is_withdrawn_everywhere() -> None:
    world, owner = holder(IP)
    world.a.stop(owner, noticed=False)
    world.run(260)
    assert at(world, "a") is at(world, "c") is None
    assert (0, owner.mac) not in world.c.pins


def test_a_port_that_goes_takes_its_bindings_along_at_once() -> None:
    world, owner = holder("10.0.3.7", "fd00::7")
    world.a.stop(owner)
    world.run(0.1)
    for host in world.hosts.values():
        assert host.table() == {}


def test_somebody_who_asks_for_a_dead_neighbour_has_it_looked_after() -> None:
    world, owner = holder(IP)
    asker = world.a.run("10.0.3.5", mac=mac(5))
    world.a.stop(owner, noticed=False)
    asker.ask(IP)
    world.run(3.1)
    assert at(world, "c") is None


# --- storms


def test_ten_thousand_senders_in_a_second_crowd_nobody_out() -> None:
    world, owner = holder(IP)
    capture = world.a.switch.captured
    for n in range(1000, 11_000):
        ip = f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}"
        packet = Arp(ARP_REQUEST, mac(n), ip, ZERO_MAC, IP, 0, mac(n), BROADCAST_MAC)
        world.a.do(
            [a for a in capture(packet, world.now + n / 11_000) if not isinstance(a, Inject)]
        )
    world.run(1)
    assert len(world.a.table()) < 600
    assert at(world, "c") == (owner.mac, "a")
    world.run(300)
    assert world.c.table() == {(0, IP): (owner.mac, world.a.node)}
