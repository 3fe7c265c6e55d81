"""The forwarding database: (VLAN, MAC) -> port. Pure: time is an argument.

A *port* is a link, or LOCAL for what is behind our TAP. Entries are *learned* from source
addresses and age, or *pinned* by the controller's bindings and do not. A pin outranks what is
learned: a frame that contradicts one is not learned from, it is reported.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final, Generic, TypeVar

AGE: Final = 300.0  # s; as a Linux bridge
MAX_LEARNED: Final = 256  # per remote port: a peer cannot exhaust the table (random source MACs)
MAX_LEARNED_LOCAL: Final = 4096  # as the bridge's own side may hold many containers
MAX_PINNED: Final = 200_000

PortT = TypeVar("PortT", bound=Hashable)
Key = tuple[bytes, int]


class Local(Enum):
    """The port behind our own TAP."""

    LOCAL = "local"


LOCAL: Final = Local.LOCAL


@dataclass(slots=True, eq=False)
class Entry(Generic[PortT]):
    """One address. ``seen`` may be written by the hot path, which holds on to the entry."""

    mac: bytes
    vlan: int
    port: PortT | Local
    seen: float
    pinned: bool


class Learned(Enum):
    """What became of a source address."""

    KNOWN = "known"
    NEW = "new"
    MOVED = "moved"
    CLAIMED = "claimed"  # contradicts a pin
    FULL = "full"


class Forwarding(Generic[PortT]):
    """The table. ``changed`` is called whenever a decision taken from it may no longer hold."""

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        self._changed = changed
        self._table: dict[Key, Entry[PortT]] = {}
        self._learned: Counter[PortT | Local] = Counter()
        self._pinned = 0
        self._next_sweep = 0.0

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[Entry[PortT]]:
        return iter(self._table.values())

    def lookup(self, mac: bytes, vlan: int) -> Entry[PortT] | None:
        """Return the entry of ``mac``, or None: flood."""
        return self._table.get((mac, vlan))

    def learn(self, mac: bytes, vlan: int, port: PortT | Local, now: float) -> Learned:
        """Note that a frame from ``mac`` came in by ``port``."""
        entry = self._table.get((mac, vlan))
        if entry is None:
            limit = MAX_LEARNED_LOCAL if port is LOCAL else MAX_LEARNED
            if self._learned[port] >= limit:
                return Learned.FULL
            self._table[mac, vlan] = Entry(mac, vlan, port, now, pinned=False)
            self._learned[port] += 1
            self._changed()
            return Learned.NEW
        if entry.port == port:
            entry.seen = now
            return Learned.KNOWN
        if entry.pinned:
            return Learned.CLAIMED
        self._learned[entry.port] -= 1
        self._learned[port] += 1
        entry.port = port
        entry.seen = now
        self._changed()
        return Learned.MOVED

    def pin(self, mac: bytes, vlan: int, port: PortT | Local, now: float) -> bool:
        """Fix ``mac`` to ``port`` until it is unpinned. False: the table is full."""
        entry = self._table.get((mac, vlan))
        if entry is not None and entry.pinned:
            if entry.port != port:
                entry.port = port
                self._changed()
            return True
        if self._pinned >= MAX_PINNED:
            return False
        if entry is not None:
            self._learned[entry.port] -= 1
        self._table[mac, vlan] = Entry(mac, vlan, port, now, pinned=True)
        self._pinned += 1
        self._changed()
        return True

    def unpin(self, mac: bytes, vlan: int) -> None:
        """Forget a pinned address."""
        entry = self._table.get((mac, vlan))
        if entry is not None and entry.pinned:
            self._remove(entry)

    def forget(self, port: PortT) -> None:
        """Remove what was learned from ``port``, which is gone. Pins stay: the controller's."""
        for entry in [e for e in self if e.port == port and not e.pinned]:
            self._remove(entry)
        del self._learned[port]

    def forget_learned(self) -> None:
        """Remove what was learned from anybody: the topology is another one."""
        for entry in [e for e in self if not e.pinned]:
            self._remove(entry)

    def flush_pins(self) -> None:
        """Turn all pins into learned entries' absence: a new controller starts from nothing."""
        for entry in [e for e in self if e.pinned]:
            self._remove(entry)

    def age(self, now: float) -> None:
        """Remove learned entries not seen for AGE. Cheap to call often: it sweeps every 10 s."""
        if now < self._next_sweep:
            return
        self._next_sweep = now + 10.0
        for entry in [e for e in self if not e.pinned and now - e.seen > AGE]:
            self._remove(entry)

    def _remove(self, entry: Entry[PortT]) -> None:
        del self._table[entry.mac, entry.vlan]
        if entry.pinned:
            self._pinned -= 1
        else:
            self._learned[entry.port] -= 1
        self._changed()
