"""The states of one peer, as a table, and its timers.

A connection to a server (OUTGOING) begins with our HELLO; the server answers with its own and the
smaller of both intervals. KEEPALIVEs follow at once and then every interval, each is answered by
one, and the first answer makes it ESTABLISHED. A connection from a client (INCOMING) is the same
seen from the other side; the server never speaks first, not even later.

           OUTGOING                                   INCOMING
    CONNECTING                                 CONNECTING (accepted)
        | connected: HELLO                         | HELLO received: HELLO
    HELLO_SENT                                 HELLO_SENT
        | HELLO received: KEEPALIVE                | KEEPALIVE received: KEEPALIVE
    HELLO_RECEIVED                             ESTABLISHED
        | KEEPALIVE received                       | lost
    ESTABLISHED                                CLOSED
        | lost
    RETRY -- after 5 to 9 s --> CONNECTING
"""

import math
from enum import Enum, auto
from typing import Final

from controller.errors import BrokenProtocol
from controller.routes.messages import KEEPALIVE, Hello, hello

TIMEOUT_INTERVALS: Final = 2.5
"""A peer is lost when no KEEPALIVE came for so many intervals."""
HELLO_TIMEOUT_S: Final = 10.0
"""A peer is lost when it has not said HELLO this long after the connection was there."""
CONNECT_TIMEOUT_S: Final = 10.0
"""An attempt to connect is given up after this time."""
RETRY_S: Final = 5.0
"""RETRY_INTERVAL of the Go package: the shortest time from a loss to the next attempt."""
RETRY_JITTER: Final = 0.8
"""How much longer it may be, as a share: v0.5.0 takes 5 to 9 s."""
DEFAULT_KEEPALIVE_S: Final = 5
MAX_KEEPALIVE_S: Final = 3600
"""An interval that we ask for is at most this. A peer's longer one is cut to ours anyway."""


class Direction(Enum):
    """Who connected to whom."""

    INCOMING = auto()
    OUTGOING = auto()


class State(Enum):
    """The states of a peer, as the Go package names them."""

    CONNECTING = "CONNECTING"
    HELLO_SENT = "HELLO_SENT"
    HELLO_RECEIVED = "HELLO_RECEIVED"
    ESTABLISHED = "ESTABLISHED"
    RETRY = "RETRY"
    CLOSED = "CLOSED"


class Event(Enum):
    """What changes the state of a peer."""

    CONNECTED = auto()
    HELLO = auto()
    KEEPALIVE = auto()
    LOST = auto()
    RETRY_DUE = auto()
    REMOVED = auto()


_LIVING: Final = (State.CONNECTING, State.HELLO_SENT, State.HELLO_RECEIVED, State.ESTABLISHED)
TABLES: Final = {
    Direction.OUTGOING: {
        (State.CONNECTING, Event.CONNECTED): State.HELLO_SENT,
        (State.HELLO_SENT, Event.HELLO): State.HELLO_RECEIVED,
        (State.HELLO_RECEIVED, Event.KEEPALIVE): State.ESTABLISHED,
        (State.ESTABLISHED, Event.KEEPALIVE): State.ESTABLISHED,
        (State.RETRY, Event.RETRY_DUE): State.CONNECTING,
        **{(state, Event.LOST): State.RETRY for state in _LIVING},
        **{(state, Event.REMOVED): State.CLOSED for state in (*_LIVING, State.RETRY)},
    },
    Direction.INCOMING: {
        (State.CONNECTING, Event.CONNECTED): State.CONNECTING,
        (State.CONNECTING, Event.HELLO): State.HELLO_SENT,
        (State.HELLO_SENT, Event.KEEPALIVE): State.ESTABLISHED,
        (State.ESTABLISHED, Event.KEEPALIVE): State.ESTABLISHED,
        **{(state, Event.LOST): State.CLOSED for state in _LIVING},
        **{(state, Event.REMOVED): State.CLOSED for state in _LIVING},
    },
}
"""The next state for each state and event. What is not there breaks the protocol."""
_MISSING: Final = {
    (Direction.OUTGOING, State.CONNECTING): "no_connection",
    (Direction.OUTGOING, State.HELLO_SENT): "no_hello",
    (Direction.INCOMING, State.CONNECTING): "no_hello",
}
"""What a peer is lost for when its time is over; in other states: no KEEPALIVE."""


