"""Where frames go, and why some go nowhere: the tables of both directions."""

import struct
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tincan.switching.frame import Kind, NeverForward
from tincan.switching.policy import FLOOD_BURST, FLOOD_RATE, SUSPECTS, Policy, looks_suspect
from tincan.switching.table import LOCAL, MAX_LEARNED, Local

BROADCAST = b"\xff" * 6
GROUP = bytes.fromhex("01005e010203")
HERE, THERE, THIRD = (bytes.fromhex(f"0200000000{n:02x}") for n in (1, 2, 3))
GATEWAY = bytes.fromhex("00163e000000")
GATEWAY_IP = bytes([10, 0, 3, 1])


@dataclass(eq=False)
class Peer:
    name: str
    attended: bool = True
    up: bool = True
    blocked: bool = False


class World:
    """A policy with two peers; THERE is pinned at the first, HERE at our own TAP."""

    def __init__(self, attached: bool = True) -> None:
        self.counters: Counter[str] = Counter()
        self.claims: list[tuple[bytes, int, Peer | Local]] = []
        self.policy: Policy[Peer] = Policy(
            self.counters, lambda mac, vlan, port: self.claims.append((mac, vlan, port))
        )
        self.one, self.two = Peer("one"), Peer("two")
        self.policy.links += [self.one, self.two]
        self.policy.set_never(
            NeverForward(
                frozenset({GATEWAY}), frozenset({GATEWAY_IP}), frozenset({Kind.DHCP, Kind.ROUTER})
            )
        )
        self.policy.set_attached(attached)
        self.policy.table.pin(THERE, 0, self.one, 0.0)
        self.policy.table.pin(HERE, 0, LOCAL, 0.0)

    def drops(self) -> dict[str, int]:
        prefix = "frames_dropped."
        return {k[len(prefix) :]: v for k, v in self.counters.items() if k.startswith(prefix)}

    def remember(self) -> None:
        """Have an answer remembered in either direction."""
        assert self.policy.route(ipv4(THERE, HERE), 0.0)
        assert self.policy.admit(self.one, ipv4(HERE, THERE), 0.0)
        assert self.policy.routes
        assert self.policy.admissions

    def remembers(self) -> bool:
        return bool(self.policy.routes or self.policy.admissions)


def ipv4(to: bytes, source: bytes, protocol: int = 6, ports: tuple[int, int] = (1, 2)) -> bytes:
    head = bytes([0x45, 0, 0, 40, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 3, 5, 10, 0, 3, 7])
    return to + source + b"\x08\x00" + head + struct.pack(">HH", *ports) + bytes(20)


def arp(to: bytes, source: bytes, op: int, sender: int = 5, target: int = 7) -> bytes:
    body = struct.pack(">HHBBH", 1, 0x0800, 6, 4, op)
    body += source + bytes([10, 0, 3, sender]) + bytes(6) + bytes([10, 0, 3, target])
    return to + source + b"\x08\x06" + body


def nd(to: bytes, source: bytes, kind: int) -> bytes:
    head = bytes([0x60, 0, 0, 0, 0, 32, 58, 255]) + b"\xfe\x80" + bytes(30)
    return to + source + b"\x86\xdd" + head + bytes([kind]) + bytes(31)


def tagged(frame: bytes, vid: int) -> bytes:
    return frame[:12] + struct.pack(">HH", 0x8100, vid) + frame[12:]


DHCP = ipv4(BROADCAST, HERE, 17, (68, 67))

# --- from the TAP


@pytest.mark.parametrize(
    ("frame", "to"),
    [
        (ipv4(THERE, HERE), "one"),
        (tagged(ipv4(THERE, HERE), 0), "one"),
        (ipv4(THIRD, HERE), "one two"),  # nobody knows it
        (tagged(ipv4(THERE, HERE), 7), "one two"),  # nobody knows it in that VLAN
        (ipv4(BROADCAST, HERE), "one two"),
        (ipv4(GROUP, HERE), "one two"),
        (arp(THERE, HERE, 1), "one"),  # a reachability check is for the owner itself
        (nd(THERE, HERE, 135), "one"),
    ],
)
def test_routed(frame: bytes, to: str) -> None:
    world = World()
    found = world.policy.route(frame, 0.0)
    assert " ".join(link.name for link in found) == to
    assert not world.drops()


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (ipv4(HERE, THIRD), "local_destination"),
        (DHCP, "dhcp"),
        (nd(b"\x33\x33\0\0\0\2", HERE, 133), "router"),
        (nd(b"\x33\x33\0\0\0\1", HERE, 134), "router"),
        (ipv4(GATEWAY, HERE), "gateway"),
        (ipv4(BROADCAST, GATEWAY), "gateway"),
        (arp(BROADCAST, HERE, 1, target=1), "gateway"),
        (arp(BROADCAST, HERE, 1, sender=1), "gateway"),
        (b"\0" * 5, "malformed_frame"),
        (THERE + b"\1\0\0\0\0\0" + bytes(40), "malformed_frame"),
        (arp(BROADCAST, HERE, 1)[:30], "malformed_frame"),
    ],
)
@pytest.mark.parametrize("attached", [True, False])
def test_not_routed(frame: bytes, reason: str, attached: bool) -> None:
    """Whether a controller is there or not."""
    world = World(attached)
    assert not world.policy.route(frame, 0.0)
    assert world.drops() == {reason: 1}


