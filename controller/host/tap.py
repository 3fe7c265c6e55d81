"""The TAP's place on this host: in the bridge that the user named, or wherever he put it.

Follows the kernel's word: a bridge that disappears and returns gets its port back; a user who
runs ``brctl addif`` himself is noticed. Says what keeps frames from passing, with the cure.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Final

from controller.config.settings import Config
from controller.errors import SystemRefusal
from controller.host.netlink import (
    AddressChanged,
    BridgeAddressChanged,
    EntriesGone,
    EntriesUnknown,
    Link,
    LinkChanged,
    Netlink,
    RouteChanged,
)
from controller.packets.addresses import Ip, Mac, Vlan

log = logging.getLogger(__name__)

LOOK_AGAIN: Final = 10.0


class Attachment:
    """Run by ``run``. The callbacks hear what concerns others."""

    def __init__(
        self,
        config: Config,
        netlink: Netlink,
        *,
        host_addresses: Callable[[AddressChanged], None],
        bridge_addresses: Callable[[frozenset[tuple[Ip, Mac]]], None],
        routes_changed: Callable[[], None],
        ports_gone: Callable[[Collection[tuple[Mac, Vlan | None]]], None],
    ) -> None:
        self.tap: Link | None = None
        self.bridge: Link | None = None
        self.firewall: str | None = None
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

    async def prepare(self) -> None:
        """Put a new TAP in its place: silent, in its bridge if that exists, with its addresses.

        Done at once at the start, because an ARP request that comes meanwhile is only repeated
        after a second.
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
                ageing = self.bridge.ageing if self.bridge is not None else 300.0
                # A bridge that does not filter knows a MAC once, whatever its frames' tags are.
                filters = self.bridge is not None and self.bridge.untagged != 0
                gone = {
                    (e.mac, e.vlan if filters or e.vlan else None)
                    for e in event.entries
                    if e.silent_for < ageing * 0.9
                }
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
        """Look what keeps frames from passing here; log what is new, and return all of it.

        The firewall is read again every LOOK_AGAIN seconds at most, as that takes two processes;
        while it is known to drop frames, always, since somebody is about to change it.
        """
        bridge = self.bridge
        if bridge is None:
            self.firewall, self._looked = None, float("-inf")
        elif self.firewall is not None or now >= self._looked + LOOK_AGAIN:
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
        """What keeps frames from passing here, each with its cure."""
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
