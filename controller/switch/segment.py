"""What all parts of switch mode share: the node, the table, and the way to the bridge."""

from collections import Counter

from controller.node.actions import Inject
from controller.node.node import Node
from controller.node.timers import Timers
from controller.packets.addresses import Ip, Mac, NodeId, link_local
from controller.packets.packets import Buildable
from controller.switch.table import Binding, Table


class Segment(Node):
    """The segment as this node sees it.

    ``probe_mac`` and ``probe_ip`` are the sender of this node's own questions to its bridge:
    nobody's address, so that asking changes no cache (RFC 5227 section 2.1.1).
    """

    def __init__(self, id: NodeId, counters: Counter[str]) -> None:
        super().__init__(id, counters)
        self.table = Table(id)
        self.timers = Timers()
        self.probe_mac: Mac = "0a:" + ":".join(id[i : i + 2] for i in range(0, 10, 2))
        self.probe_ip: Ip = link_local(self.probe_mac)

    def inject(self, packet: Buildable) -> bool:
        """Put ``packet``, in the name of a container elsewhere, on the bridge here.

        Return False if its source is alive here, too: the bridge would learn the MAC at the
        wrong port.
        """
        owners = self.table.of_mac(packet.vlan, packet.eth_src)
        if any(owner.node == self.id for owner in owners):
            self.counters["injections_refused.local_source"] += 1
            return False
        self.emit(Inject(packet))
        return True

    def reachable(self, binding: Binding) -> bool:
        """Return whether the node of ``binding`` is this one or connected."""
        return binding.node == self.id or binding.node in self.peers

    def is_ours(self, binding: Binding | None) -> bool:
        """Return whether ``binding`` is a live one of this node."""
        return binding is not None and binding.alive and binding.node == self.id
