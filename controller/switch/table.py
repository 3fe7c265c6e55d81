"""The table: who has an address.

A binding says that an IP (in a VLAN) is at a MAC at a node. For each (VLAN, IP) the table keeps
one: of all that was ever said about it, the greatest in this order (RFC 7432 section 7.7):

    1. the higher sequence number;
    2. at the same one, a live binding before a withdrawal;
    3. then the lower node id.

Only a binding's own node speaks for it, and raises the number with whatever it says anew: one
above what the table held before, for a container that appears, changes its MAC, moves in or
leaves. The order is total, so nodes that have heard the same messages agree, whatever was lost
on the way, repeated or overtaken. A withdrawal stays as a tombstone until every message that it
must outlive is surely gone.

Local bindings age: ``due`` names those that nobody has heard for a while, to be asked whether
they are still there. Remote ones do not; their node withdraws them. Time is an argument, in
seconds of a monotonic clock; every operation takes time independent of the table's size, but for
the heap of ages, whose cost grows with the logarithm.
"""

import heapq
from array import array
from collections.abc import Iterable, Iterator
from enum import Enum
from hashlib import blake2b
from typing import Final, NamedTuple

from controller.packets.addresses import Ip, Key, Mac, NodeId, Vlan

MAX_SEQUENCE: Final = 2**32 - 1
"""RFC 7432 section 7.7: the sequence number of a move has 32 bits."""
BUCKETS: Final = 64
"""Parts that a node's entries are divided into for comparison."""


MAX_BINDINGS: Final = 131_072
"""Live bindings in all: 1,000 nodes of 100 containers, and room."""
MAX_PER_NODE: Final = 4096
"""Live bindings of one node."""
MAX_PER_MAC: Final = 256
"""Addresses of one MAC: a router's aliases, not a scan."""
MAX_TOMBSTONES: Final = 16_384
"""Withdrawals remembered; the oldest goes first."""
TOMBSTONE_S: Final = 600.0
"""How long a withdrawal is remembered: longer than any queue holds a message."""
REPROBE_S: Final = 240.0
"""Silence after which a local owner is asked. Below 300 s, the age at which a Linux bridge forgets
a port's MAC: the answer renews that, too."""
JITTER_S: Final = 30.0
"""Local owners that were learned together are asked over this long a time (before REPROBE_S)."""
CROWDED_S: Final = 30.0
"""The same silence while the node's share of the table is more than half full: addresses that
nobody stands behind leave before they crowd out real ones."""
RECHECK_S: Final = 10.0
"""When to name a binding again that was due and is still there."""


class Origin(Enum):
    LEARNED = "learned"  # heard on the wire, here or elsewhere; ages
    BRIDGE = "bridge"  # an address of this host's bridge itself; stays until it is taken off


class Binding:
    """An address and its place. Only ``confirmed`` ever changes; a change makes a new one.

    A tombstone is a binding that is not ``alive``; its ``mac`` is the last one.
    """

    __slots__ = (
        "alive",
        "changed",
        "checksum",
        "confirmed",
        "key",
        "mac",
        "node",
        "origin",
        "router",
        "sequence",
    )

    def __init__(
        self,
        key: Key,
        mac: Mac,
        node: NodeId,
        sequence: int,
        now: float,
        *,
        alive: bool = True,
        router: bool = False,
        origin: Origin = Origin.LEARNED,
    ) -> None:
        self.key = key
        self.mac = mac
        self.node = node
        self.sequence = sequence
        self.alive = alive
        self.router = router
        self.origin = origin
        self.changed = now
        self.confirmed = now
        self.checksum = _checksum(key, mac, sequence, router) if alive else 0

    def __repr__(self) -> str:
        state = "" if self.alive else " withdrawn"
        vlan, ip = self.key
        return f"<{ip}/{vlan} {self.mac} at {self.node[:8]} #{self.sequence}{state}>"

    @property
    def vlan(self) -> Vlan:
        return self.key[0]

    @property
    def ip(self) -> Ip:
        return self.key[1]

    def beats(self, other: "Binding") -> bool:
        """Return whether this one comes before ``other`` in the order of the module's docstring."""
        if self.sequence != other.sequence:
            return self.sequence > other.sequence
        if self.alive != other.alive:
            return self.alive
        return self.node < other.node


def _checksum(key: Key, mac: Mac, sequence: int, router: bool) -> int:
    text = f"{key[0]} {key[1]} {mac} {sequence} {router:d}"
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest())


def _above(sequence: int) -> int:
    return min(sequence + 1, MAX_SEQUENCE)


