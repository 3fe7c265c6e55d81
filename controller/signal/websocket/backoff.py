"""When to knock again at a rendezvous that did not let us in. Pure."""

import enum
import random
from collections.abc import Callable
from typing import Final

QUICK_DELAY: Final = 0.3
"""In seconds: everything is often started together: be there when it is up."""
QUICK_TRIES: Final = 10
"""So 3 s of that, then a rendezvous is gone for longer."""
GROWTH: Final = 2.0
TROUBLE_CAP: Final = 30.0
"""Seconds between tries while it cannot be reached."""
REFUSED_FIRST: Final = 1.0
"""In seconds: it said to come later (quota, full)."""
UNWELCOME_FIRST: Final = 5.0
"""In seconds: only a person can change a wrong secret."""
UNWELCOME_CAP: Final = 300.0
JITTER: Final = 0.25
"""Of the delay, either way: nodes of one outage must not return as one."""
STABLE_AFTER: Final = 10.0
"""Seconds joined; less than that was no success."""


class Failure(enum.Enum):
    """What kind of end a connection had."""

    TROUBLE = enum.auto()  # refused TCP, no route, no such name, lost
    REFUSED = enum.auto()  # the rendezvous has no room now
    UNWELCOME = enum.auto()  # it will never take us as we are


class Backoff:
    """Gives the delay before each next try."""

    def __init__(self, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self._uniform = uniform
        self._kind = Failure.TROUBLE
        self._failures = 0

    def succeeded(self) -> None:
        """A connection has been stable, or circumstances have changed: start afresh."""
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
                delay = min(TROUBLE_CAP, QUICK_DELAY * GROWTH**slow)
            case Failure.REFUSED:
                delay = min(TROUBLE_CAP, REFUSED_FIRST * GROWTH**tries)
            case Failure.UNWELCOME:
                delay = min(UNWELCOME_CAP, UNWELCOME_FIRST * GROWTH**tries)
        return delay * self._uniform(1 - JITTER, 1 + JITTER)
