"""The sentences that explain a link's path to people. Pure."""

import ipaddress
from typing import Final

_LAN: Final = [
    ipaddress.ip_network(prefix)
    for prefix in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "fc00::/7",
        "fe80::/10",
    )
]
"""Networks that are local to a site or a link (RFC 1918, RFC 3927, RFC 4193, RFC 4291)."""


def explain_path(
    local: str,
    remote: str,
    address: str,
    *,
    behind_nat: bool | None = None,
    peer_behind_nat: bool | None = None,
) -> str:
    """Return in one line what kind of path a link has, and why not a better one.

    Takes the ICE candidate types of both ends and the ``host:port`` where datagrams go.
    ``behind_nat`` and ``peer_behind_nat`` tell what the exchanged candidates say about NATs.
    Without them the types decide, which know less: an ICE agent calls its own end ``host`` in
    most pairs.
    """
    host = address.rpartition(":")[0].strip("[]")
    if "relay" in (local, remote):
        return f"relayed by {host}: no direct path found"
    if local == remote == "host" and _on_lan(host):
        return "same LAN"
    here = local in ("srflx", "prflx") if behind_nat is None else behind_nat
    there = remote in ("srflx", "prflx") if peer_behind_nat is None else peer_behind_nat
    if here and there:
        return "direct, both behind NAT"
    if here or there:
        return f"direct, {'this node' if here else 'peer'} behind NAT"
    return "direct, no NAT between"


def _on_lan(host: str) -> bool:
    """Return whether ``host`` is an address of a local network."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in _LAN)
