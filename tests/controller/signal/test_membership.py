"""Both pure sides joined together: membership, presence, relay, and what is refused."""

from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from controller.signal.events import (
    Absent,
    Present,
    Received,
    Refused,
    SignalConnected,
    SignalLost,
)
from controller.signal.keys import NetworkKeys
from controller.signal.rendezvous.quota import Limits
from controller.signal.sealing import make_card
from controller.signal.websocket import presence as presence_module
from controller.signal.websocket.messages import (
    PAGE_MEMBERS,
    Challenge,
    Join,
    Joined,
    Left,
    Member,
    Members,
    Message,
    decode_from_node,
    decode_from_rendezvous,
    encode,
)
from controller.signal.websocket.presence import Phase, Presence, Renew
from controller.signal.websocket.proof import join
from tests.controller.signal.memory import KEYS, OTHER_SECRET, Memory, Node, network
from tincan.crypto.primitives import PrivateKey

# --- joining


def test_members_learn_of_each_other() -> None:
    memory, a, b = Memory(), Node("a"), Node("b")
    memory.connect(a)
    assert a.take() == [SignalConnected()]
    memory.connect(b)
    connected, present = b.take()
    assert connected == SignalConnected()
    assert isinstance(present, Present)
    assert (present.id, present.name) == (a.id, "a")
    (present,) = a.take()
    assert isinstance(present, Present)
    assert (present.id, present.name) == (b.id, "b")
    memory.disconnect(b)
    assert a.take() == [Absent(b.id)]
    assert b.take() == [SignalLost()]
    assert memory.registry.members == {"lab": 1}


def test_long_lists_come_in_pages() -> None:
    memory = Memory()
    nodes = [Node(f"n{i}") for i in range(2 * PAGE_MEMBERS + 1)]
    for node in nodes:
        memory.connect(node)
    last = Node("last")
    memory.connect(last)
    assert {event.id for event in last.take() if isinstance(event, Present)} == {
        node.id for node in nodes
    }


def test_networks_are_apart() -> None:
    memory, a, b = Memory(), Node("a"), Node("b", NetworkKeys.derive("other", "x"))
    memory.connect(a)
    memory.connect(b)
    assert a.take() == b.take() == [SignalConnected()]
    memory.send(a, b, b"hello")
    assert not b.take()


def test_wrong_secret_is_refused_while_members_are_there_and_a_while_after() -> None:
    memory, a, stranger = Memory(limits=Limits(pin_grace=60)), Node("a"), Node("x", OTHER_SECRET)
    memory.connect(a)
    memory.connect(stranger)
    assert stranger.take() == [Refused("wrong secret")]
    memory.disconnect(a)
    memory.now += 59
    memory.connect(stranger)
    assert stranger.take() == [Refused("wrong secret")]
    memory.now += 2
    memory.connect(stranger)
    assert stranger.take() == [SignalConnected()]
    memory.connect(a)
    assert a.take()[-1] == Refused("wrong secret")
    assert memory.counters["signal_refused.wrong_secret"] == 3


def test_pinned_networks_are_the_only_ones() -> None:
    memory = Memory(pins={"lab": KEYS.membership_key})
    member, stranger = Node("a"), Node("x", OTHER_SECRET)
    other = Node("o", NetworkKeys.derive("other", "x"))
    for node in (member, stranger, other):
        memory.connect(node)
    assert member.take() == [SignalConnected()]
    assert stranger.take() == [Refused("wrong secret")]
    assert other.take() == [Refused("unknown network")]
    memory.disconnect(member)
    memory.now += 10**6
    memory.connect(stranger)
    assert stranger.take() == [Refused("wrong secret")]


def test_newer_session_of_a_node_replaces_the_older() -> None:
    memory, (a, b) = network("a", "b")
    twin = Node("a", private=a.private)
    old = a.connection
    memory.connect(twin)
    assert a.take() == [Refused("replaced"), SignalLost()]
    assert memory.hung_up == [old]
    (present,) = b.take()
    assert isinstance(present, Present)
    assert present.id == a.id
    assert memory.send(b, twin, b"hello")
    assert twin.payloads() == [b"hello"]
    assert memory.registry.members == {"lab": 2}
    assert old is not None
    assert memory.registry.closed(old, memory.now) == []  # its end is no news to anybody
    assert memory.registry.received(old, b"{}", memory.now) == []


def test_bounds() -> None:
    memory = Memory(limits=Limits(members=2, networks=2))
    a, b, c = Node("a"), Node("b"), Node("c")
    for node in (a, b, c):
        memory.connect(node)
    assert c.take() == [Refused("network full")]
    twin = Node("b", private=b.private)
    memory.connect(twin)  # no additional member
    assert SignalConnected() in twin.take()
    d = Node("d", NetworkKeys.derive("second", "x"))
    e = Node("e", NetworkKeys.derive("third", "x"))
    memory.connect(d)
    memory.connect(e)
    assert e.take() == [Refused("rendezvous full")]
    memory.disconnect(d)
    memory.connect(e)  # an empty name gives way to one that is used
    assert e.take() == [SignalConnected()]


