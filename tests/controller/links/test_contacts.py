"""Two topologies talk until they are linked, whatever is lost; pauses grow; the dead are gone."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.errors import SignalError
from controller.links.contacts import (
    ATTEMPT,
    FORGET_AFTER,
    LONGEST_PAUSE,
    MAX_PEERS,
    NEVER,
    RETRY_DIRECT,
    Accept,
    Answer,
    Ask,
    Dial,
    Forget,
    Join,
    Offer,
    Please,
    Topology,
    decode_sealed,
)
from tincan.control.codec import encode
from tincan.control.messages import Description

LOW, HIGH = "0" * 64, "f" * 64
THERE = Description("abcd", "a" * 22, [])


def topology(node: str = LOW) -> Topology:
    return Topology(node, 1000, lambda: 0.5)


def test_the_lower_id_dials_at_once_and_the_higher_waits() -> None:
    low, high = topology(LOW), topology(HIGH)
    low.present(HIGH, "b", b"s", 0.0)
    high.present(LOW, "a", b"s", 0.0)
    assert low.tick(0.0) == [Dial(HIGH, 1001)]
    assert high.tick(0.0) == []
    assert high.received(LOW, Offer(1001, THERE), 0.1) == [Accept(LOW, Offer(1001, THERE))]
    assert low.received(HIGH, Answer(1001, THERE), 0.2) == [Join(HIGH, Answer(1001, THERE))]
    low.linked(HIGH, relayed=False, now=0.3)
    assert low.deadline == NEVER


def test_the_higher_asks_when_no_offer_comes() -> None:
    high = topology(HIGH)
    high.present(LOW, "a", b"s", 0.0)
    assert [type(action) for action in high.tick(high.deadline)] == [Ask]
    low = topology(LOW)
    low.present(HIGH, "b", b"s", 0.0)
    low.tick(0.0)
    assert [type(action) for action in low.received(HIGH, Please("lost"), 1.0)] == [Dial]


def test_stale_and_foreign_messages_do_nothing() -> None:
    low, high = topology(LOW), topology(HIGH)
    low.present(HIGH, "b", b"s", 0.0)
    low.tick(0.0)
    assert low.received(HIGH, Answer(7, THERE), 0.0) == []
    assert low.received(HIGH, Offer(5000, THERE), 0.0) == []  # only the elected side offers
    high.present(LOW, "a", b"s", 0.0)
    high.received(LOW, Offer(1005, THERE), 0.0)
    assert high.received(LOW, Offer(1005, THERE), 0.0) == []
    assert high.received(LOW, Offer(1004, THERE), 0.0) == []


def test_pauses_double_and_end_somewhere() -> None:
    low = topology()
    low.present(HIGH, "b", b"s", 0.0)
    now, gaps = 0.0, []
    for _ in range(12):
        at = low.deadline
        gaps.append(at - now)
        now = at
        assert low.tick(now)
    assert gaps[1] < gaps[4] < gaps[-1] <= ATTEMPT + 1.25 * LONGEST_PAUSE


def test_a_peer_that_is_never_reached_is_tried_for_thirty_days() -> None:
    low = topology()
    low.present(HIGH, "b", b"s", 0.0)
    now, tries = 0.0, 0
    while now < 30 * 86400:
        now = low.deadline
        assert low.tick(now)
        tries += 1
    assert tries > 30 * 86400 / (ATTEMPT + 1.25 * LONGEST_PAUSE)


def test_a_dead_link_is_dialled_at_once_and_a_relay_is_left_when_possible() -> None:
    low = topology()
    low.present(HIGH, "b", b"s", 0.0)
    low.tick(0.0)
    low.linked(HIGH, relayed=True, now=1.0)
    assert RETRY_DIRECT <= low.deadline - 1.0 <= 1.2 * RETRY_DIRECT
    assert low.tick(low.deadline) == [Dial(HIGH, 1002)]
    low.linked(HIGH, relayed=False, now=100.0)
    low.unlinked(HIGH, "silent", 200.0)
    low.wanted(HIGH, "silent", 200.0)
    assert low.tick(200.0) == [Dial(HIGH, 1003)]


def test_who_left_is_forgotten_unless_its_link_lives_on() -> None:
    low = topology()
    low.present(HIGH, "b", b"s", 0.0)
    low.tick(0.0)
    low.linked(HIGH, relayed=False, now=1.0)
    low.absent(HIGH, 2.0)
    assert low.tick(1e6) == []
    low.unlinked(HIGH, "silent", 1e6)
    low.wanted(HIGH, "silent", 1e6)
    low.tick(1e6)
    assert low.tick(1e6 + 2 * FORGET_AFTER) == [Forget(HIGH)] or HIGH not in low.contacts


def test_strangers_do_not_fill_the_memory() -> None:
    low = topology()
    for number in range(MAX_PEERS + 50):
        low.present(f"{number + 1:064x}", "x", b"s", 0.0)
    assert len(low.contacts) == MAX_PEERS


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_an_error(data: bytes) -> None:
    with contextlib.suppress(SignalError):
        decode_sealed(data)


def test_messages_survive_the_wire() -> None:
    for message in (Offer(1, THERE), Answer(2, THERE), Please("x")):
        assert decode_sealed(encode(message)) == message
    with pytest.raises(SignalError):
        decode_sealed(b"[" * 5000)


@given(st.lists(st.booleans(), min_size=1, max_size=40))
@settings(max_examples=100)
def test_they_meet_whatever_is_lost(losses: list[bool]) -> None:
    """Messages may be lost while ``losses`` last; once they get through, a link is made."""
    low, high = topology(LOW), topology(HIGH)
    low.present(HIGH, "b", b"s", 0.0)
    high.present(LOW, "a", b"s", 0.0)
    drops = iter(losses)
    now = 0.0
    for _ in range(200):
        now = min(low.deadline, high.deadline)
        waiting = [(low, a) for a in low.tick(now)] + [(high, a) for a in high.tick(now)]
        while waiting:
            side, action = waiting.pop(0)
            other = high if side is low else low
            if isinstance(action, Join):
                return
            message: Offer | Answer | Please
            if isinstance(action, Dial):
                message = Offer(action.number, THERE)
            elif isinstance(action, Accept):
                message = Answer(action.offer.number, THERE)
            else:
                message = Please()
            if not next(drops, False):
                waiting += [(other, a) for a in other.received(side.node, message, now)]
    raise AssertionError("they never met")


def test_a_peer_whose_clock_was_set_back_is_heard_in_its_next_life() -> None:
    high = topology(HIGH)
    high.present(LOW, "a", b"s", 0.0)
    assert high.received(LOW, Offer(5000, THERE), 0.0)
    high.present(LOW, "a", b"t", 1.0)
    assert high.received(LOW, Offer(7, THERE), 1.0) == [Accept(LOW, Offer(7, THERE))]


def test_an_answer_is_taken_once() -> None:
    low = topology(LOW)
    low.present(HIGH, "b", b"s", 0.0)
    (dial,) = low.tick(0.0)
    assert isinstance(dial, Dial)
    answer = Answer(dial.number, THERE)
    assert low.received(HIGH, answer, 0.1) == [Join(HIGH, answer)]
    assert low.received(HIGH, answer, 0.2) == []


def test_a_wish_that_the_dead_rendezvous_lost_is_repeated() -> None:
    """A linked host's address changed: what it said went to a connection that was dead, too."""
    for node, peer, kind in ((LOW, HIGH, Dial), (HIGH, LOW, Ask)):
        one = topology(node)
        one.present(peer, "peer", b"s", 0.0)
        one.linked(peer, relayed=False, now=1.0)
        one.hurry(2.0)
        assert one.tick(5.0) == []  # nothing is wrong with the link
        one.wanted(peer, "our address is gone", 6.0)
        assert [type(action) for action in one.tick(6.0)] == [kind]
        assert one.deadline == NEVER
        one.hurry(8.0)  # connected again
        assert [type(action) for action in one.tick(9.0)] == [kind]
        one.linked(peer, relayed=False, now=10.0)
        one.hurry(11.0)
        assert one.tick(20.0) == []
