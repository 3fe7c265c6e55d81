"""Tables that agree, at what cost: restarts, lost messages, links that come up, idle hours."""

import pytest

from controller.node.actions import Send
from controller.packets.resolution import announcement
from controller.switch import messages as rpc
from controller.switch.sync import COMPARE_S
from controller.switch.table import MAX_PER_NODE, MAX_SEQUENCE, Binding
from tests.controller.switch.wire import encode
from tests.controller.switch.world import Host, World, mac


def populate(host: Host, count: int, base: int = 0) -> None:
    """Run ``count`` containers on a host and let them speak."""
    for n in range(base, base + count):
        ip = f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}"
        host.run(ip, mac=mac(n)).announce(ip)


def bits(world: World, since: float, pair: tuple[str, str] = ("a", "b")) -> int:
    """Return the size of what one link carried, both directions."""
    nodes = {world.hosts[name].node for name in pair}
    return sum(
        8 * len(encode(m)) for t, src, dst, m in world.sent if t >= since and {src, dst} == nodes
    )


def test_a_restarted_controller_is_complete_again_within_three_seconds() -> None:
    world = World("abc").link()
    for n, host in enumerate(world.hosts.values()):
        populate(host, 20, 1000 + 100 * n)
    world.run(10)
    before = world.a.table()
    assert len(before) == 60
    world.restart("a")
    assert world.a.table() == {}
    world.run(3)
    assert world.a.table() == before
    for host in world.hosts.values():
        assert host.table() == before
    # it goes on above the numbers that its peers remember, so nothing it says is stale
    start = world.now
    world.run(120)
    assert not world.messages(rpc.Stale, start)
    assert not world.messages(rpc.Compare, start)


def test_a_restarted_controller_lets_the_dead_go() -> None:
    world = World("ab").link()
    populate(world.a, 4, 1000)
    world.run(10)
    dead = world.a.containers[0]
    world.a.stop(dead, noticed=False)
    world.restart("a")
    world.run(3)
    assert (0, dead.ips[0]) not in world.b.table()
    assert len(world.b.table()) == 3


def test_all_controllers_restart_at_once() -> None:
    world = World("abc").link()
    for n, host in enumerate(world.hosts.values()):
        populate(host, 3, 1000 + 100 * n)
    world.run(10)
    for name in "abc":
        world.restart(name)
    world.run(1)
    for host in world.hosts.values():
        for container in host.containers:
            container.announce(container.ips[0])
    world.run(5)
    assert len(world.a.table()) == 9
    assert world.a.table() == world.b.table() == world.c.table()


@pytest.mark.parametrize("lost", ["announcement", "withdrawal"])
def test_a_lost_message_is_made_up_for_within_seconds(lost: str) -> None:
    world = World("ab").link()
    populate(world.a, 1, 1000)
    world.run(10)
    world.loss = 1.0
    if lost == "announcement":
        populate(world.a, 1, 1001)
    else:
        world.a.stop(world.a.containers[0])
    world.run(0.5)
    world.loss = 0.0
    world.run(2)
    assert world.b.table() == world.a.table()


def test_a_link_that_comes_up_with_nothing_new_exchanges_checksums() -> None:
    world = World("ab").link()
    populate(world.a, 200, 1000)
    populate(world.b, 200, 2000)
    world.run(30)
    world.unlink("a", "b")
    world.run(30)
    start = world.now
    world.link().run(3)
    assert not world.messages(rpc.Announce, start)
    assert bits(world, start) < 8 * 1000


def test_a_link_that_comes_up_with_little_new_exchanges_little() -> None:
    world = World("ab").link()
    populate(world.a, 300, 1000)
    world.run(30)
    world.unlink("a", "b")
    populate(world.a, 2, 2000)
    world.a.stop(world.a.containers[0])
    world.run(30)
    start = world.now
    world.link().run(3)
    assert world.b.table() == world.a.table()
    said = sum(
        len(m.entries) for m in world.messages(rpc.Announce, start) if isinstance(m, rpc.Announce)
    )
    assert said <= 30