class Outcome(Enum):
    """What became of something offered to the table."""

    NEW = "new"  # nobody had the address
    MOVED = "moved"  # another MAC or another node had it
    UPDATED = "updated"  # the same owner, said anew
    WITHDRAWN = "withdrawn"
    SAME = "same"  # known already, word for word
    STALE = "stale"  # what the table holds comes first
    FULL = "full"  # a bound; nothing changed


CHANGES: Final = frozenset({Outcome.NEW, Outcome.MOVED, Outcome.UPDATED, Outcome.WITHDRAWN})


class Change(NamedTuple):
    outcome: Outcome
    old: Binding | None
    """What the table held before, tombstones included."""
    new: Binding | None
    """What it holds now."""


class _Holdings:
    """The live bindings of one node, and their checksums: exclusive-or, so that adding and
    removing one costs the same whatever there is."""

    __slots__ = ("buckets", "keys", "total")

    def __init__(self) -> None:
        self.keys: dict[Key, None] = {}
        self.total = 0
        self.buckets = array("I", bytes(4 * BUCKETS))

    def toggle(self, checksum: int) -> None:
        self.total ^= checksum
        self.buckets[checksum % BUCKETS] ^= checksum >> 32


class Table:
    """All bindings that one node knows. ``node`` is its own id."""

    def __init__(self, node: NodeId) -> None:
        self.node = node
        self._bindings: dict[Key, Binding] = {}
        self._graves: dict[Key, float] = {}
        self._nodes: dict[NodeId, _Holdings] = {}
        self._macs: dict[tuple[Vlan, Mac], tuple[Key, ...]] = {}
        self._ages: list[tuple[float, int, Binding]] = []
        self._count = 0

    def __len__(self) -> int:
        """Live bindings."""
        return len(self._bindings) - len(self._graves)

    def __iter__(self) -> Iterator[Binding]:
        return (binding for binding in self._bindings.values() if binding.alive)

    def get(self, key: Key) -> Binding | None:
        """Return what is known about ``key``, a tombstone included."""
        return self._bindings.get(key)

    def live(self, key: Key) -> Binding | None:
        """Return the live binding of ``key``."""
        binding = self._bindings.get(key)
        return binding if binding is not None and binding.alive else None

    def of_mac(self, vlan: Vlan, mac: Mac) -> list[Binding]:
        """Return the live bindings of a MAC, at whatever node."""
        return [self._bindings[key] for key in self._macs.get((vlan, mac), ())]

    def of_node(self, node: NodeId) -> list[Binding]:
        """Return the live bindings of a node, at most MAX_PER_NODE."""
        holdings = self._nodes.get(node)
        return [self._bindings[key] for key in holdings.keys] if holdings else []

    def count(self, node: NodeId) -> int:
        """Return how many live bindings a node has."""
        holdings = self._nodes.get(node)
        return len(holdings.keys) if holdings else 0

    # --- changes

    def learn(
        self,
        key: Key,
        mac: Mac,
        now: float,
        *,
        router: bool | None = None,
        origin: Origin = Origin.LEARNED,
    ) -> Change:
        """Record that ``key`` was seen at ``mac`` on this node, now.

        Whatever the table held gives way; whether it may is the caller's to find out. The
        sequence number goes above the one held. ``router`` None: as before.
        """
        old = self._bindings.get(key)
        if router is None:
            router = old.router if old is not None and old.mac == mac else False
        if (
            old is not None
            and (old.alive, old.node, old.mac) == (True, self.node, mac)
            and (old.router, old.origin) == (router, origin)
        ):
            old.confirmed = now
            return Change(Outcome.SAME, old, old)
        sequence = _above(old.sequence) if old is not None else 0
        return self._own(
            old, Binding(key, mac, self.node, sequence, now, router=router, origin=origin)
        )

    def rise(self, key: Key, sequence: int, now: float) -> Change:
        """Raise a live binding of this node to ``sequence``; its age stays as it is."""
        old = self._bindings[key]
        new = Binding(key, old.mac, self.node, sequence, now, router=old.router, origin=old.origin)
        new.confirmed, new.changed = old.confirmed, old.changed
        return self._own(old, new)

    def offer(self, new: Binding) -> Change:
        """Take what another node says about its own binding, if it comes first."""
        old = self._bindings.get(new.key)
        if old is not None and not new.beats(old):
            same = (
                new.sequence == old.sequence
                and new.node == old.node
                and new.alive == old.alive
                and (new.checksum == old.checksum or not new.alive)
            )
            return Change(Outcome.SAME if same else Outcome.STALE, old, old)
        return self._replace(old, new)

    def withdraw(self, key: Key, now: float) -> Change:
        """Record that a binding of this node is gone."""
        old = self._bindings.get(key)
        if old is None or not old.alive or old.node != self.node:
            return Change(Outcome.SAME, old, old)
        sequence = _above(old.sequence)
        return self._replace(old, Binding(key, old.mac, self.node, sequence, now, alive=False))

    def forget(self, key: Key) -> Binding | None:
        """Drop what is known about ``key``, without a tombstone; return it."""
        binding = self._bindings.pop(key, None)
        if binding is not None:
            self._unindex(binding)
        return binding

    def _own(self, old: Binding | None, new: Binding) -> Change:
        change = self._replace(old, new)
        if change.outcome in CHANGES and new.origin is Origin.LEARNED:
            self._age(self._next_check(new), new)
        return change

    def _replace(self, old: Binding | None, new: Binding) -> Change:
        if new.alive and not self._room(old, new):
            return Change(Outcome.FULL, old, old)
        if old is not None:
            self._unindex(old)
        self._bindings[new.key] = new
        self._index(new)
        if not new.alive:
            outcome = Outcome.WITHDRAWN
        elif old is None or not old.alive:
            outcome = Outcome.NEW
        elif old.mac != new.mac or old.node != new.node:
            outcome = Outcome.MOVED
        else:
            outcome = Outcome.UPDATED
        return Change(outcome, old, new)

    def _room(self, old: Binding | None, new: Binding) -> bool:
        if old is not None and old.alive and old.node == new.node and old.mac == new.mac:
            return True
        fresh = old is None or not old.alive
        return (
            not (fresh and len(self) >= MAX_BINDINGS)
            and self.count(new.node) < MAX_PER_NODE
            and len(self._macs.get((new.vlan, new.mac), ())) < MAX_PER_MAC
        )

    def _index(self, binding: Binding) -> None:
        if not binding.alive:
            self._graves[binding.key] = binding.changed
            if len(self._graves) > MAX_TOMBSTONES:
                self.forget(next(iter(self._graves)))
            return
        holdings = self._nodes.get(binding.node)
        if holdings is None:
            holdings = self._nodes[binding.node] = _Holdings()
        holdings.keys[binding.key] = None
        holdings.toggle(binding.checksum)
        place = (binding.vlan, binding.mac)
        self._macs[place] = (*self._macs.get(place, ()), binding.key)

    def _unindex(self, binding: Binding) -> None:
        if not binding.alive:
            self._graves.pop(binding.key, None)
            return
        holdings = self._nodes[binding.node]
        del holdings.keys[binding.key]
        holdings.toggle(binding.checksum)
        if not holdings.keys:
            del self._nodes[binding.node]
        place = (binding.vlan, binding.mac)
        rest = tuple(key for key in self._macs[place] if key != binding.key)
        if rest:
            self._macs[place] = rest
        else:
            del self._macs[place]

    # --- age

    @property
    def deadline(self) -> float:
        """When ``due`` has something to do; infinite when never."""
        age = self._ages[0][0] if self._ages else float("inf")
        for when in self._graves.values():
            return min(age, when + TOMBSTONE_S)
        return age

    def due(self, now: float) -> list[Binding]:
        """Drop old tombstones; return the local bindings that must be asked whether they are
        still there. One that stays is named again every RECHECK_S until it is heard."""
        while self._graves:
            key, when = next(iter(self._graves.items()))
            if when + TOMBSTONE_S > now:
                break
            self.forget(key)
        silent = []
        while self._ages and self._ages[0][0] <= now:
            binding = heapq.heappop(self._ages)[2]
            if self._bindings.get(binding.key) is not binding:
                continue
            check = self._next_check(binding)
            if check <= now:
                silent.append(binding)
                check = now + RECHECK_S
            self._age(check, binding)
        return silent

    def _next_check(self, binding: Binding) -> float:
        crowded = self.count(self.node) > MAX_PER_NODE // 2
        jitter = binding.checksum % 1024 / 1024
        if crowded:
            return binding.confirmed + CROWDED_S * (1 - jitter / 4)
        return binding.confirmed + REPROBE_S - JITTER_S * jitter

    def _age(self, when: float, binding: Binding) -> None:
        self._count += 1
        heapq.heappush(self._ages, (when, self._count, binding))

    # --- comparison between nodes

    def checksum(self, node: NodeId) -> str:
        """Return 16 hex digits over all live bindings of a node: what both sides compare."""
        holdings = self._nodes.get(node)
        return f"{holdings.total if holdings else 0:016x}"

    def checksums(self, node: NodeId) -> str:
        """Return 8 hex digits for each bucket of a node's bindings; empty when it has none."""
        holdings = self._nodes.get(node)
        return "".join(f"{part:08x}" for part in holdings.buckets) if holdings else ""

    def in_buckets(self, node: NodeId, buckets: Iterable[int]) -> list[Binding]:
        """Return the live bindings of a node that fall in any of ``buckets``."""
        wanted = frozenset(buckets)
        return [b for b in self.of_node(node) if b.checksum % BUCKETS in wanted]
