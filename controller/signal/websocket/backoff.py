"""The delays between attempts to join a rendezvous."""

import enum
import random
from collections.abc import Callable
from typing import Final

QUICK_DELAY_S: Final = 0.3
"""The first delays: nodes and rendezvous are often started together, and it is soon there."""
QUICK_TRIES: Final = 10
"""Attempts at that pace; a rendezvous that is missing after 3 s is gone for longer."""
GROWTH: Final = 2.0
"""The factor from one delay to the next."""
TROUBLE_CAP_S: Final = 30.0
"""The longest delay while the rendezvous cannot be reached, or has no room."""
REFUSED_FIRST_S: Final = 1.0
"""The first delay after the rendezvous said to come later (quota, full)."""
UNWELCOME_FIRST_S: Final = 5.0
"""The first delay after a refusal that only a person can change, such as a wrong secret."""
UNWELCOME_CAP_S: Final = 300.0
"""The longest delay after such a refusal."""
JITTER: Final = 0.25
"""The part of a delay that chance adds or takes: nodes of one outage must not return as one."""
STABLE_AFTER_S: Final = 10.0
"""A connection that lasted for less is no success."""


class Failure(enum.Enum):
    """The kinds of ends that a connection has."""

    TROUBLE = enum.auto()
    """TCP refused, no route, no such name, or lost."""
    REFUSED = enum.auto()
    """The rendezvous has no room now."""
    UNWELCOME = enum.auto()
    """The rendezvous will never admit us as we are."""


class Backoff:
    """The delay before each next attempt. Call ``failed`` after each end of a connection."""

    def __init__(self, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self._uniform = uniform
        self._kind = Failure.TROUBLE
        self._failures = 0

    def succeeded(self) -> None:
        """Start afresh, because a connection was stable or circumstances have changed."""
        self._failures = 0

    def failed(self, kind: Failure) -> float:
        """Return the seconds to wait, jitter included. Another kind of failure starts afresh."""
        if kind is not self._kind:
            self._kind = kind
            self._failures = 0
        tries = self._failures
        self._failures = min(tries + 1, 64)
        match kind:
            case Failure.TROUBLE:
                slow = max(0, tries - QUICK_TRIES + 1)
                delay = min(TROUBLE_CAP_S, QUICK_DELAY_S * GROWTH**slow)
            case Failure.REFUSED:
                delay = min(TROUBLE_CAP_S, REFUSED_FIRST_S * GROWTH**tries)
            case Failure.UNWELCOME:
                delay = min(UNWELCOME_CAP_S, UNWELCOME_FIRST_S * GROWTH**tries)
        return delay * self._uniform(1 - JITTER, 1 + JITTER)