@pytest.mark.parametrize(
    ("attached", "attended", "to"),
    [
        (True, (True, True), ""),  # controllers speak for it
        (True, (True, False), "two"),  # whose controller is gone hears it as a frame
        (False, (True, True), "one two"),
        (False, (False, False), "one two"),
    ],
)
@pytest.mark.parametrize(
    "frame",
    [arp(BROADCAST, HERE, 1), nd(b"\x33\x33\xff\0\0\7", HERE, 135), arp(BROADCAST, HERE, 2)],
)
def test_neighbour_questions(
    frame: bytes, attached: bool, attended: tuple[bool, bool], to: str
) -> None:
    world = World(attached)
    world.one.attended, world.two.attended = attended
    found = world.policy.route(frame, 0.0)
    assert " ".join(link.name for link in found) == to
    assert world.counters["frames_left_to_controller"] == (not found)
    assert not world.drops()


@pytest.mark.parametrize(
    ("attached", "attended", "crosses"),
    [(True, True, False), (True, False, True), (False, True, True), (False, False, True)],
)
def test_unicast_replies(attached: bool, attended: bool, crosses: bool) -> None:
    world = World(attached)
    world.one.attended = attended
    for frame in (arp(THERE, HERE, 2), nd(THERE, HERE, 136)):
        assert bool(world.policy.route(frame, 0.0)) == crosses
    assert not world.policy.route(arp(THIRD, HERE, 2), 0.0)  # never flooded


def test_links_that_are_down_or_blocked_are_not_flooded() -> None:
    world = World()
    world.one.up, world.two.blocked = False, True
    assert not world.policy.route(ipv4(BROADCAST, HERE), 0.0)


def test_a_blocked_tap_passes_nothing() -> None:
    world = World()
    world.policy.set_blocked(True)
    assert not world.policy.route(ipv4(THERE, HERE), 0.0)
    assert not world.policy.admit(world.one, ipv4(HERE, THERE), 0.0)
    assert world.drops() == {"loop_blocked": 2}


@pytest.mark.parametrize("to", [BROADCAST, GROUP, THIRD])
def test_floods_are_policed(to: bytes) -> None:
    """A burst, then a rate; each kind has its own."""
    world = World()
    out = sum(bool(world.policy.route(ipv4(to, HERE), 0.0)) for _ in range(1000))
    assert out == FLOOD_BURST
    out = sum(bool(world.policy.route(ipv4(to, HERE), n / 2000)) for n in range(2000))
    assert out == pytest.approx(FLOOD_RATE, abs=FLOOD_BURST)
    assert world.policy.route(ipv4(THERE, HERE), 1.0)


# --- from a peer


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (ipv4(HERE, THERE), None),
        (ipv4(BROADCAST, THERE), None),
        (ipv4(THIRD, THERE), None),  # the bridge may know it
        (arp(HERE, THERE, 1), None),  # a reachability check
        (arp(BROADCAST, THERE, 1), "neighbour_from_peer"),
        (arp(HERE, THERE, 2), "neighbour_from_peer"),
        (nd(HERE, THERE, 136), "neighbour_from_peer"),
        (nd(b"\x33\x33\0\0\0\1", THERE, 134), "router_from_peer"),
        (ipv4(BROADCAST, THERE, 17, (67, 68)), "dhcp_from_peer"),
        (ipv4(HERE, GATEWAY), "gateway_from_peer"),
        (arp(BROADCAST, THERE, 2, sender=1), "gateway_from_peer"),
        (b"", "malformed_frame_from_peer"),
        (ipv4(HERE, HERE), "source_claimed"),  # our own container's MAC
    ],
)
def test_admission(frame: bytes, reason: str | None) -> None:
    world = World()
    found = world.policy.admit(world.one, frame, 0.0)
    assert (found is not None) == (reason is None)
    assert world.drops() == ({} if reason is None else {reason: 1})