def test_a_large_table_is_told_in_paced_messages() -> None:
    world = World("ab")
    for n in range(1000):
        heard = announcement(Binding((0, f"10.1.{n >> 8}.{n & 255}"), mac(n), "", 0, 0.0))
        world.a.do(world.a.switch.captured(heard, world.now))
        world.run(0.02)
    start = world.now
    world.link().run(0.3)
    assert 2 <= len(world.messages(rpc.Announce, start)) <= 7
    world.run(5)
    assert len(world.b.table()) == 1000
    said = [
        len(m.entries) for m in world.messages(rpc.Announce, start) if isinstance(m, rpc.Announce)
    ]
    assert sum(said) < 1200  # once, or nearly


def test_many_changes_travel_together() -> None:
    world = World("ab").link().run(5)
    start = world.now
    populate(world.a, 100, 1000)
    world.run(2)
    assert len(world.b.table()) == 100
    assert len(world.messages(rpc.Announce, start)) <= 5


def test_idle_links_carry_next_to_nothing() -> None:
    """Eight hosts of fifty containers: below 1 kbit/s a link after five minutes."""
    world = World("abcdefgh").link()
    for n, host in enumerate(world.hosts.values()):
        populate(host, 50, 1000 + 100 * n)
    world.run(300)
    start = world.now
    world.run(300)
    assert len(world.a.table()) == 400
    for pair in (("a", "b"), ("c", "h")):
        assert bits(world, start, pair) / 300 < 100


def test_comparing_in_vain_gets_rarer() -> None:
    """A peer that says one thing and claims another is not asked for ever."""
    switch, liar = World("a").a.switch, World.id("z")
    switch.peer_up(liar, 0.0)
    compared = [
        action
        for n in range(120)
        for action in switch.received(liar, rpc.Digest("f" * 16), COMPARE_S * n)
        if isinstance(action, Send) and isinstance(action.message, rpc.Compare)
    ]
    assert 10 <= len(compared) <= 20


def test_a_peer_that_claims_too_much_is_bounded_and_reported_once() -> None:
    world = World("ab").link().run(5)
    for n in range(MAX_PER_NODE // rpc.MAX_ENTRIES + 5):
        entries = [
            rpc.Entry(f"10.{n}.1.{m}", f"02:00:00:00:{n:02x}:{m:02x}", 0)
            for m in range(rpc.MAX_ENTRIES)
        ]
        said = rpc.Announce(entries)
        world.a.do(world.a.switch.received(world.b.node, said, world.now))
    assert len(world.a.table()) == MAX_PER_NODE
    assert world.a.counters["claims_refused.full"]
    assert len(world.a.reports) == 1


def test_a_peer_that_talks_too_much_is_not_listened_to() -> None:
    world = World("ab").link().run(5)
    said = rpc.Announce([])
    for _ in range(5000):
        world.a.do(world.a.switch.received(world.b.node, said, world.now))
    assert world.a.counters["rpc_dropped.rate"] > 3000


def test_a_peer_that_is_not_connected_is_not_listened_to() -> None:
    world = World("ab")
    said = rpc.Announce([rpc.Entry("10.0.3.7", mac(7), 0)])
    world.a.do(world.a.switch.received(world.b.node, said, world.now))
    assert world.a.table() == {}
    assert world.a.counters["rpc_dropped.not_connected"] == 1


def test_a_hint_from_nowhere_moves_no_sequence_number() -> None:
    world = World("ab").link()
    populate(world.a, 1, 1000)
    world.run(5)
    hint = rpc.Stale([rpc.Gone(world.a.containers[0].ips[0], MAX_SEQUENCE)])
    world.a.do(world.a.switch.received(world.b.node, hint, world.now))
    assert world.a.counters["sequence_refused"] == 1
    world.run(5)
    assert world.b.table() == world.a.table() != {}
