"""Who may have what: static bindings, prefixes that a peer is limited to, names pinned to ids.

A name in the config means the node id that first came with it; a second id with that name is
refused whatever it says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address

from controller.bindings import Key
from controller.model import Ip, Mac, NodeId, Vlan

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Static:
    """``ip`` is at ``mac`` at ``node`` (a name or an id), and nowhere else."""

    ip: Ip
    mac: Mac
    node: str
    vlan: Vlan = 0


def is_id(text: str) -> bool:
    return len(text) == 64 and all(c in "0123456789abcdef" for c in text)


@dataclass(slots=True)
class Policy:
    """``allow``: by a peer's name or id, the prefixes that its addresses must be in; a peer that
    is not mentioned may have any. ``names``: pins from earlier runs; grows by ``pin``."""

    static: Sequence[Static] = ()
    allow: Mapping[str, Sequence[Network]] = field(default_factory=dict)
    names: dict[str, NodeId] = field(default_factory=dict)
    refused: set[NodeId] = field(default_factory=set)
    _static: dict[Key, Static] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._static = {(s.vlan, s.ip): s for s in self.static}

    @property
    def mentioned(self) -> frozenset[str]:
        """The names that the config means somebody by."""
        named = {s.node for s in self.static} | set(self.allow)
        return frozenset(name for name in named if not is_id(name))

    def pin(self, name: str, node: NodeId) -> bool:
        """Note that ``node`` calls itself ``name``; return whether it may.

        Only names that the config mentions are pinned, so the pins are as bounded as the config.
        """
        if name not in self.mentioned:
            return True
        if self.names.setdefault(name, node) == node:
            self.refused.discard(node)
            return True
        self.refused.add(node)
        return False

    def _node(self, name: str) -> NodeId | None:
        return name if is_id(name) else self.names.get(name)

    def is_static(self, key: Key) -> bool:
        return key in self._static

    def refusal(self, node: NodeId, key: Key, mac: Mac) -> str:
        """Return why ``node`` may not have ``key`` at ``mac`` (a counter's name), or nothing."""
        if node in self.refused:
            return "name_taken"
        static = self._static.get(key)
        if static is not None and (static.mac != mac or self._node(static.node) != node):
            return "static"
        for name, prefixes in self.allow.items():
            if self._node(name) == node:
                address = ip_address(key[1])
                link_local = address.version == 6 and address.is_link_local
                if not link_local and not any(address in prefix for prefix in prefixes):
                    return "not_allowed"
        return ""
