"""The loop's side of the hot path: which descriptors are read, what runs when they are ready."""

from collections import Counter
from functools import partial
from typing import Generic

from tincan.device.device import Device
from tincan.pump.delivery import Delivery
from tincan.pump.egress import Egress
from tincan.pump.ingress import Ingress
from tincan.pump.loop import HotSelector
from tincan.pump.outlet import OutletT
from tincan.pump.rehearsal import Rehearsal
from tincan.record.pages import Pool
from tincan.record.port import Port
from tincan.switching.policy import Policy


class Pump(Generic[OutletT]):
    """Reads the device and every port. Owns neither.

    ``keys``: receiver index -> key, of all records that are to be opened. ``deliver`` writes a
    frame, virtio header first, to the device. ``relayed`` takes a datagram from a stream relay.
    """

    def __init__(
        self,
        device: Device,
        policy: Policy[OutletT],
        counters: Counter[str],
        selector: HotSelector,
        pool: Pool,
    ) -> None:
        delivery = Delivery(device, counters)
        policy.deliver_by(delivery.write)
        self._egress = Egress(device, policy, counters, pool)
        self._ingress = Ingress(delivery, policy, counters, pool)
        self.keys = self._ingress.keys
        self.deliver = delivery.put
        self.relayed = self._ingress.relayed
        self._rehearsal = Rehearsal(self._ingress, pool)
        self._selector = selector
        self._latest: Port | None = None  # that has delivered a frame
        self._device = device

    def start(self) -> None:
        """Begin to read the device."""
        self._selector.rehearse = self._rehearse
        self._selector.watch(self._device.fd, self._egress.wake)

    def stop(self) -> None:
        """Leave the device alone."""
        self._selector.unwatch(self._device.fd)

    def watch(self, port: Port) -> None:
        """Read a port from now on."""
        assert port.sock is not None
        self._selector.watch(port.sock.fileno(), partial(self._port_ready, port))

    def unwatch(self, port: Port) -> None:
        """Read a port no more; before its socket is closed."""
        assert port.sock is not None
        self._selector.unwatch(port.sock.fileno())
        if port is self._latest:
            self._latest = None

    def _port_ready(self, port: Port, now: float) -> bool:
        """Deliver, then look at the device at once: a container answers within our write."""
        delivered = self._ingress.wake(port, now)
        if delivered:
            self._latest = port
        return self._egress.wake(now) or delivered

    def _rehearse(self, now: float) -> None:
        """Go the way of a small frame in both directions, as far as nobody sees it."""
        self._egress.wake(now)
        self._rehearsal.run_once(now)
        if self._latest is not None:
            self._ingress.wake(self._latest, now)
