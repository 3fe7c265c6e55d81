"""The state that every service of this node shares: its id, its peers, and what to do next."""

from collections import Counter, OrderedDict
from typing import Final

from controller.node.actions import Action, Report, Send
from controller.node.messages import PeerMessage
from controller.node.rates import Bucket
from controller.packets.addresses import NodeId

MAX_REPORTED: Final = 1024
"""Subjects of log lines that are remembered so as not to repeat them."""
REPEAT_REPORT_S: Final = 600.0
"""The time after which a line that still holds may be logged again."""
REPORT_RATE: Final = 0.5
REPORT_BURST: Final = 50.0
"""Log lines a second. Each may be new, since containers and peers invent the names in them."""


class Node:
    """This node, as its services see it.

    ``id`` is its own id; ``counters`` are raised by name; ``peers`` holds the linked peers with
    the time since when; ``names`` holds what peers call themselves. Services ``emit`` actions,
    and end every event with ``drain``, which is what they return.
    """

    def __init__(self, id: NodeId, counters: Counter[str]) -> None:
        self.id = id
        self.counters = counters
        self.peers: dict[NodeId, float] = {}
        self.names: dict[NodeId, str] = {}
        self._actions: list[Action] = []
        self._reported: OrderedDict[str, float] = OrderedDict()
        self._reports = Bucket(REPORT_RATE, REPORT_BURST)

    def emit(self, action: Action) -> None:
        """Ask for ``action``, after those that were asked for before."""
        self._actions.append(action)

    def send(self, peer: NodeId | None, message: PeerMessage) -> None:
        """Send ``message`` to ``peer``, or to all when None; to nobody when there is no link."""
        if peer in self.peers or (peer is None and self.peers):
            self._actions.append(Send(peer, message))

    def drain(self) -> list[Action]:
        """Return the actions that were emitted since the last call."""
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

    def display_name(self, node: NodeId) -> str:
        """Return what people call ``node``, within a sentence."""
        return "this node" if node == self.id else f"node {self.names.get(node, node[:8])}"
