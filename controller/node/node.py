"""What the pure rooms share: who we are, the table, who is connected, and what to do next.

A room calls ``emit`` and ``send``; ``Switch`` hands the collected actions out after each event.
"""

from collections import Counter, OrderedDict
from typing import Final

from controller.node.actions import Action, Inject, Report, Send
from controller.node.timers import Bucket, Timers
from controller.packets.addresses import Ip, Key, Mac, NodeId, link_local
from controller.packets.packets import Buildable
from controller.switch import messages as rpc
from controller.switch.table import Binding, Table

MAX_REPORTED: Final = 1024
"""Log lines remembered so as not to repeat them."""
REPEAT_REPORT_S: Final = 600.0
"""When a line that still holds may be logged again."""
REPORT_RATE: Final = 0.5
REPORT_BURST: Final = 50.0
"""Lines a second. What is new in each is the name that a container or a peer invented."""


class Core:
    """``probe_mac`` and ``probe_ip`` are the sender of this node's own questions to its bridge:
    nobody's address, so that asking changes no cache (RFC 5227 section 2.1.1)."""

    def __init__(self, node: NodeId, counters: Counter[str]) -> None:
        self.node = node
        self.counters = counters
        self.probe_mac: Mac = "0a:" + ":".join(node[i : i + 2] for i in range(0, 10, 2))
        self.probe_ip: Ip = link_local(self.probe_mac)
        self.table = Table(node)
        self.timers = Timers()
        self.peers: dict[NodeId, float] = {}
        self.names: dict[NodeId, str] = {}
        self._actions: list[Action] = []
        self._reported: OrderedDict[str, float] = OrderedDict()
        self._reports = Bucket(REPORT_RATE, REPORT_BURST)

    def emit(self, action: Action) -> None:
        self._actions.append(action)

    def inject(self, packet: Buildable) -> bool:
        """Put ``packet``, in the name of a container elsewhere, on the bridge here; return False
        if its source is alive here, too: the bridge would learn the MAC at the wrong port."""
        owners = self.table.of_mac(packet.vlan, packet.eth_src)
        if any(owner.node == self.node for owner in owners):
            self.counters["injections_refused.local_source"] += 1
            return False
        self.emit(Inject(packet))
        return True

    def send(self, peer: NodeId | None, message: rpc.Message) -> None:
        """Send to ``peer``, or to all; to nobody when there is nobody."""
        if peer in self.peers or (peer is None and self.peers):
            self._actions.append(Send(peer, message))

    def drain(self) -> list[Action]:
        """Return what has been emitted since the last call."""
        actions, self._actions = self._actions, []
        return actions

    def report(self, subject: str, text: str, now: float, level: str = "WARNING") -> None:
        """Log ``text`` unless a line about ``subject`` was logged within REPEAT_REPORT_S."""
        if now < self._reported.get(subject, float("-inf")) + REPEAT_REPORT_S:
            return
        if not self._reports.take(now):
            self.counters["reports_suppressed"] += 1
            return
        self._reported.pop(subject, None)
        self._reported[subject] = now
        if len(self._reported) > MAX_REPORTED:
            self._reported.popitem(last=False)
        self.emit(Report(level, text))

    def reachable(self, binding: Binding) -> bool:
        """Return whether the node of ``binding`` is this one or connected."""
        return binding.node == self.node or binding.node in self.peers

    def called(self, node: NodeId) -> str:
        """Return what people call a node."""
        return "this node" if node == self.node else f"node {self.names.get(node, node[:8])}"

    def is_ours(self, binding: Binding | None) -> bool:
        return binding is not None and binding.alive and binding.node == self.node


def entry(binding: Binding) -> rpc.Entry:
    """Return ``binding`` as it is told to peers."""
    vlan, ip = binding.key
    return rpc.Entry(ip, binding.mac, binding.sequence, vlan, binding.router)


def gone(binding: Binding) -> rpc.Gone:
    """Return a withdrawal as it is told to peers."""
    vlan, ip = binding.key
    return rpc.Gone(ip, binding.sequence, vlan)


def name(key: Key) -> str:
    """Return ``key`` as people read it."""
    vlan, ip = key
    return f"{ip} (VLAN {vlan})" if vlan else ip
