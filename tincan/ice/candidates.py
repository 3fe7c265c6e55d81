"""Which ICE candidates are offered, accepted and paired. Pure.

A candidate travels as an SDP attribute (RFC 8839 section 5.1)::

    FOUNDATION 1 udp PRIORITY ADDRESS PORT typ host|srflx|relay [raddr ADDRESS rport PORT ...]
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from tincan.ice.stun import Address
from tincan.path.description import MAX_CANDIDATE_LENGTH, MAX_CANDIDATES

MAX_LOCAL_ADDRESSES: Final = 8
"""Host candidates of ours, and so sockets per negotiation."""
MAX_PRIORITY: Final = 2**31 - 1

_LINE: Final = re.compile(
    r"(?:candidate:)?([A-Za-z0-9+/]{1,32}) 1 (?:udp|UDP) ([0-9]{1,10}) (\S+) ([0-9]{1,5})"
    r" typ (host|srflx|relay)(?: [!-~]+ [!-~]+)*",
    re.ASCII,
)
_SITE: Final = [
    ipaddress.ip_network(prefix)
    for prefix in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16"),
        *("fc00::/7", "fe80::/10", "127.0.0.0/8", "::1/128"),
    )
]
"""Addresses that mean another machine at every site.

Not Python's is_private: that also holds the documentation prefixes, on which labs run.
"""


class Remote(NamedTuple):
    """A candidate of the peer's that parses and whose address can be sent to."""

    foundation: str
    priority: int
    host: str  # canonical
    port: int
    kind: str  # host, srflx or relay


def parse(line: str) -> Remote | None:
    """Return the candidate in ``line``, or None for what is malformed or not for us.

    Names (mDNS) are not for us, nor TCP, nor addresses that cannot name a peer: unspecified,
    multicast, broadcast, IPv4-mapped, link-local IPv6 (which needs a scope of this machine's).
    """
    match = _LINE.fullmatch(line) if len(line) <= MAX_CANDIDATE_LENGTH else None
    if match is None:
        return None
    foundation, priority, host, port, kind = match.groups()
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if not (0 < int(port) < 65536 and 0 < int(priority) <= MAX_PRIORITY and _is_peer(address)):
        return None
    return Remote(foundation, int(priority), str(address), int(port), kind)


def _is_peer(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and (
        address.is_link_local or address.ipv4_mapped is not None or address.scope_id
    ):
        return False
    reserved = address.version == 4 and address.is_reserved  # 240.0.0.0/4, broadcast within
    return not (address.is_unspecified or address.is_multicast or reserved)


def screen(
    lines: Sequence[str],
    refuse: Callable[[str], bool],
    ours: Iterable[str],
    counters: Counter[str],
) -> list[Remote]:
    """Return the usable ones of the first MAX_CANDIDATES candidates, best first; count the others.

    ``refuse`` knows what would be routed through the overlay. A loopback address is refused too,
    unless ``ours`` (our own addresses) has one: both ends are then on this machine.
    """
    loopback = any(ipaddress.ip_address(host).is_loopback for host in ours)
    usable: list[Remote] = []
    for number, line in enumerate(lines):
        remote = parse(line)
        if remote is None:
            counters["ice_candidates_malformed"] += 1
        elif (
            number >= MAX_CANDIDATES
            or refuse(remote.host)
            or (ipaddress.ip_address(remote.host).is_loopback and not loopback)
        ):
            counters["ice_candidates_refused"] += 1
        else:
            usable.append(remote)
    return sorted(usable, key=lambda remote: -remote.priority)


def offerable(addresses: Iterable[str]) -> list[str]:
    """Return the first MAX_LOCAL_ADDRESSES of ``addresses`` that a peer could send to."""
    found: dict[str, None] = {}
    for text in addresses:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            continue
        if _is_peer(address):
            found[str(address)] = None
    return list(found)[:MAX_LOCAL_ADDRESSES]


def is_site_local(host: str) -> bool:
    """Return whether ``host`` means another machine at every site: private, shared, loopback."""
    address = ipaddress.ip_address(host)
    return any(address.version == site.version and address in site for site in _SITE)


def worth_pairing(kind: str, host: str, remote_host: str) -> bool:
    """Return whether our candidate (``kind``, ``host``) should check the peer's ``remote_host``.

    A public relay cannot reach an address behind the peer's NAT, and should not be asked to:
    servers answer 403, and coturn 4.6 gives up the whole allocation when it has no route.
    """
    return kind != "relay" or is_site_local(host) or not is_site_local(remote_host)


def seen_as(local: Address, mapped: Address | None, reflexive: Iterable[Address]) -> str:
    """Return the type of the local candidate that a check left by (RFC 8445 section 7.2.5.3.1).

    ``mapped`` is where the peer saw the check come from, ``reflexive`` what STUN servers saw.
    """
    if mapped is None or mapped == local:
        return "host"
    return "srflx" if mapped in reflexive else "prflx"


def seen_behind_nat(
    ipv6: bool, reflexive: Iterable[Address], remote: Iterable[tuple[str, Address]]
) -> tuple[bool, bool]:
    """Return whether a NAT for this family of addresses stands before us, and before the peer.

    ``reflexive``: ours as STUN servers saw them, where that is not what we have ourselves;
    ``remote``: types and addresses of the peer's candidates. Of its own it may have learned
    nothing from STUN: then it is a check from an address that it never named that tells.
    """
    theirs = [(kind, host) for kind, (host, _) in remote if (":" in host) == ipv6]
    named = {host for kind, host in theirs if kind == "host"}
    return (
        any((":" in host) == ipv6 for host, _ in reflexive),
        any(kind in ("srflx", "prflx") and host not in named for kind, host in theirs),
    )
