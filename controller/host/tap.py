"""The TAP's place on this host: the bridge that the user named, or wherever the user put it.

The placement follows the kernel's events: a bridge that disappears and returns gets its port back,
and a user who runs ``brctl addif`` is noticed. It reports what keeps frames from passing, with
the cure.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection
from typing import Final, Protocol

from controller.config.settings import Config
from controller.errors import SystemRefusal
from controller.host.interfaces import (
    AddressChanged,
    BridgeAddressChanged,
    EntriesGone,
    EntriesUnknown,
    Event,
    Link,
    LinkChanged,
    RouteChanged,
)
from controller.packets.addresses import Ip, Mac, Vlan

log = logging.getLogger(__name__)

LOOK_AGAIN_S: Final = 10.0
"""Shortest time between two looks at the firewall, which take two processes each."""
DEFAULT_AGEING_S: Final = 300.0
"""The ageing time of a bridge that nobody configured (IEEE 802.1D table 7-5)."""
AGED_OUT: Final = 0.9
"""The part of the ageing time after which a silent entry counts as aged out."""


class Host(Protocol):
    """The part of ``netlink.Netlink`` that a placement needs. Every method raises SystemRefusal."""

    async def link(self, which: str | int) -> Link | None:
        """Return the interface of this name or index."""

    async def bridge_addresses(self, bridge: Link) -> frozenset[tuple[Ip, Mac]]:
        """Return the addresses of ``bridge``."""

    async def bridge_nf_drops(self, bridge: Link) -> str | None:
        """Return one line if the firewall drops what ``bridge`` forwards."""

    async def attach(self, tap: str, bridge: str) -> Link:
        """Make the TAP a port of ``bridge``; return the TAP."""

    async def forget_entries(self, bridge: Link) -> None:
        """Have ``bridge`` forget what it has learned."""

    async def silence(self, tap: str) -> None:
        """Give the TAP no link-local address."""

    async def become_multicast_router(self, tap: str) -> None:
        """Have the bridge send the TAP all multicast."""

    async def set_up(self, tap: str, up: bool = True) -> None:
        """Bring the TAP up, or down."""

    async def set_addresses(self, tap: str, wanted: Collection[str]) -> bool:
        """Give the TAP these addresses."""

    def watch(
        self, tap: str, bridge: str | None = None, ignore: Collection[str] = ()
    ) -> AsyncIterator[Event]:
        """Yield the state of now and every change of it."""


class TapPlacement:
    """Puts the TAP in its place and keeps it there.

    Call ``prepare`` for each new TAP, then keep ``run`` running. Each callback is called from
    there, in the event loop: ``host_addresses`` with this host's addresses, ``bridge_addresses``
    with those of the TAP's bridge, ``routes_changed`` when the default routes are others,
    ``ports_gone`` with the MACs whose ports the bridge has lost (a VLAN that is None: in all).
    """

    def __init__(
        self,
        config: Config,
        netlink: Host,
        *,
        host_addresses: Callable[[AddressChanged], None],
        bridge_addresses: Callable[[frozenset[tuple[Ip, Mac]]], None],
        routes_changed: Callable[[], None],
        ports_gone: Callable[[Collection[tuple[Mac, Vlan | None]]], None],
    ) -> None:
        self.tap: Link | None = None
        """The TAP, None if it does not exist."""
        self.bridge: Link | None = None
        """The bridge that the TAP is in."""
        self.firewall: str | None = None
        """One line if the firewall drops what the bridge forwards."""
        self._config = config
        self._netlink = netlink
        self._host_addresses = host_addresses
        self._bridge_addresses = bridge_addresses
        self._routes_changed = routes_changed
        self._ports_gone = ports_gone
        self._looked = float("-inf")
        self._told: set[str] = set()
        self._routes: object = None
        self._configured: Link | None = None  # the bridge of that name, whoever is in it
        self._refused: str | None = None  # why the TAP is not in it

    @property
    def state(self) -> str:
        """``absent``, ``down``, ``up``, or the spanning tree state of a bridge's port."""
        if self.tap is None:
            return "absent"
        if not self.tap.up:
            return "down"
        return self.tap.port_state or "up"

    @property
    def bridge_name(self) -> str | None:
        """The name of the bridge that the TAP is in."""
        return None if self.bridge is None else self.bridge.name

    async def prepare(self) -> None:
        """Put a new TAP in its place: silent, in its bridge if that exists, with its addresses.

        Call this as soon as there is a TAP: an ARP request that comes before is repeated only
        after a second. Raises SystemRefusal.
        """
        tap, config = self._config.tap, self._config
        await self._netlink.silence(tap)
        if config.bridge is not None:
            self._configured = await self._netlink.link(config.bridge)
        self.tap = await self._netlink.link(tap)
        if self.tap is not None and self.tap.master is not None:
            self.bridge = await self._netlink.link(self.tap.master)
        else:
            self.bridge = None
            await self._attach(self._configured)
        if self.bridge is not None:
            self._bridge_addresses(await self._netlink.bridge_addresses(self.bridge))
        else:
            await self._netlink.set_up(tap)
        await self._give_addresses()

    async def run(self) -> None:
        """Follow what happens to the TAP, the bridge and this host's addresses."""
        config = self._config
        async for event in self._netlink.watch(
            config.tap, config.bridge, config.network_ignore_list
        ):
            if isinstance(event, LinkChanged):
                await self._links_changed(event)
            elif isinstance(event, AddressChanged):
                self._host_addresses(event)
            elif isinstance(event, BridgeAddressChanged):
                self._bridge_addresses(event.addresses)
            elif isinstance(event, RouteChanged):
                if self._routes is not None and event.default != self._routes:
                    self._routes_changed()
                self._routes = event.default
            elif isinstance(event, EntriesGone):
                gone = moved_away(event, self.bridge)
                if gone:
                    self._ports_gone(gone)
            elif isinstance(event, EntriesUnknown):
                continue

    async def _links_changed(self, event: LinkChanged) -> None:
        before, self.tap, self.bridge = self.bridge, event.tap, event.bridge
        self._configured = event.configured
        if event.tap is None:
            return
        if event.bridge is None:
            await self._attach(event.configured)
        elif before is None or before.index != event.bridge.index:  # the user's doing
            log.info("TAP %s is in bridge %s", event.tap.name, event.bridge.name)
            try:
                await self._netlink.become_multicast_router(event.tap.name)
                await self._netlink.silence(event.tap.name)
                if not event.tap.up:
                    await self._netlink.set_up(event.tap.name)
            except SystemRefusal as error:
                log.warning("TAP %s: %s", event.tap.name, error)
        await self._give_addresses()
        await self.check(asyncio.get_running_loop().time())

    async def _attach(self, bridge: Link | None) -> None:
        if bridge is None:
            return
        try:
            self.tap = await self._netlink.attach(self._config.tap, bridge.name)
        except SystemRefusal as error:
            self._refused = str(error)
            return
        self._refused = None
        if self.bridge is None:
            log.info("TAP %s is in bridge %s", self._config.tap, bridge.name)
        self.bridge = bridge

    async def check(self, now: float) -> list[str]:
        """Look for what keeps frames from passing here; log what is new, and return all of it.

        The firewall is read at most once in LOOK_AGAIN_S, but always while it is known to drop
        frames, since somebody is about to change it. ``now`` is monotonic.
        """
        bridge = self.bridge
        if bridge is None:
            self.firewall, self._looked = None, float("-inf")
        elif self.firewall is not None or now >= self._looked + LOOK_AGAIN_S:
            self._looked = now
            self.firewall = await self._netlink.bridge_nf_drops(bridge)
        warnings = self.warnings()
        for warning in warnings:
            if warning not in self._told:
                self._told.add(warning)
                log.warning("%s", warning)
        return warnings

    async def forget_entries(self) -> None:
        """Have the bridge learn anew where everybody is."""
        if self.bridge is not None:
            try:
                await self._netlink.forget_entries(self.bridge)
            except SystemRefusal as error:
                log.warning("%s", error)

    async def _give_addresses(self) -> None:
        config = self._config
        wanted = [str(address) for address in (config.ip4, config.ip6) if address is not None]
        if wanted:
            try:
                await self._netlink.set_addresses(config.tap, wanted)
            except SystemRefusal as error:
                log.warning("TAP %s: %s", config.tap, error)

    def warnings(self) -> list[str]:
        """Return what keeps frames from passing here, as far as it is known, each with its cure."""
        found = []
        config = self._config
        if self.firewall is not None:
            found.append(self.firewall)
        if config.bridge is not None and self.tap is not None and self.bridge is None:
            if self._configured is None:
                found.append(
                    f"bridge {config.bridge} does not exist: create it, the TAP joins by itself"
                )
            elif self._refused is not None:
                found.append(
                    f"TAP {config.tap} stays out of bridge {config.bridge}: {self._refused}"
                )
        tap = self.tap
        if tap is not None and tap.port_state in ("listening", "learning") and self.bridge:
            seconds = 2 * self.bridge.forward_delay
            found.append(
                f"the bridge holds TAP {tap.name} in {tap.port_state} for spanning tree's "
                f"{seconds:.0f} s: wait, or brctl setfd {self.bridge.name} 0"
            )
        return found


def moved_away(event: EntriesGone, bridge: Link | None) -> set[tuple[Mac, Vlan | None]]:
    """Return the MACs whose port went away or that moved, of the entries that ``bridge`` lost.

    Entries that aged out are left out. The VLAN is None where the bridge does not filter VLANs: it
    knows a MAC once, whatever the tags of its frames are.
    """
    ageing = bridge.ageing if bridge is not None else DEFAULT_AGEING_S
    filters = bridge is not None and bridge.untagged != 0
    return {
        (entry.mac, entry.vlan if filters or entry.vlan else None)
        for entry in event.entries
        if entry.silent_for < ageing * AGED_OUT
    }
