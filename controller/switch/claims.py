"""Tentative claims: addresses that somebody is about to take (RFC 5227 section 2.1, RFC 4862 5.4).

A probe creates no binding, but for CLAIM_S nobody else may have what it asks for. Of two probes
that crossed on the way the one from the node with the lower id stands; otherwise the first.
"""

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum
from typing import Final

from controller.packets.addresses import Key, Mac, NodeId

CLAIM_S: Final = 10.0
"""RFC 5227: three probes at most 2 s apart, 2 s to wait, two announcements 2 s apart."""
SIMULTANEOUS_S: Final = 1.0
"""Probes less than this apart may have crossed."""
MAX_CLAIMS: Final = 4096
MAX_PROBERS: Final = 16
"""Containers of one node that probe for one address at a time."""


@dataclass(slots=True)
class Claim:
    """``macs``: who probes at ``node``, the first one first. More than one there is for them to
    settle, who hear each other; but what goes for one goes for all."""

    node: NodeId
    macs: list[Mac]
    opened: float
    until: float

    @property
    def mac(self) -> Mac:
        return self.macs[0]


class Claimed(Enum):
    OURS = "ours"  # a container here claims it, with another MAC, and keeps it
    LOST = "lost"  # a container here claimed it, and must leave it
    OTHER = "other"  # a third node claims it; those two settle it between them
    FREE = "free"


class Claims:
    def __init__(self, node: NodeId) -> None:
        self._node = node
        self._claims: OrderedDict[Key, Claim] = OrderedDict()

    def __len__(self) -> int:
        return len(self._claims)

    def get(self, key: Key, now: float) -> Claim | None:
        """Return the claim on ``key`` that stands."""
        claim = self._claims.get(key)
        if claim is not None and claim.until <= now:
            del self._claims[key]
            return None
        return claim

    def is_probing(self, key: Key, mac: Mac, now: float) -> bool:
        """Return whether ``mac``, here, is asking whether ``key`` is free: any question of ours
        about ``key`` would tell it that somebody else is, too."""
        claim = self.get(key, now)
        return claim is not None and claim.node == self._node and mac in claim.macs

    def open_here(self, key: Key, mac: Mac, now: float) -> Claim:
        """A container here with ``mac`` probes; return the claim that stands afterwards."""
        claim = self.get(key, now)
        if claim is None:
            claim = self._put(key, Claim(self._node, [mac], now, now + CLAIM_S))
        elif claim.node == self._node:
            claim.until = now + CLAIM_S
            if mac not in claim.macs and len(claim.macs) < MAX_PROBERS:
                claim.macs.append(mac)
        return claim

    def open_there(self, peer: NodeId, key: Key, mac: Mac, age: float, now: float) -> Claimed:
        """A container at ``peer`` probes, and has claimed ``key`` for ``age`` seconds."""
        claim = self.get(key, now)
        theirs = Claim(peer, [mac], now - age, now + CLAIM_S)
        if claim is None or claim.macs == [mac] or claim.node == peer:
            self._put(key, theirs)
            return Claimed.FREE
        lead = theirs.opened - claim.opened
        first = claim.node < peer if abs(lead) < SIMULTANEOUS_S else lead > 0
        if claim.node != self._node:
            if not first:
                self._put(key, theirs)
            return Claimed.OTHER
        if first:
            return Claimed.OURS
        self._put(key, theirs)
        return Claimed.LOST

    def yield_to(self, peer: NodeId, key: Key, mac: Mac, now: float) -> list[Mac]:
        """``peer`` says that its claim stands; return the MACs here that must leave ``key``."""
        claim = self.get(key, now)
        self._put(key, Claim(peer, [mac], now, now + CLAIM_S))
        return claim.macs if claim is not None and claim.node == self._node else []

    def close(self, key: Key) -> None:
        """``key`` has an owner now."""
        self._claims.pop(key, None)

    def _put(self, key: Key, claim: Claim) -> Claim:
        self._claims.pop(key, None)
        self._claims[key] = claim
        if len(self._claims) > MAX_CLAIMS:
            self._claims.popitem(last=False)
        return claim
