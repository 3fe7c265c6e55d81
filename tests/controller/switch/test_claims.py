"""Probes (RFC 5227, RFC 4862): nobody takes an address that is in use, or about to be."""

from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.packets.addresses import NO_IP4
from controller.packets.packets import ARP_REPLY, ARP_REQUEST, Arp, NeighbourAdvertisement
from controller.switch import messages as rpc
from controller.switch.claims import CLAIM_S, MAX_CLAIMS, Claimed, Claims
from tests.controller.switch.test_switch import FAMILIES, pair
from tests.controller.switch.world import Container, World, mac

ADDRESSES = pytest.mark.parametrize("ip", ["10.0.3.9", "fd00::9"], ids=["arp", "nd"])


@FAMILIES
def test_an_address_in_use_elsewhere_is_refused_at_once(asker_ip: str, owner_ip: str) -> None:
    world, prober, owner = pair(asker_ip, owner_ip)
    start = world.now
    prober.probe(owner_ip)
    world.run(0)
    assert prober.conflicts == [owner_ip]
    (reply,) = world.a.injected(since=start)
    assert reply.eth_src == owner.mac
    if isinstance(reply, Arp):
        assert (reply.op, reply.spa, reply.tpa) == (ARP_REPLY, owner_ip, NO_IP4)
    else:
        assert isinstance(reply, NeighbourAdvertisement)
        assert (reply.dst_ip, reply.solicited, reply.override) == ("ff02::1", False, True)


@ADDRESSES
def test_an_address_in_use_is_found_on_a_cold_table(ip: str) -> None:
    world = World("abc").link().run(5)
    world.b.run(ip, mac=mac(7))
    prober = world.a.run(mac=mac(5))
    prober.probe(ip)
    world.run(0.2)
    assert prober.conflicts == [ip]


@ADDRESSES
def test_a_free_address_is_free(ip: str) -> None:
    world = World("abc").link().run(5)
    prober = world.a.run(mac=mac(5))
    for _ in range(3):
        prober.probe(ip)
        world.run(1.5)
    assert not prober.conflicts
    prober.announce(ip)
    world.run(1)
    assert not prober.conflicts
    assert world.c.table() == {(0, ip): (prober.mac, world.a.node)}


@ADDRESSES
def test_a_probe_creates_no_binding(ip: str) -> None:
    world = World("ab").link().run(5)
    world.a.run(mac=mac(5)).probe(ip)
    world.run(1)
    assert world.a.table() == {}
    assert world.b.table() == {}


def test_a_probe_is_asked_as_a_probe_elsewhere() -> None:
    world = World("ab").link().run(5)
    start = world.now
    world.a.run(mac=mac(5)).probe("10.0.3.9")
    world.run(1)
    asked = [p for p in world.b.injected(since=start) if isinstance(p, Arp)]
    assert [(p.op, p.sha, p.spa, p.tpa) for p in asked] == [
        (ARP_REQUEST, mac(5), NO_IP4, "10.0.3.9")
    ]
    assert not world.a.injected(since=start)  # another prober would look like a rival


@ADDRESSES
@pytest.mark.parametrize("late", [0.0, 0.01, 0.019])
def test_of_two_probes_that_cross_the_lower_node_wins(ip: str, late: float) -> None:
    world = World("ab").link().run(5)
    low, high = world.a.run(mac=mac(5)), world.b.run(mac=mac(7))
    high.probe(ip)
    world.run(late)
    low.probe(ip)
    world.run(1)
    assert not low.conflicts
    assert high.conflicts == [ip]


@ADDRESSES
def test_the_first_of_two_probes_wins(ip: str) -> None:
    world = World("ab").link().run(5)
    second, first = world.a.run(mac=mac(5)), world.b.run(mac=mac(7))
    first.probe(ip)
    world.run(0.5)
    second.probe(ip)
    world.run(1)
    assert not first.conflicts
    assert second.conflicts == [ip]


def test_a_probe_that_got_lost_still_wins_if_it_was_first() -> None:
    world = World("ab").link().run(5)
    second, first = world.a.run(mac=mac(5)), world.b.run(mac=mac(7))
    world.loss = 1.0
    first.probe("10.0.3.9")
    world.run(2)
    world.loss = 0.0
    second.probe("10.0.3.9")
    world.run(1)
    assert not first.conflicts
    assert second.conflicts == ["10.0.3.9"]
    assert world.messages(rpc.Claim)


def test_of_many_probes_at_once_one_stays() -> None:
    world = World("abcd").link().run(5)
    probers = [h.run(mac=mac(n)) for n, h in enumerate(world.hosts.values(), 1)]
    for prober in probers:
        prober.probe("10.0.3.9")
    world.run(2)
    assert [bool(p.conflicts) for p in probers] == [False, True, True, True]


def test_a_claim_ends() -> None:
    world = World("ab").link().run(5)
    first, second = world.b.run(mac=mac(7)), world.a.run(mac=mac(5))
    first.probe("10.0.3.9")
    world.run(CLAIM_S + 0.1)
    second.probe("10.0.3.9")
    world.run(1)
    assert not second.conflicts


