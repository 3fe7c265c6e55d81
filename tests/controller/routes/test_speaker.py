"""A node and its peers: the handshake, who is told what, and what breaks a connection."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.errors import RouteError
from controller.routes import messages, speaker
from controller.routes.installed import Install, Uninstall
from controller.routes.messages import KEEPALIVE, Hello, hello, subscribe, unsubscribe
from controller.routes.peer import MAX_CONTROL_FRAMES
from controller.routes.reflector import V0_3_0, V0_5_0, Profile
from controller.routes.speaker import PAUSE_S, Config, Connect, Speaker
from controller.routes.values import Destination, Vni
from controller.routes.wire import Kind, frame
from tests.controller.routes import world
from tests.controller.routes.world import (
    A1,
    A2,
    LB,
    NAT,
    NET1,
    NET2,
    OTHER,
    VNI,
    Stranger,
    add,
    read,
    reasons,
    remove,
    sent,
    updates,
)

VECTORS = Path(__file__).parents[2] / "vectors" / "metalbond-v0.5.0.json"


def node(profile: Profile = V0_5_0) -> Speaker:
    return world.speaker(profile)


class TestHandshake:
    def test_a_server_never_speaks_first(self) -> None:
        server = world.speaker(keepalive=5)
        peer = server.accept("a", 0.0)
        assert sent(server, peer) == b""
        server.received(peer, hello(Hello(3)), 0.0)
        assert sent(server, peer).hex() == "0100040108031001"
        assert peer.state.name == "HELLO_SENT"
        server.received(peer, KEEPALIVE, 0.0)
        assert sent(server, peer) == KEEPALIVE
        assert peer.state.name == "ESTABLISHED"
        for _ in range(3):
            server.received(peer, KEEPALIVE, 1.0)
            assert sent(server, peer) == KEEPALIVE

    def test_a_client_says_hello_then_keepalive_then_the_rest(self) -> None:
        client = world.speaker(keepalive=2)
        client.subscribe(VNI)
        client.announce(VNI, NET1, A1)
        [action] = client.add_peer("server", 0.0)
        assert isinstance(action, Connect)
        client.connected(action.peer, 0.0)
        assert sent(client, action.peer) == hello(Hello(2))
        client.received(action.peer, hello(Hello(5, True)), 0.0)
        assert sent(client, action.peer) == KEEPALIVE
        client.received(action.peer, KEEPALIVE, 0.1)
        assert sent(client, action.peer) == subscribe(VNI) + add(NET1, A1)
        assert action.peer.machine.interval == 2

    def test_what_is_announced_goes_to_a_server_without_any_subscription(self) -> None:
        client = node()
        client.announce(VNI, NET1, A1)
        [action] = client.add_peer("server", 0.0)
        assert isinstance(action, Connect)
        client.connected(action.peer, 0.0)
        sent(client, action.peer)
        client.received(action.peer, hello(Hello(5)), 0.0)
        actions = client.received(action.peer, KEEPALIVE, 0.0)
        assert speaker.Send(action.peer) in actions
        assert updates(sent(client, action.peer)) == [("ADD", "10.0.1.0/24", "2001:db8::a1")]

    def test_the_smaller_interval_counts_and_two_and_a_half_of_it_are_the_end(self) -> None:
        server = world.speaker(keepalive=4)
        peer = server.accept("a", 10.0)
        server.received(peer, hello(Hello(2)), 10.0)
        assert peer.deadline == 15.0
        server.received(peer, KEEPALIVE, 12.0)
        assert peer.deadline == 17.0
        assert server.tick(peer, 16.9) == []
        assert reasons(server.tick(peer, 17.0)) == ["no_keepalive"]
        assert server.peers == {}

    def test_no_hello_is_the_end_too(self) -> None:
        server = node()
        peer = server.accept("a", 0.0)
        assert reasons(server.tick(peer, peer.deadline)) == ["no_hello"]

    def test_only_keepalives_count_as_life(self) -> None:
        server = node()
        stranger = Stranger.established(server, "a")
        before = stranger.peer.deadline
        stranger.say(add(NET1, A1), 5.0)
        assert stranger.peer.deadline == before

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (KEEPALIVE, "keepalive_in_connecting"),
            (hello(Hello(5)) * 2, "hello_in_hello_sent"),
            (hello(Hello(5)) + KEEPALIVE + hello(Hello(5)), "hello_in_established"),
            (hello(Hello(5)) + subscribe(VNI), "subscribe_too_early"),
            (frame(Kind.HELLO), "keepalive_0"),
            (hello(Hello(5)) + frame(Kind.UPDATE, b"\x10\x17"), "no_destination"),
            (b"GET / HTTP/1.1\r\n", "wrong_version"),
            (b"\x01\xff\xff\x05", "too_long"),
        ],
    )
    def test_a_broken_protocol_closes_this_connection_only(self, data: bytes, reason: str) -> None:
        server = node()
        good = Stranger.established(server, "good")
        bad = Stranger(server, server.accept("bad", 0.0))
        assert reasons(bad.say(data)) == [reason]
        assert server.closed == {reason: 1}
        assert set(server.peers) == {"good"}
        assert good.say(KEEPALIVE)
        assert good.hears() == KEEPALIVE
        assert bad.say(add(NET1, A1)) == []
        assert not server.reflector.received.routes

    def test_after_a_loss_a_client_tries_again_between_5_and_9_s_later(self) -> None:
        for jitter, due in ((0.0, 5.0), (1.0, 9.0)):
            client = Speaker(Config(), [jitter, jitter].pop)
            [action] = client.add_peer("server", 0.0)
            assert isinstance(action, Connect)
            assert reasons(client.lost(action.peer, "refused", 0.0)) == ["refused"]
            assert action.peer.state.name == "RETRY"
            assert action.peer.deadline == due
            assert client.tick(action.peer, due) == [Connect(action.peer)]
            assert action.peer.state.name == "CONNECTING"
            assert reasons(client.tick(action.peer, action.peer.deadline)) == ["no_connection"]


class TestTranscript:
    """What two real clients said to a real server, said to ours, cut anywhere."""

    SEGMENTS = json.loads(VECTORS.read_text())["segments"]

    @settings(max_examples=30, deadline=None)
    @given(st.integers(1, 100))
    def test_our_server_answers_as_the_real_one(self, cut: int) -> None:
        server = world.speaker(keepalive=3)
        strangers: dict[int, Stranger] = {}
        heard: dict[int, bytes] = {}
        expected: dict[int, bytes] = {}
        last = {segment["client"]: segment["t"] for segment in self.SEGMENTS}
        gone: set[int] = set()
        for segment in self.SEGMENTS:
            client, now = segment["client"], segment["t"]
            for other, until in last.items():
                if until < now and other in strangers and other not in gone and other != client:
                    gone.add(other)
                    server.lost(strangers[other].peer, "killed", now)
                    while server.busy:
                        server.work(now)
            if client not in strangers:
                strangers[client] = Stranger(server, server.accept(str(client), now))
            data = bytes.fromhex(segment["hex"])
            if segment["from"] == "server":
                expected[client] = expected.get(client, b"") + data
                continue
            for at in range(0, len(data), cut):
                strangers[client].say(data[at : at + cut], now)
            for each, stranger in strangers.items():
                heard[each] = heard.get(each, b"") + stranger.hears()
        for client, data in expected.items():
            assert sorted(read(heard[client])) == sorted(read(data))
        assert not server.closed - server.closed.__class__({"killed": 1})

    @settings(max_examples=30, deadline=None)
    @given(st.integers(1, 100), st.sampled_from(["one", "two"]))
    def test_our_client_speaks_as_the_real_one(self, cut: int, which: str) -> None:
        number = self.SEGMENTS[0]["client"]
        chosen = [s for s in self.SEGMENTS if (s["client"] == number) == (which == "one")]
        client = world.speaker(keepalive=2 if which == "one" else 5)
        for said in chosen:
            for kind, payload in read(bytes.fromhex(said["hex"])):
                if said["from"] == "client" and kind is Kind.SUBSCRIBE:
                    client.subscribe(messages.read_subscription(payload))
                elif said["from"] == "client" and kind is Kind.UPDATE:
                    client.announce(*messages.read_update(payload)[1:])
        [action] = client.add_peer("server", chosen[0]["t"])
        assert isinstance(action, Connect)
        client.connected(action.peer, chosen[0]["t"])
        heard = sent(client, action.peer)
        for said in chosen:
            if said["from"] == "client":
                continue
            if action.peer.deadline <= said["t"] + 0.01:
                client.tick(action.peer, action.peer.deadline)
                heard += sent(client, action.peer)
            data = bytes.fromhex(said["hex"])
            for at in range(0, len(data), cut):
                client.received(action.peer, data[at : at + cut], said["t"])
            heard += sent(client, action.peer)
        real = b"".join(bytes.fromhex(s["hex"]) for s in chosen if s["from"] == "client")
        assert sorted(read(heard)) == sorted(read(real))


class TestReflection:
    def test_an_update_goes_to_subscribers_of_its_vni_and_not_back(self) -> None:
        server = node()
        a, b, c = (Stranger.established(server, name) for name in "abc")
        a.say(subscribe(VNI))
        b.say(subscribe(VNI))
        c.say(subscribe(OTHER))
        a.say(add(NET1, A1))
        assert b.hears() == add(NET1, A1)
        assert a.hears() == c.hears() == b""

    def test_a_late_subscriber_is_told_what_there_is(self) -> None:
        server = node()
        a, b = (Stranger.established(server, name) for name in "ab")
        a.say(add(NET1, A1) + add(NET2, A2) + add(NET1, NAT) + add(NET1, A1, OTHER))
        a.say(remove(NET2, A2))
        b.say(subscribe(VNI))
        assert b.hears() == add(NET1, A1) + add(NET1, NAT)

    def test_a_change_overtakes_a_replay_and_a_replay_tells_the_latest(self) -> None:
        server = node()
        a, b = (Stranger.established(server, name) for name in "ab")
        nets = [Destination(bytes([10, 1, n, 0]), 24) for n in range(100)]
        a.say(b"".join(add(net, A1) for net in nets))
        b.say(subscribe(VNI))
        first = b.peer.pull(server.reflector, 100)
        assert updates(first) == [("ADD", f"10.1.{n}.0/24", "2001:db8::a1") for n in range(2)]
        a.say(remove(nets[0], A1) + remove(nets[50], A1) + remove(nets[51], A1))
        a.say(add(nets[51], A1) + add(NET1, A1))
        told = updates(b.hears())
        assert told[1][:2] == ("REMOVE", "10.1.0.0/24")
        assert {t[1] for t in told[2:4]} == {"10.1.51.0/24", "10.0.1.0/24"}
        rest = [t[1] for t in told[4:]]
        assert "10.1.50.0/24" not in rest
        assert rest == [f"10.1.{n}.0/24" for n in range(3, 100) if n not in (50, 51)]

    def test_the_last_of_two_withdraws(self) -> None:
        server = node()
        a, b, c = (Stranger.established(server, name) for name in "abc")
        c.say(subscribe(VNI))
        a.say(add(NET1, A1))
        b.say(add(NET1, A1))
        assert c.hears() == add(NET1, A1) * 2
        a.say(remove(NET1, A1))
        assert c.hears() == b""
        b.say(remove(NET1, A1))
        assert c.hears() == remove(NET1, A1)

    def test_the_same_again_and_the_unknown_are_counted(self) -> None:
        server = node()
        a, c = (Stranger.established(server, name) for name in "ac")
        c.say(subscribe(VNI) * 2)
        a.say(add(NET1, A1) * 2 + remove(NET1, A2) + remove(NET2, A1, OTHER))
        c.say(remove(NET1, A1) + unsubscribe(OTHER))
        assert c.hears() == add(NET1, A1)
        assert server.dropped == {
            "subscribed_twice": 1,
            "added_twice": 1,
            "removed_unknown": 3,
            "not_subscribed": 1,
        }

    def test_the_death_of_a_peer_withdraws_what_only_it_had(self) -> None:
        server = node()
        a, b, c = (Stranger.established(server, name) for name in "abc")
        c.say(subscribe(VNI))
        a.say(add(NET1, A1) + add(NET2, A1))
        b.say(add(NET2, A1))
        c.hears()
        server.lost(a.peer, "gone", 1.0)
        while server.busy:
            server.work(1.0)
        assert c.hears() == remove(NET1, A1)

    def test_unsubscribe_ends_the_updates_and_the_announcements(self) -> None:
        server = node()
        a, b = (Stranger.established(server, name) for name in "ab")
        b.say(subscribe(VNI))
        a.say(subscribe(VNI) + add(NET1, A1) + add(NET1, A1, OTHER))
        b.hears()
        a.say(unsubscribe(VNI))
        assert b.hears() == remove(NET1, A1)
        b.say(add(NET2, A2))
        assert a.hears() == b""
        assert list(server.reflector.received.vnis) == [OTHER, VNI]

    def test_own_announcements_go_to_everybody(self) -> None:
        server = node()
        server.announce(VNI, NET1, A1)
        a = Stranger(server, server.accept("a", 0.0))
        a.say(hello(Hello(5)) + KEEPALIVE)
        assert updates(a.hears()) == [("ADD", "10.0.1.0/24", "2001:db8::a1")]
        server.withdraw(VNI, NET1, A1)
        assert updates(a.hears()) == [("REMOVE", "10.0.1.0/24", "2001:db8::a1")]

    def test_own_and_the_same_of_a_peer(self) -> None:
        server = node()
        a, b, c = (Stranger.established(server, name) for name in "abc")
        b.say(subscribe(VNI))
        server.announce(VNI, NET1, A1)
        a.say(add(NET1, A1))
        for stranger in (a, b, c):
            stranger.hears()
        server.withdraw(VNI, NET1, A1)
        assert b.hears() == b""  # a has it still
        assert a.hears() == c.hears() == remove(NET1, A1)
        server.announce(VNI, NET1, A1)
        b.hears()
        a.say(remove(NET1, A1))
        assert b.hears() == b""  # the server has it still
        server.withdraw(VNI, NET1, A1)
        assert b.hears() == remove(NET1, A1)


class TestProfiles:
    def test_v0_5_0_replays_own_routes_but_nats_and_tells_their_end(self) -> None:
        server = node()
        a, b = (Stranger.established(server, name) for name in "ab")
        a.say(add(NET1, A1) + add(NET2, NAT) + subscribe(VNI))
        assert a.hears() == add(NET1, A1)
        a.say(add(NET2, LB))
        assert a.hears() == b""
        b.say(add(NET1, A1))
        a.say(remove(NET1, A1))
        assert a.hears() == add(NET1, A1)
        b.say(remove(NET1, A1))
        assert a.hears() == remove(NET1, A1)

    def test_what_was_reflected_to_its_announcer_is_withdrawn_there(self) -> None:
        server = node()
        a = Stranger.established(server, "a")
        a.say(add(NET1, A1) + subscribe(VNI))
        a.say(remove(NET1, A1))
        assert a.hears() in (b"", add(NET1, A1) + remove(NET1, A1))
        a.say(add(NET1, A1) + unsubscribe(VNI) + add(NET1, A1) + subscribe(VNI))
        assert a.hears() == add(NET1, A1)
        a.say(remove(NET1, A1))
        assert a.hears() == remove(NET1, A1)

    def test_v0_5_0_replays_once_for_each_source(self) -> None:
        server = node()
        a, b, c = (Stranger.established(server, name) for name in "abc")
        a.say(add(NET1, A1))
        b.say(add(NET1, A1))
        c.say(subscribe(VNI))
        assert c.hears() == add(NET1, A1) * 2

    def test_v0_3_0(self) -> None:
        server = node(V0_3_0)
        a, b, c = (Stranger.established(server, name) for name in "abc")
        a.say(subscribe(VNI) + add(NET1, A1))
        assert a.hears() == b""
        a.say(add(NET2, LB))
        assert a.hears() == add(NET2, LB)  # a load balancer's target comes back
        a.say(remove(NET2, LB))
        assert a.hears() == remove(NET2, LB)
        b.say(add(NET1, A1) + add(NET1, NAT) + subscribe(VNI))
        assert b.hears() == add(NET1, A1) + add(NET1, NAT)  # its own, too, and each once
        a.hears()
        b.say(unsubscribe(VNI))
        a.say(add(NET2, A2))
        assert b.hears() == add(NET2, A2)  # UNSUBSCRIBE does nothing yet
        assert server.dropped["unsubscribe_unknown_to_profile"] == 1
        c.say(KEEPALIVE)


class TestClient:
    def established(self, client: Speaker, name: str = "server") -> Stranger:
        [action] = client.add_peer(name, 0.0)
        assert isinstance(action, Connect)
        client.connected(action.peer, 0.0)
        stranger = Stranger(client, action.peer)
        stranger.say(hello(Hello(5, True)))
        stranger.hears()
        stranger.say(KEEPALIVE)
        return stranger

    def test_a_route_of_two_servers_is_given_once_and_taken_when_both_are_gone(self) -> None:
        client = node()
        client.subscribe(VNI)
        one, two = self.established(client, "one"), self.established(client, "two")
        assert Install(VNI, NET1, A1) in one.say(add(NET1, A1))
        assert two.say(add(NET1, A1)) == []
        client.lost(one.peer, "gone", 1.0)
        assert client.work(1.0) == []
        assert [(r.destination, r.hop) for r in client.routes()] == [(NET1, A1)]
        client.lost(two.peer, "gone", 1.0)
        assert client.work(1.0) == [Uninstall(VNI, NET1, A1)]

    def test_received_routes_to_what_it_announces_are_withheld(self) -> None:
        client = node()
        client.subscribe(VNI)
        server = self.established(client)
        assert Install(VNI, NET1, A2) in server.say(add(NET1, A2))
        assert Uninstall(VNI, NET1, A2) in client.announce(VNI, NET1, A1)
        assert server.say(add(NET1, LB)) == []
        assert list(client.routes()) == []
        assert set(client.withdraw(VNI, NET1, A1)) >= {
            Install(VNI, NET1, A2),
            Install(VNI, NET1, LB),
        }
        assert len(list(client.routes())) == 2

    def test_unsubscribing_forgets_and_pauses_and_announces_again(self) -> None:
        client = node()
        client.subscribe(VNI)
        client.announce(VNI, NET1, A1)
        client.announce(OTHER, NET1, A1)
        server = self.established(client)
        server.hears()
        server.say(add(NET2, A2))
        assert Uninstall(VNI, NET2, A2) in client.unsubscribe(VNI, 10.0)
        assert server.hears() == unsubscribe(VNI)
        assert server.say(add(NET2, A1), 10.1) == []  # it was on its way
        assert client.dropped == {"unsubscribed": 1}
        client.subscribe(VNI)
        assert server.hears() == b""  # a second SUBSCRIBE must not overtake the UNSUBSCRIBE
        assert server.peer.deadline <= 10.0 + PAUSE_S
        client.tick(server.peer, 10.0 + PAUSE_S)
        heard = [f for f in read(server.hears()) if f[0] is not Kind.KEEPALIVE]
        assert heard == read(subscribe(VNI) + add(NET1, A1))
        assert Install(VNI, NET2, A1) in server.say(add(NET2, A1), 12.0)

    def test_operations_that_are_not_possible(self) -> None:
        client = node()
        client.subscribe(VNI)
        client.announce(VNI, NET1, A1)
        client.add_peer("server", 0.0)
        operations: list[Callable[[], object]] = [
            lambda: client.subscribe(VNI),
            lambda: client.unsubscribe(OTHER, 0.0),
            lambda: client.announce(VNI, NET1, A1),
            lambda: client.withdraw(VNI, NET1, A2),
            lambda: client.add_peer("server", 0.0),
            lambda: client.remove_peer("nobody"),
            lambda: client.subscribe(Vni(-1)),
            lambda: client.announce(VNI, Destination(b"123", 1), A1),
            lambda: client.announce(VNI, NET1, A1._replace(address=b"")),
        ]
        for operation in operations:
            with pytest.raises(RouteError):
                operation()


class TestBounds:
    def test_too_many_peers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(speaker, "MAX_PEERS", 2)
        server = node()
        server.accept("a", 0.0), server.accept("b", 0.0)
        with pytest.raises(RouteError):
            server.accept("c", 0.0)
        assert server.closed == {"too_many_peers": 1}

    def test_too_many_routes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(speaker, "MAX_ROUTES_OF_PEER", 2)
        server = node()
        a = Stranger.established(server, "a")
        a.say(add(NET1, A1) + add(NET2, A1))
        assert reasons(a.say(add(NET1, A2))) == ["too_many_routes"]

    def test_too_many_subscriptions(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(speaker, "MAX_SUBSCRIPTIONS", 2)
        server = node()
        a, b = (Stranger.established(server, name) for name in "ab")
        a.say(subscribe(VNI) + subscribe(OTHER))
        assert reasons(b.say(subscribe(VNI))) == ["too_many_subscriptions"]
        server.lost(a.peer, "gone", 0.0)
        c = Stranger.established(server, "c")
        assert reasons(c.say(subscribe(VNI))) == []

    def test_who_does_not_read_is_closed_and_nobody_else(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(speaker, "MAX_UNREAD_BYTES", 20_000)
        monkeypatch.setattr(speaker, "LOOK_EVERY_BYTES", 5_000)
        server = node()
        a, good, slow = (Stranger.established(server, name) for name in "abc")
        good.say(subscribe(VNI))
        slow.say(subscribe(VNI))
        closed: list[str] = []
        for turn in range(200):
            closed += reasons(a.say((remove if turn % 2 else add)(NET1, A1)))
            assert len(updates(good.hears())) == 1
            assert server.reflector.unread() < 20_000 + 5_000 + 500
        assert closed == ["does_not_read"]
        assert set(server.peers) == {"a", "b"}

    def test_who_does_not_take_answers_is_closed(self) -> None:
        server = node()
        a = Stranger.established(server, "a")
        assert reasons(a.say(KEEPALIVE * (MAX_CONTROL_FRAMES + 1))) == ["does_not_read"]
