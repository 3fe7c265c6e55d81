"""aioice, as far as we stand on it: the one module that imports it.

aioice parses and authenticates STUN, pairs candidates, learns peer-reflexive ones and speaks
TURN. Ours is when checks are sent and repeated, which valid pair is nominated, what strangers
get to see (nothing), and who owns the tasks. What is private of aioice and used here is pinned
by a test (tests/tincan/ice/test_library.py), so that another version fails there and not at a
user's.
"""

import contextlib
import logging
import struct
from collections import Counter

from aioice import Candidate, Connection, stun, turn
from aioice.candidate import candidate_foundation, candidate_priority
from aioice.ice import CandidatePair, StunProtocol

from tincan.ice.stun import Address, is_stun

__all__ = [
    "Candidate",
    "CandidatePair",
    "Connection",
    "StunProtocol",
    "local_candidate",
    "parse",
    "stun",
    "turn",
]

# At INFO it narrates every step of every check.
logging.getLogger("aioice").setLevel(logging.WARNING)


def local_candidate(
    kind: str, address: Address, rank: int, base: Address | None = None
) -> Candidate:
    """Return a candidate of ours; of one kind, a lower ``rank`` is preferred."""
    return Candidate(
        foundation=candidate_foundation(kind, "udp", (base or address)[0]),
        component=1,
        transport="udp",
        priority=candidate_priority(1, kind, 65535 - rank),
        host=address[0],
        port=address[1],
        type=kind,
        related_address=base[0] if base else None,
        related_port=base[1] if base else None,
    )


def parse(data: bytes, counters: Counter[str]) -> stun.Message | None:
    """Return the STUN message in ``data``, or None after counting what is none."""
    if is_stun(data):
        with contextlib.suppress(ValueError, struct.error):  # struct.error: its length checks
            return stun.parse_message(data)
    counters["stun_malformed"] += 1
    return None
