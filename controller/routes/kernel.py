"""The client that installs received routes in the kernel.

Each VNI is mapped to a route table. A destination becomes a route of protocol 254 through the
tunnel device, which puts an IPv6 header to the next hop around each packet; several next hops are
one multipath route. Routes of this protocol in the mapped tables are this client's: those of an
earlier life are removed at start. Nothing else is touched.
"""

import asyncio
import ipaddress
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Protocol

from controller.errors import SystemRefusal
from controller.routes.values import Destination, Network, NextHop, Vni

PROTO: Final = 254
"""METALBOND_RT_PROTO of the Go package."""
RETRY_S: Final = 5.0
"""What the kernel refused is tried again after this time, and the device is looked at."""

log = logging.getLogger(__name__)


class Device(Protocol):
    """What is wanted of an interface."""

    @property
    def index(self) -> int:
        """The number of the interface."""


class Kernel(Protocol):
    """What is wanted of the kernel: see controller.host.netlink. Each may raise SystemRefusal."""

    async def link(self, which: str) -> Device | None:
        """Return the interface of this name."""

    async def replace_route(
        self,
        network: Network,
        table: int,
        proto: int,
        device: int,
        targets: Sequence[ipaddress.IPv6Address],
    ) -> None:
        """Route the network through the device to the targets, whatever it was before."""

    async def delete_route(self, network: Network, table: int, proto: int) -> None:
        """Remove the route to the network, if there is one."""

    async def routed_networks(self, table: int, proto: int) -> list[Network]:
        """Return the networks to which the table has routes of this protocol."""


@dataclass(frozen=True, slots=True)
class NetlinkClientConfig:
    """Which routes go where. ``vni_tables`` has the table of each VNI."""

    vni_tables: dict[Vni, int]
    link_name: str
    ipv4_only: bool = False


@dataclass(slots=True)
class _Wanted:
    """The next hops of one network in one table, and how many the kernel has."""

    hops: set[tuple[Vni, Destination, NextHop]] = field(default_factory=set)
    there: int = 0

    def targets(self) -> list[ipaddress.IPv6Address]:
        """Return the addresses of the next hops in order, each once."""
        return [ipaddress.IPv6Address(a) for a in sorted({hop.address for _, _, hop in self.hops})]


class NetlinkClient:
    """A Client (see clients). Enter it before the MetalBond that uses it.

    The kernel is changed by a task, so that a burst of changes of one destination is one change.
    Leaving it removes what it has installed; `cleanup` removes all that is in its name.
    """

    def __init__(self, config: NetlinkClientConfig, kernel: Kernel) -> None:
        self._config = config
        self._kernel = kernel
        self._wanted: dict[tuple[int, Network], _Wanted] = {}
        self._dirty: dict[tuple[int, Network], None] = {}
        self._changed = asyncio.Event()
        self._device = 0
        self.skipped = 0
        self.refused = 0

    async def __aenter__(self) -> "NetlinkClient":
        device = await self._kernel.link(self._config.link_name)
        if device is None:
            raise SystemRefusal(
                f"there is no tunnel device {self._config.link_name}",
                f"ip link add {self._config.link_name or 'overlay-tun'} type ip6tnl mode any"
                " external, and set it up",
            )
        self._device = device.index
        await self.cleanup()
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        for (table, network), wanted in self._wanted.items():
            if wanted.there:
                try:
                    await self._kernel.delete_route(network, table, PROTO)
                except SystemRefusal as refusal:
                    log.error("%s", refusal)

    # --- Client

    def add_route(self, vni: Vni, destination: Destination, hop: NextHop) -> None:
        """Install a next hop of the destination soon."""
        key = self._key(vni, destination, hop)
        if key is not None:
            self._wanted.setdefault(key, _Wanted()).hops.add((vni, destination, hop))
            self._touch(key)

    def remove_route(self, vni: Vni, destination: Destination, hop: NextHop) -> None:
        """Remove a next hop of the destination soon."""
        key = self._key(vni, destination, hop)
        if key is not None and key in self._wanted:
            self._wanted[key].hops.discard((vni, destination, hop))
            self._touch(key)

    async def cleanup(self) -> None:
        """Remove all routes of this protocol from the mapped tables."""
        for table in sorted(set(self._config.vni_tables.values())):
            for network in await self._kernel.routed_networks(table, PROTO):
                await self._kernel.delete_route(network, table, PROTO)

    # --- inside

    def _key(self, vni: Vni, destination: Destination, hop: NextHop) -> tuple[int, Network] | None:
        table = self._config.vni_tables.get(vni)
        unwanted = self._config.ipv4_only and len(destination.address) != 4
        if table is None or unwanted or len(hop.address) != 16:
            self.skipped += 1
            log.debug("VNI %d: %s via %s is not for the kernel", vni, destination, hop)
            return None
        return table, destination.network

    def _touch(self, key: tuple[int, Network]) -> None:
        self._dirty[key] = None
        self._changed.set()

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), RETRY_S)
            if not self._changed.is_set():
                await self._look_at_device()
            self._changed.clear()
            again: dict[tuple[int, Network], None] = {}
            while self._dirty:
                key = next(iter(self._dirty))
                del self._dirty[key]
                try:
                    await self._apply(key)
                except SystemRefusal as refusal:
                    self.refused += 1
                    log.error("%s; trying again", refusal)
                    again[key] = None
            self._dirty = again

    async def _apply(self, key: tuple[int, Network]) -> None:
        table, network = key
        wanted = self._wanted[key]
        targets = wanted.targets()
        # IPv6 does not replace a multipath route by a single one, nor the other way round.
        other_form = network.version == 6 and (wanted.there > 1) != (len(targets) > 1)
        if wanted.there and (not targets or other_form):
            await self._kernel.delete_route(network, table, PROTO)
            wanted.there = 0
        if targets:
            await self._kernel.replace_route(network, table, PROTO, self._device, targets)
            wanted.there = len(targets)
        elif not wanted.hops:
            del self._wanted[key]

    async def _look_at_device(self) -> None:
        """Install everything again if the device is another one of the same name."""
        device = await self._kernel.link(self._config.link_name)
        if device is not None and device.index != self._device:
            log.warning("%s is another device now: installing again", self._config.link_name)
            self._device = device.index
            self._dirty.update(dict.fromkeys(self._wanted))