def test_split_horizon() -> None:
    """What one peer sends for another's container stops here."""
    world = World()
    world.policy.table.pin(THIRD, 0, world.two, 0.0)
    assert not world.policy.admit(world.one, ipv4(THIRD, THERE), 0.0)
    assert world.drops() == {"not_ours": 1}


def test_another_peers_mac() -> None:
    """It is not learned, the frame is dropped, and the controller hears of it."""
    world = World()
    assert not world.policy.admit(world.two, ipv4(HERE, THERE), 0.0)
    assert world.claims == [(THERE, 0, world.two)]
    assert world.policy.route(ipv4(THERE, HERE), 0.0) == (world.one,)
    assert not world.policy.admissions


@pytest.mark.parametrize(
    ("attached", "attended", "passes"),
    [(True, True, False), (True, False, True), (False, True, True), (False, False, True)],
)
def test_neighbour_frames_of_peers(attached: bool, attended: bool, passes: bool) -> None:
    """They pass as frames as long as one of the two controllers is missing."""
    world = World(attached)
    world.one.attended = attended
    found = world.policy.admit(world.one, arp(BROADCAST, THERE, 1), 0.0)
    assert (found is not None) == passes


def test_random_macs_fill_nothing() -> None:
    world = World()
    for number in range(5000):
        source = b"\x02\x99" + number.to_bytes(4, "big")
        assert world.policy.admit(world.two, ipv4(HERE, source), 0.0)
    assert len(world.policy.table) == 2 + MAX_LEARNED
    assert world.counters["macs_not_learned"] == 5000 - MAX_LEARNED
    assert world.policy.admit(world.one, ipv4(HERE, THERE), 0.0)


@pytest.mark.parametrize(("to", "reason"), [(BROADCAST, "broadcast"), (GROUP, "multicast")])
def test_a_peers_storm_is_policed(to: bytes, reason: str) -> None:
    """Its own part of it: another peer's broadcasts still come."""
    world = World()
    frame = ipv4(to, THIRD)
    taken = sum(world.policy.admit(world.one, frame, 0.0) is not None for _ in range(1000))
    assert taken == FLOOD_BURST
    assert world.drops() == {f"{reason}_policed_from_peer": 1000 - FLOOD_BURST}
    assert world.policy.admit(world.two, ipv4(to, b"\x02\x99\0\0\0\1"), 0.0)


# --- what may be remembered


def test_a_removed_link_leaves_nothing() -> None:
    world = World()
    world.policy.admit(world.two, ipv4(BROADCAST, THIRD), 0.0)
    world.remember()
    world.policy.remove(world.two)
    assert not world.remembers()
    assert world.policy.table.lookup(THIRD, 0) is None
    assert world.policy.route(ipv4(BROADCAST, HERE), 0.0) == [world.one]


def test_every_change_ends_what_is_remembered() -> None:
    world = World()
    for change in (
        lambda: world.policy.set_attached(False),
        lambda: world.policy.set_never(NeverForward()),
        lambda: world.policy.changed(),
        lambda: world.policy.table.learn(THIRD, 0, world.two, 0.0),
        lambda: world.policy.table.pin(THIRD, 0, world.one, 0.0),
        lambda: world.policy.table.unpin(THIRD, 0),
        lambda: world.policy.set_blocked(True),
    ):
        world.remember()
        change()
        assert not world.remembers()


@given(st.binary(max_size=200), st.booleans(), st.booleans())
def test_any_bytes(frame: bytes, attached: bool, prefixed: bool) -> None:
    """Never raises; every frame is either decided about or counted, once."""
    world = World(attached)
    if prefixed:
        frame = ipv4(THERE, HERE)[:14] + frame
    found = world.policy.route(frame, 0.0)
    counted = sum(world.drops().values()) + world.counters["frames_left_to_controller"]
    assert counted == (not found)
    admitted = world.policy.admit(world.one, frame, 0.0)
    counted = sum(world.drops().values()) + world.counters["frames_left_to_controller"] - counted
    assert counted == (not admitted)


@given(st.binary(min_size=60, max_size=120), st.sampled_from([b"\x08\x00", b"\x86\xdd"]))
def test_a_remembered_flow_lets_nothing_private_through(payload: bytes, kind: bytes) -> None:
    """What the short way does not look at again is what the policy would let pass."""
    world = World()
    frame = THERE + HERE + kind + payload
    protocol = 23 if kind == b"\x08\x00" else 20
    if frame[protocol] in SUSPECTS and looks_suspect(memoryview(frame), 0, protocol):
        return
    world.policy.route(frame, 0.0)
    assert not {"dhcp", "router"} & world.drops().keys()
