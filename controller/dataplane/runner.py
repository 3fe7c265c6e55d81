"""ARP and ND between the bridge and the peers: the pure ``Switch``, fed and obeyed.

Captured packets, peers' messages and time go in; what comes out is injected, sent, pinned or
logged, in that order of arrival and without waiting for anything.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final

from controller.dataplane.client import Tunnel
from controller.errors import RpcError
from controller.node.actions import Action, Inject, NeverForward, Pin, Report, Send, Unpin
from controller.node.messages import Decoder, encode, tag_of
from controller.packets.addresses import Ip, Mac, NodeId, Vlan
from controller.packets.encode import build
from controller.packets.packets import Captured
from controller.switch.switch import Switch
from tincan.control import messages as api

log = logging.getLogger(__name__)

MAX_PINS: Final = 500
"""In one message; an entry takes about 110 bytes."""


class Proxy:
    """Runs the switch. ``gateways_changed`` hears the MACs of shared gateways."""

    def __init__(
        self,
        switch: Switch,
        tunnel: Tunnel,
        channel: int,
        counters: Counter[str],
        never_forward: Callable[[frozenset[Mac], frozenset[Ip]], None],
    ) -> None:
        self.switch = switch
        self._tunnel = tunnel
        self._channel = channel
        self._counters = counters
        self._never_forward = never_forward
        self._decoder = Decoder(switch.messages)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._pins: dict[tuple[Mac, Vlan], NodeId | None] = {}
        self._addresses: frozenset[tuple[Ip, Mac]] = frozenset()
        self._blocked = False

    # --- in

    def captured(self, packet: Captured) -> None:
        if self._blocked:
            self._counters["frames_dropped.loop_blocked"] += 1
            return
        self._do(self.switch.captured(packet, self._loop.time()))

    def received(self, event: api.IccReceived) -> None:
        """Take a message of a peer's controller."""
        if event.channel != self._channel:
            self._counters["rpc_dropped.channel"] += 1
            return
        try:
            message = self._decoder.decode(event.payload)
        except RpcError as error:
            self._counters[f"rpc_dropped.{error.reason}"] += 1
            return
        self._counters[f"rpc_received.{tag_of(type(message))}"] += 1
        self._do(self.switch.received(event.peer, message, self._loop.time()))

    def peer_up(self, peer: NodeId) -> None:
        self._do(self.switch.peer_up(peer, self._loop.time()))

    def named(self, peer: NodeId, name: str) -> None:
        self._do(self.switch.named(peer, name, self._loop.time()))

    def peer_down(self, peer: NodeId) -> None:
        self._do(self.switch.peer_down(peer, self._loop.time()))

    def mac_claimed(self, event: api.MacClaimed) -> None:
        self._do(self.switch.mac_claimed(event.mac, event.vlan, event.at, self._loop.time()))

    def ports_gone(self, entries: Collection[tuple[Mac, Vlan | None]]) -> None:
        """The bridge has lost these; a VLAN that is None means all."""
        if self._blocked:
            return
        now = self._loop.time()
        here = self._here() if any(vlan is None for _, vlan in entries) else set()
        for mac, vlan in entries:
            vlans = [vlan] if vlan is not None else [v for m, v in here if m == mac] or [0]
            for each in vlans:
                self._do(self.switch.local_port_gone(mac, each, now))

    def _here(self) -> set[tuple[Mac, Vlan]]:
        """Who is known to be behind the TAP."""
        bindings = self.snapshot()["bindings"]
        return {(b["mac"], b["vlan"]) for b in bindings if b["at"] == "local"}

    def bridge_addresses(self, addresses: frozenset[tuple[Ip, Mac]]) -> None:
        self._addresses = addresses
        if not self._blocked:
            self._do(self.switch.bridge_addresses(addresses, self._loop.time()))

    def segment_changed(self, blocked: bool) -> None:
        """The bridge is on another segment than before: who is behind the TAP must show anew.

        While it is blocked, nobody is: another node answers for its segment.
        """
        now = self._loop.time()
        for mac, vlan in self._here():
            self._do(self.switch.local_port_gone(mac, vlan, now))
        self._blocked = blocked
        addresses = frozenset() if blocked else self._addresses
        self._do(self.switch.bridge_addresses(addresses, now))

    def clear(self, ip: Ip) -> None:
        self._do(self.switch.clear(ip, self._loop.time()))

    def snapshot(self) -> dict[str, Any]:
        """What the switch knows, see ``Switch.snapshot``."""
        return self.switch.snapshot(self._loop.time())

    # --- out

    def _do(self, actions: Iterable[Action]) -> None:
        pins: list[api.PinEntry] = []
        unpins: list[api.PinEntry] = []
        for action in actions:
            if isinstance(action, Inject):
                if self._blocked:
                    self._counters["frames_dropped.loop_blocked"] += 1
                    continue
                self._tunnel.notify("inject", api.Frame(build(action.packet)))
            elif isinstance(action, Send):
                payload = encode(action.message)
                self._counters[f"rpc_sent.{tag_of(type(action.message))}"] += 1
                self._tunnel.notify("icc", api.Icc(action.peer, self._channel, payload))
            elif isinstance(action, Pin):
                self._pins[action.mac, action.vlan] = action.at
                pins.append(api.PinEntry(action.mac, action.vlan, action.at))
            elif isinstance(action, Unpin):
                self._pins.pop((action.mac, action.vlan), None)
                unpins.append(api.PinEntry(action.mac, action.vlan))
            elif isinstance(action, NeverForward):
                self._never_forward(action.macs, action.ips)
            elif isinstance(action, Report):
                log.log(logging.getLevelName(action.level), "%s", action.text)
        self._tell("unpin", unpins)
        self._tell("pin", pins)
        self._arm()

    def _tell(self, method: str, entries: list[api.PinEntry]) -> None:
        for start in range(0, len(entries), MAX_PINS):
            self._tunnel.notify(method, api.Pins(entries[start : start + MAX_PINS]))

    def push_pins(self) -> None:
        """Tell a tincan that is new to us every pin, and make it forget all others."""
        self._tunnel.notify("pin", api.Pins([], replace=True))
        entries = [api.PinEntry(mac, vlan, at) for (mac, vlan), at in self._pins.items()]
        self._tell("pin", entries)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self.switch.deadline
        if deadline != float("inf"):
            self._timer = self._loop.call_at(deadline, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._do(self.switch.tick(self._loop.time()))

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
