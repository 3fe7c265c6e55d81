"""The states of a session and what moves it from one to the next. Pure data.

::

    initiator   CLOSED -> INIT_SENT -> ESTABLISHED <-> REKEYING
    responder   CLOSED -> RESPONSE_SENT -> ESTABLISHED <-> REKEYING

A pair that is in neither table cannot happen; session.py raises KeyError for it.
"""

from enum import Enum, auto
from typing import Final


class State(Enum):
    """The state of a session, as far as sealing goes."""

    CLOSED = auto()
    """There is no key to seal with and no handshake under way."""
    INIT_SENT = auto()
    """Initiator: an INIT waits for its RESPONSE, and there is no key to seal with."""
    RESPONSE_SENT = auto()
    """Responder: an INIT was answered; no key may seal before a record has confirmed one."""
    ESTABLISHED = auto()
    """Records can be sealed."""
    REKEYING = auto()
    """Records can be sealed, and a newer handshake is under way."""


class Event(Enum):
    """An event that moves a session."""

    INIT_SENT = auto()
    """A new INIT goes out."""
    INIT_RECEIVED = auto()
    """An authentic INIT has come and was answered."""
    RESPONSE_RECEIVED = auto()
    """The authentic RESPONSE to our INIT has come."""
    CONFIRMED = auto()
    """A record has come under a key that is newer than the one we seal with."""
    EXPIRED = auto()
    """The key to seal with is too old, or has sealed too much."""
    FORGOTTEN = auto()
    """The last key to open with is too old."""


INITIATOR: Final = {
    (State.CLOSED, Event.INIT_SENT): State.INIT_SENT,
    (State.INIT_SENT, Event.INIT_SENT): State.INIT_SENT,
    (State.INIT_SENT, Event.RESPONSE_RECEIVED): State.ESTABLISHED,
    (State.ESTABLISHED, Event.INIT_SENT): State.REKEYING,
    (State.ESTABLISHED, Event.EXPIRED): State.CLOSED,
    (State.REKEYING, Event.INIT_SENT): State.REKEYING,
    (State.REKEYING, Event.RESPONSE_RECEIVED): State.ESTABLISHED,
    (State.REKEYING, Event.EXPIRED): State.INIT_SENT,
}
"""(state, event) -> next state, of the side that sends INITs."""

RESPONDER: Final = {
    (State.CLOSED, Event.INIT_RECEIVED): State.RESPONSE_SENT,
    (State.CLOSED, Event.CONFIRMED): State.ESTABLISHED,
    (State.RESPONSE_SENT, Event.INIT_RECEIVED): State.RESPONSE_SENT,
    (State.RESPONSE_SENT, Event.CONFIRMED): State.ESTABLISHED,
    (State.RESPONSE_SENT, Event.FORGOTTEN): State.CLOSED,
    (State.ESTABLISHED, Event.INIT_RECEIVED): State.REKEYING,
    (State.ESTABLISHED, Event.CONFIRMED): State.ESTABLISHED,
    (State.ESTABLISHED, Event.EXPIRED): State.CLOSED,
    (State.REKEYING, Event.INIT_RECEIVED): State.REKEYING,
    (State.REKEYING, Event.CONFIRMED): State.ESTABLISHED,
    (State.REKEYING, Event.EXPIRED): State.RESPONSE_SENT,
}
"""(state, event) -> next state, of the side that answers them."""
