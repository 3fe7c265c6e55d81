"""The walkthrough of the page that this project descends from, step by step."""

import pytest

from controller.packets.packets import NeighbourSolicitation
from controller.switch import messages as rpc
from tests.controller.switch.world import World, mac

V4 = ("10.0.3.5", "10.0.3.7")
V6 = ("fd00::5", "fd00::7")


@pytest.mark.parametrize("ips", [V4, V6], ids=["arp", "nd"])
def test_a_container_resolves_another_across_the_overlay(ips: tuple[str, str]) -> None:
    asker_ip, owner_ip = ips
    world = World("abc").link().run(5)
    asker = world.a.run(asker_ip, mac=mac(5))
    owner = world.b.run(owner_ip, mac=mac(7))
    start = world.now
    asker.ask(owner_ip)
    world.run(0.2)

    # the request is relayed once to each peer, and put on each peer's bridge once
    assert world.a.counters["arp_requests_relayed"] == 1
    assert len(world.messages(rpc.ArpRequest, start)) == 2
    (question,) = world.b.injected(since=start)
    assert question.eth_src == asker.mac
    # the owner's reply goes to all, and only the asker's node puts it on its bridge
    assert world.b.counters["arp_replies_relayed"] == 1
    replies = [
        packet
        for packet in world.a.injected(since=start)
        if packet.eth_dst == asker.mac and not isinstance(packet, NeighbourSolicitation)
    ]
    assert len(replies) == 1
    assert replies[0].eth_src == owner.mac
    assert len(world.c.injected(since=start)) == 1
    # both know each other's real MAC
    assert asker.cache[owner_ip] == owner.mac
    assert owner.cache[asker_ip] == asker.mac
    # and everybody knows who has what
    for host in world.hosts.values():
        assert host.table() == {
            (0, asker_ip): (asker.mac, world.a.node),
            (0, owner_ip): (owner.mac, world.b.node),
        }
    assert world.a.pins[0, owner.mac] == world.b.node
    assert world.b.pins[0, owner.mac] is None


@pytest.mark.parametrize("ips", [V4, V6], ids=["arp", "nd"])
def test_the_repeat_is_answered_at_home(ips: tuple[str, str]) -> None:
    asker_ip, owner_ip = ips
    world = World("ab").link().run(5)
    asker = world.a.run(asker_ip, mac=mac(5))
    owner = world.b.run(owner_ip, mac=mac(7))
    asker.ask(owner_ip)
    world.run(10)
    asker.cache.clear()
    start, before = world.now, len(world.b.frames)
    asker.ask(owner_ip)
    world.run(3)
    assert asker.cache[owner_ip] == owner.mac
    assert world.a.counters["arp_answered_locally"] == 1
    assert not [m for t, _, _, m in world.sent if t >= start]
    assert len(world.b.frames) == before
    assert len(world.a.injected(since=start)) == 1
