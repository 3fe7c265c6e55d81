"""Addresses that two hold at once, and addresses that will not stay: RFC 7432 section 15.1.

A conflict lasts while its contender goes on; the holder keeps the address meanwhile. An address
that moves too often is frozen where it is: nobody else gets it until it has been quiet, or the
operator clears it.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from controller.packets.addresses import Ip, Key, Mac, NodeId

MOVES: Final = 5
MOVES_S: Final = 180.0
"""RFC 7432 section 15.1: N moves within M seconds."""
QUIET_S: Final = 180.0
"""A frozen address that nobody else tried to take for this long is free to move again."""
RECOVERY_S: Final = 1800.0
"""The longest that an address stays frozen."""
SETTLED_S: Final = 10.0
"""A contender whose holder answered is not given another chance for this long; also the least
time between two defences of an address (RFC 5227 section 2.4, DEFEND_INTERVAL)."""
CONFLICT_S: Final = 60.0
"""A contender that has been silent for this long has given up."""
MAX_CONFLICTS: Final = 1024
MAX_MOVERS: Final = 4096


@dataclass(slots=True)
class Conflict:
    """``key`` is alive at ``mac`` at ``node``, which keeps it, and at the contender, too."""

    key: Key
    mac: Mac
    node: NodeId
    contender_mac: Mac
    contender_node: NodeId
    since: float
    seen: float
    settled: float
    defended: float = float("-inf")


@dataclass(slots=True)
class _Mover:
    moves: deque[float] = field(default_factory=lambda: deque(maxlen=MOVES))
    frozen: float | None = None
    tried: float = float("-inf")


class Duplicates:
    def __init__(self) -> None:
        self._conflicts: OrderedDict[Key, Conflict] = OrderedDict()
        self._movers: OrderedDict[Key, _Mover] = OrderedDict()

    def __iter__(self) -> Iterator[Conflict]:
        return iter(self._conflicts.values())

    # --- conflicts

    def get(self, key: Key) -> Conflict | None:
        return self._conflicts.get(key)

    def found(
        self, key: Key, holder: tuple[Mac, NodeId], contender: tuple[Mac, NodeId], now: float
    ) -> Conflict | None:
        """The holder answered while the contender uses ``key``; return the conflict if new."""
        conflict = self._conflicts.get(key)
        known = conflict is not None and (
            (conflict.mac, conflict.node) == holder
            and (conflict.contender_mac, conflict.contender_node) == contender
        )
        if conflict is not None and known:
            conflict.seen = conflict.settled = now
            return None
        self._conflicts.pop(key, None)
        conflict = self._conflicts[key] = Conflict(key, *holder, *contender, now, now, now)
        if len(self._conflicts) > MAX_CONFLICTS:
            self._conflicts.popitem(last=False)
        return conflict

    def is_settled(self, key: Key, contender_mac: Mac, node: NodeId, now: float) -> bool:
        """The contender was heard again; return whether its holder answered just now."""
        conflict = self._conflicts.get(key)
        if conflict is None or (conflict.contender_mac, conflict.contender_node) != (
            contender_mac,
            node,
        ):
            return False
        conflict.seen = now
        return now < conflict.settled + SETTLED_S

    def may_defend(self, key: Key, now: float) -> bool:
        """Return whether it is time to tell the bridge again who has ``key``."""
        conflict = self._conflicts.get(key)
        if conflict is None or now < conflict.defended + SETTLED_S:
            return False
        conflict.defended = now
        return True

    def resolve(self, key: Key) -> Conflict | None:
        """The holder is gone, or the operator says so."""
        return self._conflicts.pop(key, None)

    # --- moves

    def moved(self, key: Key, now: float) -> bool:
        """``key`` has another owner than before; return whether it is frozen from now on."""
        mover = self._movers.pop(key, None) or _Mover()
        self._movers[key] = mover
        if len(self._movers) > MAX_MOVERS:
            self._movers.popitem(last=False)
        mover.moves.append(now)
        if mover.frozen is None and len(mover.moves) == MOVES and now - mover.moves[0] <= MOVES_S:
            mover.frozen = mover.tried = now
            return True
        return False

    def is_frozen(self, key: Key, now: float) -> bool:
        mover = self._movers.get(key)
        if mover is None or mover.frozen is None:
            return False
        if now >= min(mover.tried + QUIET_S, mover.frozen + RECOVERY_S):
            del self._movers[key]
            return False
        return True

    def tried(self, key: Key, now: float) -> None:
        """Somebody tried to take a frozen ``key``."""
        mover = self._movers.get(key)
        if mover is not None:
            mover.tried = now

    def frozen(self, now: float) -> list[Key]:
        return [key for key in list(self._movers) if self.is_frozen(key, now)]

    def keys_of(self, ip: Ip) -> set[Key]:
        """Return what is remembered against ``ip``, in whatever VLAN."""
        return {key for known in (self._movers, self._conflicts) for key in known if key[1] == ip}

    def clear(self, key: Key) -> None:
        """Forget the moves and the conflict of ``key``."""
        self._movers.pop(key, None)
        self.resolve(key)
