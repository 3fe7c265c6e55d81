"""The transition tables of a session."""

import pytest

from tincan.session.table import INITIATOR, RESPONDER, Event, State


@pytest.mark.parametrize("table", [INITIATOR, RESPONDER])
def test_every_state_of_a_table_can_be_left(table: dict[tuple[State, Event], State]) -> None:
    entered = {State.CLOSED, *table.values()}
    assert entered == {state for state, _ in table}


@pytest.mark.parametrize("table", [INITIATOR, RESPONDER])
def test_a_new_handshake_may_begin_in_every_state(
    table: dict[tuple[State, Event], State],
) -> None:
    begins = Event.INIT_SENT if table is INITIATOR else Event.INIT_RECEIVED
    assert {state for state, event in table if event is begins} == {state for state, _ in table}


def test_each_side_has_its_own_events() -> None:
    assert {event for _, event in INITIATOR} == {
        Event.INIT_SENT,
        Event.RESPONSE_RECEIVED,
        Event.EXPIRED,
    }
    assert {event for _, event in RESPONDER} == {
        Event.INIT_RECEIVED,
        Event.CONFIRMED,
        Event.EXPIRED,
        Event.FORGOTTEN,
    }
