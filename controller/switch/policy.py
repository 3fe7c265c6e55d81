"""Who may have what: static bindings, prefixes that a peer is limited to, names pinned to ids.

A name in the config means the node id that first came with it; a second id with that name is
refused whatever it says.
"""

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address

from controller.packets.addresses import NODE_ID, Ip, Key, Mac, NodeId, StaticBinding

Network = IPv4Network | IPv6Network


def is_link_local(ip: Ip) -> bool:
    return ip.startswith("fe") and ip_address(ip).is_link_local


def is_id(text: str) -> bool:
    """Return whether ``text`` is a node id, and so no name."""
    return NODE_ID.fullmatch(text) is not None


class Prefixes:
    """A set of networks; looking an address up takes as many steps as there are lengths."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks: dict[tuple[int, int], set[int]] = {}
        for network in networks:
            place = (network.version, network.prefixlen)
            self._networks.setdefault(place, set()).add(int(network.network_address))

    def __contains__(self, ip: Ip) -> bool:
        address = ip_address(ip)
        number, bits = int(address), address.max_prefixlen
        return any(
            number >> bits - length << bits - length in networks
            for (version, length), networks in self._networks.items()
            if version == address.version
        )


class Policy:
    """``allow``: by a peer's name or id, the prefixes that its addresses must be in; a peer that
    is not mentioned may have any. ``names``: pins from earlier runs; grows by ``pin``."""

    def __init__(
        self,
        static: Iterable[StaticBinding] = (),
        allow: Mapping[str, Iterable[Network]] | None = None,
        names: Mapping[str, NodeId] | None = None,
    ) -> None:
        self._static = {(s.vlan, s.ip): s for s in static}
        self._allow = {who: Prefixes(networks) for who, networks in (allow or {}).items()}
        mentioned = {s.node for s in self._static.values()} | set(self._allow)
        self._mentioned = {who for who in mentioned if not is_id(who)}
        self._called: dict[NodeId, str] = {}
        self.names: dict[str, NodeId] = {}
        self.refused: set[NodeId] = set()
        for name, node in (names or {}).items():
            self.pin(name, node)

    def pin(self, name: str, node: NodeId) -> bool:
        """Note that ``node`` calls itself ``name``; return whether it may.

        Only names that the config mentions are pinned, so the pins are as bounded as the config.
        """
        if name not in self._mentioned:
            return True
        if self.names.setdefault(name, node) != node:
            self.refused.add(node)
            return False
        self.refused.discard(node)
        self._called[node] = name
        return True

    def is_static(self, key: Key) -> bool:
        return key in self._static

    def refusal(self, node: NodeId, key: Key, mac: Mac) -> str:
        """Return why ``node`` may not have ``key`` at ``mac`` (a counter's name), or nothing."""
        if node in self.refused:
            return "name_taken"
        name = self._called.get(node, node)
        static = self._static.get(key)
        if static is not None and (static.mac != mac or static.node not in (node, name)):
            return "static"
        for who in (node, name):
            prefixes = self._allow.get(who)
            # A link-local address says nothing about where its owner may be.
            if prefixes is not None and not is_link_local(key[1]) and key[1] not in prefixes:
                return "not_allowed"
        return ""