# --- joining as another


def test_a_member_cannot_join_as_another() -> None:
    memory, (a, _) = network("a", "b")
    number = 99
    (challenge,) = memory.registry.opened(number, "192.0.2.9", b"n" * 32)
    thief = Node("thief")
    heard = decode_from_rendezvous(cast(presence_module.Transmit, challenge).data)
    assert isinstance(heard, Challenge)
    answer = join(heard, KEYS, thief.private, b"s" * 16, b"")
    fields = {name: getattr(answer, name) for name in answer.__struct_fields__}
    memory.registry.received(number, encode(Join(**{**fields, "node": a.id})), memory.now)
    assert memory.counters["signal_refused.bad_proof"] == 1
    assert a.connection is not None
    assert memory.registry.members == {"lab": 2}


def test_a_challenge_that_cannot_be_answered() -> None:
    for challenge in (Challenge(2, b"n" * 32, b"k" * 32), Challenge(1, b"n" * 32, bytes(32))):
        presence = Presence(KEYS, PrivateKey.generate(), "a")
        presence.start(0.0)
        assert presence.received(encode(challenge), 0.0) == [Refused("version")]


# --- messages


def test_messages_arrive_once_and_in_order() -> None:
    memory, (a, b) = network("a", "b")
    for text in (b"one", b"two", b"three"):
        assert memory.send(a, b, text)
    assert b.payloads() == [b"one", b"two", b"three"]
    assert memory.send(b, a, b"four")
    assert a.payloads() == [b"four"]


def test_what_cannot_be_sent() -> None:
    memory, (a, b) = network("a", "b")
    assert not memory.send(a, Node("nobody"), b"x")
    assert not memory.send(a, b, bytes(32 * 1024 + 1))
    assert memory.send(a, b, bytes(32 * 1024))
    memory.disconnect(a)
    assert not memory.send(a, b, b"x")


def test_to_oneself_or_to_somebody_gone() -> None:
    memory, (a, b) = network("a", "b")
    data = a.presence.seal(b.id, b"x")
    assert data is not None
    memory.disconnect(b)
    memory.say(a, data)
    memory.say(a, encode(decode_from_node(b'{"m":"send","to":"%s","body":""}' % a.id.encode())))
    assert memory.counters["signal_undeliverable"] == 2


def test_the_rendezvous_cannot_replay_or_reorder() -> None:
    memory, (a, b) = network("a", "b")
    memory.carried.clear()
    memory.send(a, b, b"one")
    memory.send(a, b, b"two")
    b.take()
    for _, data in memory.carried:
        memory.hand(b, data)
    assert b.take() == []
    assert b.presence.counters["signal_replayed"] == 2


def test_the_rendezvous_cannot_replay_across_sessions_of_either() -> None:
    memory, (a, b) = network("a", "b")
    memory.carried.clear()
    memory.send(a, b, b"one")
    recorded = [data for node, data in memory.carried if node is b]
    memory.disconnect(a)  # a's next session begins at sequence 1 again
    memory.connect(a)
    assert memory.send(a, b, b"two")
    assert b.payloads() == [b"one", b"two"]
    memory.hand(b, recorded[0])
    assert b.payloads() == []
    memory.disconnect(b)
    memory.connect(b)
    b.take()
    memory.hand(b, recorded[0])
    assert b.take() == []
    assert b.presence.counters["signal_not_authentic"] == 1


def test_the_rendezvous_cannot_swap() -> None:
    memory, (a, b, c) = network("a", "b", "c")
    memory.carried.clear()
    memory.send(a, b, b"for b")
    (message,) = [decode_from_rendezvous(data) for node, data in memory.carried if node is b]
    assert isinstance(message, Message)
    b.take()
    memory.hand(c, encode(message))
    memory.hand(a, encode(Message(b.id, message.body)))
    memory.hand(b, encode(Message(c.id, message.body)))
    memory.hand(b, encode(Message("0" * 64, message.body)))
    assert a.take() == b.take() == c.take() == []


def test_the_rendezvous_cannot_invent_members() -> None:
    memory, (a, b) = network("a", "b")
    fake = PrivateKey.generate()
    session = b"s" * 16
    memory.hand(a, encode(Joined(fake.public.hex(), session, b"")))
    wrong = make_card(OTHER_SECRET, fake.public, session, "fake", b"n" * 12)
    memory.hand(a, encode(Joined(fake.public.hex(), session, wrong)))
    stolen = make_card(KEYS, b.private.public, session, "b", b"n" * 12)
    memory.hand(a, encode(Joined(fake.public.hex(), session, stolen)))
    assert a.take() == []
    assert a.presence.counters["signal_bad_card"] == 3


def test_names_are_safe_to_print() -> None:
    memory, a, b = Memory(), Node("a"), Node("\x1b[31mred\n")
    memory.connect(a)
    memory.connect(b)
    assert a.presence.peers[b.id].isprintable()


def test_peers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence_module, "MAX_PEERS", 3)
    memory = Memory()
    nodes = [Node(f"n{i}") for i in range(6)]
    for node in nodes:
        memory.connect(node)
    assert len(nodes[0].presence.peers) == 3
    assert nodes[0].presence.counters["signal_too_many_peers"] == 2


