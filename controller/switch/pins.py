"""Where each MAC is, as tincan is told: so that a quiet container is never flooded for."""

from controller.node.actions import Pin, Unpin
from controller.packets.addresses import Mac, NodeId, Vlan
from controller.switch.gateways import Gateways
from controller.switch.segment import Segment
from controller.switch.table import Binding


class Pins:
    """A MAC is pinned while it has a live binding: here, if any is here (no peer takes a MAC that
    is alive on this bridge), and otherwise at the node that said something about it last."""

    def __init__(self, segment: Segment, gateways: Gateways) -> None:
        self._segment = segment
        self._gateways = gateways
        self._pins: dict[tuple[Vlan, Mac], NodeId] = {}

    def changed(self, old: Binding | None, new: Binding) -> None:
        """``new`` has taken the place of ``old`` in the table."""
        if old is not None and old.alive and (old.mac != new.mac or not new.alive):
            self._pin(old.vlan, old.mac, None)
        if new.alive:
            self._pin(new.vlan, new.mac, new.node)

    def forgotten(self, binding: Binding) -> None:
        """``binding`` has been dropped from the table."""
        self._pin(binding.vlan, binding.mac, None)

    def _pin(self, vlan: Vlan, mac: Mac, latest: NodeId | None) -> None:
        place = (vlan, mac)
        nodes = {binding.node for binding in self._segment.table.of_mac(vlan, mac)}
        before = self._pins.get(place)
        if not nodes or mac in self._gateways.macs:
            if self._pins.pop(place, None) is not None:
                self._segment.emit(Unpin(mac, vlan))
            return
        choices = (self._segment.id, latest, before, min(nodes))
        at = next(node for node in choices if node in nodes)
        if at is not None and at != before:
            self._pins[place] = at
            self._segment.emit(Pin(mac, vlan, None if at == self._segment.id else at))