class Machine:
    """The state of one peer. Methods return the frames to send, in order.

    The caller looks at ``state`` after each call and calls `tick` at ``deadline``. ``interval``
    is the one agreed upon; until then it is this side's.
    """

    def __init__(self, direction: Direction, keepalive_s: int, retry_s: float = RETRY_S) -> None:
        self.direction = direction
        self.state = State.CONNECTING
        self.interval = keepalive_s
        self.deadline = math.inf
        self._keepalive_s = keepalive_s
        self._retry_s = retry_s
        self._lost_at = math.inf
        self._speak_at = math.inf

    def connecting(self, now: float) -> None:
        """Note that an attempt to connect begins."""
        self._lost_at = self.deadline = now + CONNECT_TIMEOUT_S

    def connected(self, now: float) -> list[bytes]:
        """Begin: the connection is there."""
        self._enter(Event.CONNECTED)
        self.interval = self._keepalive_s
        self._lost_at = now + HELLO_TIMEOUT_S
        self._speak_at = math.inf
        self._arm()
        if self.direction is Direction.INCOMING:
            return []
        return [hello(Hello(self._keepalive_s))]

    def hello(self, said: Hello, now: float) -> list[bytes]:
        """Take the peer's HELLO. Raises BrokenProtocol if it is not time for one."""
        self._enter(Event.HELLO)
        self.interval = min(self._keepalive_s, said.keepalive_interval)
        self._lost_at = now + TIMEOUT_INTERVALS * self.interval
        if self.direction is Direction.INCOMING:
            frames = [hello(Hello(self.interval, True))]
        else:
            self._speak_at = now + self.interval
            frames = [KEEPALIVE]
        self._arm()
        return frames

    def keepalive(self, now: float) -> list[bytes]:
        """Take a KEEPALIVE. Raises BrokenProtocol before the HELLOs are exchanged."""
        self._enter(Event.KEEPALIVE)
        self._lost_at = now + TIMEOUT_INTERVALS * self.interval
        self._arm()
        return [KEEPALIVE] if self.direction is Direction.INCOMING else []

    def tick(self, now: float) -> tuple[list[bytes], str | None]:
        """Do what is due: return the frames to send, and the reason if the peer is lost.

        The caller then calls `lost`. After RETRY the state is CONNECTING: it connects again.
        """
        if self.state is State.RETRY and now >= self.deadline:
            self._enter(Event.RETRY_DUE)
            self.connecting(now)
            return [], None
        frames: list[bytes] = []
        if now >= self._lost_at:
            return [], _MISSING.get((self.direction, self.state), "no_keepalive")
        if now >= self._speak_at:
            self._speak_at += self.interval
            if self._speak_at <= now:  # after a standstill none is made up for
                self._speak_at = now + self.interval
            frames.append(KEEPALIVE)
        self._arm()
        return frames, None

    def lost(self, now: float, jitter: float) -> None:
        """Note that the connection is gone, or has to go. ``jitter`` is a number from 0 to 1."""
        self._enter(Event.LOST)
        self._lost_at = self._speak_at = self.deadline = math.inf
        if self.state is State.RETRY:
            self.deadline = now + self._retry_s * (1 + RETRY_JITTER * jitter)

    def removed(self) -> None:
        """Note that this peer is not wanted any more."""
        self._enter(Event.REMOVED)
        self.deadline = math.inf

    def _enter(self, event: Event) -> None:
        after = TABLES[self.direction].get((self.state, event))
        if after is None:
            raise BrokenProtocol(f"{event.name.lower()}_in_{self.state.name.lower()}")
        self.state = after

    def _arm(self) -> None:
        self.deadline = min(self._lost_at, self._speak_at)