def test_replay_marks_are_bounded_and_a_new_session_voids_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(presence_module, "MAX_SENDER_SESSIONS", 3)
    memory, (a, b) = network("a", "b")
    for _ in range(3):
        assert memory.send(a, b, b"x")
        memory.disconnect(a)
        memory.connect(a)
    b.take()
    assert memory.send(a, b, b"x")
    assert b.take() == []  # too early to renew: dropped
    memory.now += presence_module.RENEW_AFTER_S
    assert memory.send(a, b, b"x")
    assert b.take() == [Renew()]
    memory.disconnect(b)
    memory.connect(b)
    b.take()
    assert memory.send(a, b, b"x")
    assert b.payloads() == [b"x"]


# --- reconnecting


def test_a_new_list_tells_who_has_gone_meanwhile() -> None:
    memory, (a, b, c) = network("a", "b", "c")
    memory.disconnect(a)
    memory.disconnect(c)
    a.take()
    memory.connect(a)
    connected, present, absent = a.take()
    assert connected == SignalConnected()
    assert isinstance(present, Present)
    assert present.id == b.id
    assert absent == Absent(c.id)


def test_another_rendezvous_after_a_restart() -> None:
    memory, (a, b) = network("a", "b")
    for node in (a, b):
        memory.disconnect(node)
    fresh = Memory()
    fresh.connect(a)
    fresh.connect(b)
    a.take(), b.take()
    assert fresh.send(a, b, b"back")
    assert b.payloads() == [b"back"]


# --- talking out of turn


def test_a_node_that_talks_nonsense_is_refused() -> None:
    memory, (a, b) = network("a", "b")
    memory.say(a, b"nonsense")
    assert a.take() == [Refused("malformed"), SignalLost()]
    assert b.take() == [Absent(a.id)]
    data = b'{"m":"send","to":"%s","body":""}' % b.id.encode()
    memory.registry.opened(50, "192.0.2.1", b"n" * 32)
    memory.registry.received(50, data, memory.now)
    assert memory.counters["signal_out_of_turn"] == 1


def test_a_rendezvous_that_talks_out_of_turn_is_not_heard() -> None:
    node, other = Node("a"), Node("b")
    session = b"s" * 16
    card = make_card(KEYS, other.private.public, session, "b", b"n" * 12)
    members = Members([Member(other.id, session, card)], False)
    for message in (members, Joined(other.id, session, card), Left(other.id)):
        node.presence.start(0.0)
        assert node.presence.received(encode(message), 0.0) == []
    assert node.presence.counters["signal_out_of_turn"] == 3
    assert node.presence.phase is Phase.CONNECTED
    memory, (a,) = network("a")
    memory.hand(a, encode(members))  # a list that nobody asked for
    memory.hand(a, encode(Challenge(1, b"n" * 32, b"k" * 32)))
    assert a.take() == []


@given(st.lists(st.binary(max_size=100), max_size=5))
@settings(max_examples=50)
def test_fuzz_of_the_states(pieces: list[bytes]) -> None:
    memory, (a, b) = network("a", "b")
    for piece in pieces:
        memory.hand(b, piece)
        memory.registry.opened(1000, "192.0.2.1", b"n" * 32)
        memory.registry.received(1000, piece, memory.now)
    assert memory.send(a, b, b"still there")
    assert b.payloads() == [b"still there"]


class Membership(RuleBasedStateMachine):
    """Nodes come, go, are replaced and talk, in any order; all agree on who is there."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = Memory()
        self.nodes = [Node(f"n{i}") for i in range(5)]

    @property
    def there(self) -> list[Node]:
        return [node for node in self.nodes if node.connection is not None]

    @rule(index=st.integers(0, 4))
    def come(self, index: int) -> None:
        node = self.nodes[index]
        if node.connection is None:
            self.memory.connect(node)

    @rule(index=st.integers(0, 4))
    def go(self, index: int) -> None:
        node = self.nodes[index]
        if node.connection is not None:
            self.memory.disconnect(node)

    @rule(index=st.integers(0, 4))
    def replace(self, index: int) -> None:
        twin = Node(self.nodes[index].name, private=self.nodes[index].private)
        self.memory.connect(twin)
        assert self.nodes[index].connection is None
        self.nodes[index] = twin

    @precondition(lambda self: len(self.there) > 1)
    @rule(data=st.data(), payload=st.binary(max_size=20))
    def talk(self, data: st.DataObject, payload: bytes) -> None:
        sender, receiver = data.draw(st.permutations(self.there))[:2]
        receiver.take()
        assert self.memory.send(sender, receiver, payload)
        assert receiver.take() == [Received(sender.id, payload)]

    @invariant()
    def all_agree(self) -> None:
        there = {node.id for node in self.there}
        for node in self.there:
            assert node.presence.peers.keys() == there - {node.id}
        assert self.memory.registry.members == ({"lab": len(there)} if there else {})


TestMembership = Membership.TestCase
TestMembership.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
