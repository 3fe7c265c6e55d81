"""The check list: what arrives on a socket, who is nominated; what a TURN server may send."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aioice import stun
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tincan.ice.test_stun import message
from tincan.device.udp import Address
from tincan.ice import checks as ice
from tincan.ice.checks import Base, CheckList
from tincan.ice.library import CandidatePair, local_candidate
from tincan.ice.stun import channel_data
from tincan.ice.turn import TurnStream, TurnUdp
from tincan.path.description import TurnServer

State = CandidatePair.State
REMOTE = ("192.0.2.7", 7000)


class Wire(asyncio.DatagramTransport):
    """Keeps what is sent."""

    def __init__(self, address: Address) -> None:
        super().__init__({"sockname": address})
        self.sent: list[tuple[stun.Message, Address]] = []

    def sendto(self, data: Any, addr: Any = None) -> None:
        self.sent.append((stun.parse_message(data), addr))

    def close(self) -> None:
        pass


class Side:
    """A check list with one local candidate, on a wire that leads nowhere."""

    def __init__(self, *, controlling: bool = True, refuse: str = "") -> None:
        self.counters: Counter[str] = Counter()
        self.selected: list[CandidatePair] = []
        self.data: list[bytes] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.checks = CheckList(
            controlling=controlling,
            refuse=lambda host: host == refuse,
            selected=self.selected.append,
            spawn=self.spawn,
            counters=self.counters,
        )
        self.base = Base(self.checks, self.data.append)
        self.wire = Wire(("192.168.1.2", 5000))
        self.base.connection_made(self.wire)
        self.checks.offer(local_candidate("host", ("192.168.1.2", 5000), 0), self.base)

    def spawn(self, work: Any) -> "asyncio.Task[None]":
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self.tasks.append(task)
        return task

    def hears_check(self, addr: Address = REMOTE, **attributes: Any) -> None:
        """Take a connectivity check that is authentic; a None attribute is left out."""
        names = {"USERNAME": f"{self.checks.local_username}:peer", "PRIORITY": 1, **attributes}
        names = {name: value for name, value in names.items() if value is not None}
        request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST, attributes=names)
        request.add_message_integrity(self.checks.local_password.encode())
        self.base.datagram_received(bytes(request), addr)

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.fixture
async def side() -> AsyncIterator[Side]:
    one = Side()
    yield one
    await one.end()


# --- what arrives


async def test_an_authentic_check_is_answered_and_its_sender_checked(side: Side) -> None:
    side.checks.start("peer", "p" * 22)
    side.hears_check()
    await asyncio.sleep(0)
    (answer, to), (check, target) = side.wire.sent
    assert answer.message_class == stun.Class.RESPONSE
    assert answer.attributes["XOR-MAPPED-ADDRESS"] == REMOTE
    assert check.message_class == stun.Class.REQUEST
    assert to == target == REMOTE
    assert "USE-CANDIDATE" not in check.attributes


async def test_checks_that_come_before_the_answer_are_taken_up_after_it(side: Side) -> None:
    side.hears_check()
    assert [m.message_class for m, _ in side.wire.sent] == [stun.Class.RESPONSE]
    side.checks.start("peer", "p" * 22)
    await asyncio.sleep(0)
    assert side.wire.sent[1][0].message_class == stun.Class.REQUEST


@pytest.mark.parametrize(
    ("datagram", "counter"),
    [
        (b"", "stun_malformed"),
        (b"\0", "stun_malformed"),
        (message((0x0024, b"")), "stun_malformed"),
        (message(kind=0x0FF), "stun_malformed"),
        (message(), "stun_malformed"),
        (message((0x0024, bytes(4))), "stun_unauthenticated"),
        (
            message((0x0006, b"x:y"), (0x0024, bytes(4)), (0x0008, bytes(20))),
            "stun_unauthenticated",
        ),
    ],
    ids=[
        "empty",
        "one byte",
        "the 24 bytes on which aioice raises struct.error",
        "unknown method",
        "no PRIORITY",
        "no credentials",
        "wrong credentials",
    ],
)
async def test_a_stranger_moves_a_counter_and_hears_nothing(
    side: Side, datagram: bytes, counter: str
) -> None:
    side.base.datagram_received(datagram, REMOTE)
    assert side.counters == {counter: 1}
    assert side.wire.sent == []


async def test_an_authentic_check_without_priority_raises_nothing(side: Side) -> None:
    side.checks.start("peer", "p" * 22)
    side.hears_check(PRIORITY=None)
    assert side.counters == {"stun_malformed": 1}


async def test_records_through_a_relay_are_handed_out(side: Side) -> None:
    side.base.datagram_received(b"\x80record", REMOTE)
    assert side.data == [b"\x80record"]
    assert not side.counters


async def test_a_check_that_comes_through_the_overlay_is_ignored() -> None:
    side = Side(refuse=REMOTE[0])
    side.hears_check()
    assert side.wire.sent == []
    assert side.counters == {"ice_candidates_refused": 1}


async def test_a_peer_is_seen_at_so_many_addresses_only(side: Side) -> None:
    side.checks.start("peer", "p" * 22)
    for port in range(1, ice.MAX_REMOTE + 11):
        side.hears_check((REMOTE[0], port))
    assert len(side.checks.remote_candidates) == ice.MAX_REMOTE
    assert side.counters == {"ice_candidates_refused": 10}
    side.hears_check((REMOTE[0], 1))
    assert side.counters == {"ice_candidates_refused": 10}


async def test_roles_are_not_negotiable(side: Side) -> None:
    side.checks.start("peer", "p" * 22)
    for tie in (0, 2**64 - 1):
        side.hears_check(REMOTE, **{"ICE-CONTROLLING": tie})
    assert side.checks.ice_controlling
    assert side.counters["ice_role_conflict"] == 1


async def test_nothing_starts_after_the_stop(side: Side) -> None:
    side.checks.stop()
    side.hears_check()
    assert side.wire.sent == []
    assert side.tasks == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(datagram=st.binary(max_size=100))
def test_no_bytes_raise(side: Side, datagram: bytes) -> None:
    side.base.datagram_received(datagram, REMOTE)


attributes = st.lists(
    st.tuples(st.sampled_from([*stun.ATTRIBUTES_BY_TYPE, 0x7777]), st.binary(max_size=24)),
    max_size=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(values=attributes, kind=st.integers(0, 0x3FF))
def test_no_stun_message_raises(side: Side, values: list[tuple[int, bytes]], kind: int) -> None:
    side.base.datagram_received(message(*values, kind=kind), REMOTE)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    datagram=st.one_of(
        st.binary(max_size=100),
        st.builds(lambda a, k: message(*a, kind=k), attributes, st.integers(0, 0x3FF)),
        st.binary(max_size=40).map(lambda rest: b"\x40\x00" + rest),
    )
)
def test_nothing_that_a_turn_server_sends_raises(side: Side, datagram: bytes) -> None:
    client = TurnUdp(REMOTE, TurnServer("x", 1, "u", "p"), side.counters)
    client.receiver = side.base
    client.channel_to_peer[0x4000] = REMOTE
    client.peer_to_channel[REMOTE] = 0x4000
    client.datagram_received(datagram, REMOTE)


@pytest.mark.parametrize("step", [1, 7, 1000])
async def test_a_stream_relay_hands_out_records_however_they_are_cut(side: Side, step: int) -> None:
    client = TurnStream(REMOTE, TurnServer("x", 1, "u", "p", "tcp"), side.counters)
    client.receiver = side.base
    client.channel_to_peer[0x4001] = REMOTE
    records = [b"\x80" + bytes(size) for size in range(20)]
    stream = b"".join(channel_data(0x4001, record) + bytes(-len(record) % 4) for record in records)
    for at in range(0, len(stream), step):
        client.data_received(stream[at : at + step])
    assert side.data == records
    assert not side.counters


# --- who is nominated


def add_pair(side: Side, kind: str, number: int) -> CandidatePair:
    """A pair with a remote candidate of ``kind`` at 192.0.2.NUMBER."""
    remote = local_candidate(kind, (f"192.0.2.{number}", 1), 0)
    side.checks._add_remote_candidate(remote, remote.host)
    return next(p for p in side.checks._check_list if p.remote_addr == (remote.host, 1))


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[tuple[CandidatePair, bool]]:
    """Let the peer answer everything at once; what it was asked: a pair, and to nominate it?"""
    asked: list[tuple[CandidatePair, bool]] = []

    async def ask(
        _self: CheckList, pair: CandidatePair, *, nominate: bool = False, **_: Any
    ) -> bool:
        asked.append((pair, nominate))
        return True

    monkeypatch.setattr(CheckList, "ask", ask)
    return asked


def becomes(side: Side, pair: CandidatePair, state: State) -> None:
    """End the check of ``pair``."""
    pair.state = state
    side.checks.check_complete(pair)


async def test_the_first_valid_direct_pair_is_nominated(
    side: Side, answers: list[tuple[CandidatePair, bool]]
) -> None:
    relay, direct = add_pair(side, "relay", 1), add_pair(side, "srflx", 2)
    side.checks._relays_after = asyncio.get_running_loop().time() + 100
    becomes(side, relay, State.SUCCEEDED)
    assert side.tasks == []
    becomes(side, direct, State.SUCCEEDED)
    await side.tasks[0]
    assert answers == [(direct, True)]
    assert side.selected == [direct]
    assert side.checks.nominated is direct


async def test_a_relay_is_nominated_when_direct_pairs_have_failed(
    side: Side, answers: list[tuple[CandidatePair, bool]]
) -> None:
    relay, direct = add_pair(side, "relay", 1), add_pair(side, "srflx", 2)
    side.checks._relays_after = asyncio.get_running_loop().time() + 100
    becomes(side, relay, State.SUCCEEDED)
    becomes(side, direct, State.FAILED)
    await side.tasks[0]
    assert side.selected == [relay]


async def test_a_relay_gives_way_to_a_direct_pair_but_not_the_other_way(
    side: Side, answers: list[tuple[CandidatePair, bool]]
) -> None:
    relay, direct = add_pair(side, "relay", 1), add_pair(side, "srflx", 2)
    other = add_pair(side, "relay", 3)
    direct.state = State.IN_PROGRESS
    side.checks._relays_after = 0
    becomes(side, relay, State.SUCCEEDED)
    await side.tasks[0]
    assert side.selected == [relay]
    assert direct.state is State.IN_PROGRESS
    becomes(side, direct, State.SUCCEEDED)
    await side.tasks[1]
    becomes(side, other, State.SUCCEEDED)
    assert side.selected == [relay, direct]
    assert len(side.tasks) == 2


async def test_a_pair_that_cannot_be_nominated_makes_room_for_the_next(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = add_pair(side, "host", 1), add_pair(side, "srflx", 2)

    async def ask(_self: CheckList, pair: CandidatePair, **_: Any) -> bool:
        return pair is second

    monkeypatch.setattr(CheckList, "ask", ask)
    becomes(side, first, State.SUCCEEDED)
    becomes(side, second, State.SUCCEEDED)
    await side.tasks[0]
    await side.tasks[1]
    assert first.state is State.FAILED
    assert side.selected == [second]


async def test_the_controlled_side_follows_the_latest_nomination(
    answers: list[tuple[CandidatePair, bool]],
) -> None:
    side = Side(controlling=False)
    relay, direct = add_pair(side, "relay", 1), add_pair(side, "srflx", 2)
    relay.state = direct.state = State.SUCCEEDED
    side.checks.remote_username, side.checks.remote_password = "peer", "p" * 22
    side.checks._early_checks_done = True
    requests = []
    for pair in (relay, direct):
        request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
        request.attributes["PRIORITY"] = 1
        request.attributes["USE-CANDIDATE"] = None
        requests.append(request)
        side.checks.check_incoming(request, pair.remote_addr, side.base)
    assert side.selected == [relay, direct]
    # The first nomination once more, delayed in the relay: not a change of mind.
    requests[0].attributes["USE-CANDIDATE"] = None
    side.checks.check_incoming(requests[0], relay.remote_addr, side.base)
    assert side.checks.nominated is direct


async def test_a_check_in_progress_is_hurried_once_by_the_peers() -> None:
    side = Side()
    pair = add_pair(side, "srflx", 1)
    side.checks.start("peer", "p" * 22)
    await asyncio.sleep(0.01)
    side.hears_check(pair.remote_addr)
    side.hears_check(pair.remote_addr)
    checks = [m for m, _ in side.wire.sent if m.message_class == stun.Class.REQUEST]
    assert len(checks) == 2
    assert checks[0].transaction_id == checks[1].transaction_id
    await side.end()


async def test_forged_responses_do_not_end_a_check(side: Side) -> None:
    add_pair(side, "srflx", 1)
    side.checks.start("peer", "p" * 22)
    await asyncio.sleep(0.01)
    for kind in (stun.Class.RESPONSE, stun.Class.ERROR):
        forged = stun.Message(stun.Method.BINDING, kind, side.wire.sent[0][0].transaction_id)
        forged.add_message_integrity(b"guess")
        side.base.datagram_received(bytes(forged), ("192.0.2.1", 1))
    await asyncio.sleep(0.01)
    assert side.checks._check_list[0].state is State.IN_PROGRESS
