"""Anycast gateways: bridge addresses that several hosts have, each its own.

Stock lxc-net gives every host's bridge 10.0.3.1 and 00:16:3e:00:00:00. While two nodes report the
same address or MAC as their bridge's, it belongs to nobody in the overlay: no frame from or about
it crosses. An unshared bridge address is an ordinary binding of its node. What a peer may not claim
it cannot share either, or it could silence a container of others; but for what this host's own
bridge has, too.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from controller.node.actions import NeverForward
from controller.packets.addresses import Ip, Mac, NodeId, link_local, usable_ip, usable_mac
from controller.switch import messages as rpc
from controller.switch.policy import Policy
from controller.switch.segment import Segment

LINGER_S: Final = 900.0
"""How long a lost peer's report counts: a link that flaps must not make its gateway ordinary."""


class Gateways:
    """``macs`` and ``ips``: what is shared. ``own``: the addresses of this host's bridge, with
    ``own_macs`` and ``own_ips``."""

    def __init__(self, segment: Segment, policy: Policy) -> None:
        self._segment = segment
        self._policy = policy
        self._reports: dict[NodeId, frozenset[tuple[Ip, Mac]]] = {}
        self.macs: frozenset[Mac] = frozenset()
        self.ips: frozenset[Ip] = frozenset()
        self.own: frozenset[tuple[Ip, Mac]] = frozenset()
        self.own_macs: frozenset[Mac] = frozenset()
        self.own_ips: frozenset[Ip] = frozenset()

    def message(self) -> rpc.Gateways:
        addresses = sorted(self.own)[: rpc.MAX_ADDRESSES]
        return rpc.Gateways([rpc.Address(ip, mac) for ip, mac in addresses])

    def shared(self) -> list[dict[str, Any]]:
        """Return ip, mac and nodes of each shared address, for people."""
        found: dict[tuple[Ip, Mac], list[NodeId]] = {}
        for node, report in self._reports.items():
            for ip, mac in report:
                if ip in self.ips:
                    found.setdefault((ip, mac), []).append(node)
        return [{"ip": ip, "mac": mac, "nodes": nodes} for (ip, mac), nodes in found.items()]

    def report(self, node: NodeId, addresses: Iterable[tuple[Ip, Mac]]) -> bool:
        """``node`` has these bridge addresses and no others; return whether that changed what is
        shared."""
        report = frozenset((ip, mac) for ip, mac in addresses if usable_ip(ip) and usable_mac(mac))
        if report == self._reports.get(node, frozenset()):
            return False
        self._reports[node] = report
        if node == self._segment.id:
            self.own = report
            self.own_ips = frozenset(ip for ip, _ in report)
            self.own_macs = frozenset(mac for _, mac in report)
        return self.review()

    def forget(self, node: NodeId) -> bool:
        """``node`` has been gone for long; return whether that changed what is shared."""
        self._reports.pop(node, None)
        return self.review()

    def review(self) -> bool:
        """Find out what is shared, also after a peer was named; return whether that changed."""
        reports = [self._allowed(node, report) for node, report in self._reports.items()]
        # A node counts once for an address, whatever number of MACs it has it with.
        ips = Counter(ip for r in reports for ip in {ip for ip, _ in r})
        macs = Counter(mac for r in reports for mac in {mac for _, mac in r})
        shared_ips = {ip for ip, count in ips.items() if count > 1}
        shared_macs = {mac for mac, count in macs.items() if count > 1}
        pairs = [pair for report in reports for pair in report]
        # Two bridges with one address and two MACs, or the reverse: an answer from either would
        # be taken for the other's, so all that hangs on a shared name is shared.
        shared_macs |= {mac for ip, mac in pairs if ip in shared_ips}
        shared_ips |= {ip for ip, mac in pairs if mac in shared_macs}
        shared_ips |= {link_local(mac) for mac in shared_macs}
        if shared_ips == self.ips and shared_macs == self.macs:
            return False
        self.ips, self.macs = frozenset(shared_ips), frozenset(shared_macs)
        self._segment.emit(NeverForward(self.macs, self.ips))
        return True

    def _allowed(self, node: NodeId, report: frozenset[tuple[Ip, Mac]]) -> list[tuple[Ip, Mac]]:
        return [
            (ip, mac)
            for ip, mac in report
            if node == self._segment.id
            or ip in self.own_ips
            or not self._policy.refusal(node, (0, ip), mac)
        ]
