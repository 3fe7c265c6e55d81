"""The table of a peer's states, and its timers."""

import math

import pytest

from controller.errors import BrokenProtocol
from controller.routes.machine import HELLO_TIMEOUT_S, TABLES, Direction, Event, Machine, State
from controller.routes.messages import KEEPALIVE, Hello, hello


def outgoing() -> Machine:
    machine = Machine(Direction.OUTGOING, 4)
    machine.connecting(0.0)
    return machine


def test_from_closed_nothing_leads_anywhere() -> None:
    for table in TABLES.values():
        assert not [event for state, event in table if state is State.CLOSED]
        assert {state for state, _ in table} | set(table.values()) <= set(State)


@pytest.mark.parametrize("direction", Direction)
def test_every_living_state_can_be_lost_and_removed(direction: Direction) -> None:
    for state in (State.CONNECTING, State.HELLO_SENT, State.ESTABLISHED):
        assert (state, Event.LOST) in TABLES[direction]
        assert TABLES[direction][state, Event.REMOVED] is State.CLOSED


def test_a_keepalive_at_once_and_then_every_interval() -> None:
    machine = outgoing()
    assert machine.connected(1.0) == [hello(Hello(4))]
    assert machine.deadline == 1.0 + HELLO_TIMEOUT_S
    assert machine.hello(Hello(2), 1.5) == [KEEPALIVE]
    assert machine.keepalive(1.6) == []
    assert machine.deadline == 3.5
    assert machine.tick(3.5) == ([KEEPALIVE], None)
    machine.keepalive(3.6)
    assert machine.tick(5.5) == ([KEEPALIVE], None)
    assert machine.tick(8.6) == ([], "no_keepalive")


def test_after_a_standstill_keepalives_are_not_made_up_for() -> None:
    machine = outgoing()
    machine.connected(0.0)
    machine.hello(Hello(100), 0.0)
    machine.keepalive(9.9)
    assert machine.tick(9.95)[0] == [KEEPALIVE]
    assert machine.deadline == pytest.approx(13.95)


def test_what_is_missing() -> None:
    machine = outgoing()
    assert machine.tick(machine.deadline)[1] == "no_connection"
    machine.connected(0.0)
    assert machine.tick(machine.deadline)[1] == "no_hello"


def test_a_second_life_asks_for_its_own_interval_again() -> None:
    machine = outgoing()
    machine.connected(0.0)
    machine.hello(Hello(1), 0.0)
    machine.lost(1.0, 0.0)
    assert (machine.state, machine.deadline) == (State.RETRY, 6.0)
    assert machine.tick(6.0) == ([], None)
    assert machine.connected(6.1) == [hello(Hello(4))]
    assert machine.interval == 4


def test_removed_is_for_good() -> None:
    machine = outgoing()
    machine.removed()
    assert (machine.state, machine.deadline) == (State.CLOSED, math.inf)
    with pytest.raises(BrokenProtocol):
        machine.connected(1.0)