def test_who_takes_an_address_unasked_beats_who_probes_for_it() -> None:
    world = World("ab").link().run(5)
    prober, owner = world.a.run(mac=mac(5)), world.b.run(mac=mac(7))
    prober.probe("10.0.3.9")
    world.run(1)
    owner.announce("10.0.3.9")
    world.run(1)
    assert prober.conflicts == ["10.0.3.9"]


def test_a_prober_of_its_old_address_is_left_alone() -> None:
    """A container that restarts probes for what the table says it has."""
    world, _, owner = pair()
    world.run(225)  # soon to be asked whether it is still there
    for _ in range(5):
        owner.probe("10.0.3.7")
        world.run(1.9)
    assert not owner.conflicts
    owner.announce("10.0.3.7")
    world.run(1)
    assert world.a.table()[0, "10.0.3.7"] == (owner.mac, world.b.node)


def test_a_stale_owner_does_not_block_an_address() -> None:
    """It is asked before a prober elsewhere is told no."""
    world = World("ab").link().run(5)
    owner = world.b.run("10.0.3.7", mac=mac(7))
    owner.announce("10.0.3.7")
    world.run(20)
    world.b.stop(owner, noticed=False)
    world.loss = 1.0
    world.restart("a")
    prober = world.a.run(mac=mac(5))
    world.run(1.5)
    world.loss = 0.0
    prober.probe("10.0.3.7")
    world.run(1)
    assert not prober.conflicts
    assert (0, "10.0.3.7") not in world.b.table()


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.floats(0, 6), st.integers(1, 3)),
        min_size=2,
        max_size=12,
    ),
    st.sampled_from([0.0, 0.03]),
)
@settings(deadline=None, max_examples=60)
def test_no_two_that_probe_first_ever_share_an_address(
    starts: list[tuple[str, float, int]], jitter: float
) -> None:
    """busybox: udhcpc -a sends one probe, waits two seconds, takes the address, says nothing."""
    world = World("abc").link().run(5)
    world.jitter = jitter
    using: dict[str, list[Container]] = {}

    def begin(name: str, number: int, wanted: int) -> None:
        container = world.hosts[name].run(mac=mac(number))
        container.probe(f"10.0.3.{wanted}")
        world.later(2.0, partial(decide, container, f"10.0.3.{wanted}"))

    def decide(container: Container, ip: str) -> None:
        container.probing.clear()
        if not container.conflicts:
            container.ips.append(ip)
            using.setdefault(ip, []).append(container)

    for number, (name, delay, wanted) in enumerate(starts):
        world.later(delay, partial(begin, name, number, wanted))
    world.run(10)
    assert all(len(owners) == 1 for owners in using.values())
    if not jitter:  # and nobody gave way to nobody
        assert set(using) == {f"10.0.3.{wanted}" for _, _, wanted in starts}


# --- the room itself

KEY = (0, "10.0.3.9")
LOW, ME, HIGH = "00" * 32, "55" * 32, "ff" * 32


@pytest.mark.parametrize(
    ("peer", "age", "result"),
    [
        (LOW, 0.0, Claimed.LOST),
        (HIGH, 0.0, Claimed.OURS),
        (LOW, 0.5, Claimed.LOST),
        (HIGH, 0.5, Claimed.OURS),
        (HIGH, 5.0, Claimed.LOST),
    ],
)
def test_who_wins(peer: str, age: float, result: Claimed) -> None:
    claims = Claims(ME)
    claims.open_here(KEY, mac(1), 100.0)
    assert claims.open_there(peer, KEY, mac(2), age, 100.1) is result


def test_an_older_claim_of_ours_stands_against_a_lower_node() -> None:
    claims = Claims(ME)
    claims.open_here(KEY, mac(1), 100.0)
    assert claims.open_there(LOW, KEY, mac(2), 0.0, 105.0) is Claimed.OURS


def test_one_container_on_its_way_between_nodes_is_no_rival_to_itself() -> None:
    claims = Claims(ME)
    claims.open_here(KEY, mac(1), 100.0)
    assert claims.open_there(LOW, KEY, mac(1), 0.0, 100.1) is Claimed.FREE


def test_third_parties_settle_it_between_them() -> None:
    claims = Claims(ME)
    assert claims.open_there(LOW, KEY, mac(1), 0.0, 100.0) is Claimed.FREE
    assert claims.open_there(HIGH, KEY, mac(2), 0.0, 100.1) is Claimed.OTHER
    claim = claims.get(KEY, 100.2)
    assert claim is not None
    assert claim.node == LOW


def test_claims_are_bounded() -> None:
    claims = Claims(ME)
    for n in range(MAX_CLAIMS + 10):
        claims.open_here((0, f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}"), mac(1), 100.0)
    assert len(claims) == MAX_CLAIMS
