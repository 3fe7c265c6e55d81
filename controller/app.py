"""The composition of a controller: its parts, who calls whom, and the order of start and end.

The start: directory and key, netlink, tincan (started or taken over), the TAP in its bridge, the
capture, signalling, links, bindings. The end goes the other way round.
"""

import asyncio
import contextlib
import hashlib
import logging
import random
import subprocess
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any, Final

from controller.config.endpoint import STUN_PORT, Endpoint
from controller.config.settings import Config
from controller.dataplane.client import Tunnel
from controller.dataplane.runner import Proxy
from controller.errors import SystemRefusal
from controller.host.capture import Capture
from controller.host.interfaces import AddressChanged
from controller.host.netlink import Netlink
from controller.host.node_key import KnownPeers
from controller.host.resolver import DaemonThreads
from controller.host.tap import TapPlacement
from controller.links.negotiator import Mesh
from controller.loops.guard import Guard
from controller.node.counters import new_counters
from controller.operator.report import Reporter, Sources
from controller.operator.server import ControlServer
from controller.packets.addresses import Ip, Mac, NodeId
from controller.packets.packets import Captured
from controller.signal.keys import NetworkKeys
from controller.stopping import run_until, stop_requested
from controller.switch.policy import Policy
from controller.switch.switch import Switch
from controller.version import version
from tincan.control import messages as api
from tincan.crypto.primitives import PrivateKey

log = logging.getLogger(__name__)

RESTART_PAUSE: Final = 0.2
"""Seconds before a tincan that died is replaced; doubles up to."""
LONGEST_RESTART_PAUSE: Final = 10.0
WATCH_TINCAN: Final = 1.0
"""Seconds between questions whether it still works."""
SETTLED_AFTER: Final = 10.0
"""Seconds until we know which gateways are shared; till then, tincan's word."""


class App:
    """One controller, from ``start`` to its end."""

    def __init__(
        self,
        config: Config,
        private: PrivateKey,
        netlink: Netlink,
        started: "subprocess.Popen[bytes] | None" = None,
    ) -> None:
        self._config = config
        self._private = private
        self._netlink = netlink
        self._loop = asyncio.get_running_loop()
        self.node: NodeId = private.public.hex()
        self.counters: Counter[str] = new_counters()
        self.started = time.monotonic()
        self.keys = NetworkKeys.derive(config.network, config.secret)
        self.tunnel = Tunnel(
            config.run_dir,
            config.tincan_logging,
            version(),
            self._on_tunnel,
            self.counters,
            started,
        )
        self._known = KnownPeers.load(config.state_dir)
        self._policy = _policy(config, self._known, self.node)
        self.proxy = Proxy(
            Switch(
                self.node,
                self.counters,
                name=config.node,
                policy=self._policy,
                first_id=random.getrandbits(48),
            ),
            self.tunnel,
            config.icc_port,
            self.counters,
            self._never_forward,
        )
        self.attachment = TapPlacement(
            config,
            netlink,
            host_addresses=self._host_addresses,
            bridge_addresses=self.proxy.bridge_addresses,
            routes_changed=self._routes_changed,
            ports_gone=self.proxy.ports_gone,
        )
        self.guard = Guard(
            self.node,
            self.proxy.switch.probe_mac,
            self.keys.beacon,
            config.tap,
            self.tunnel,
            self.counters,
            changed=self.proxy.segment_changed,
            forget_entries=self.attachment.forget_entries,
            active=self._may_loop,
            name=self._name,
        )
        self.mesh: Mesh | None = None
        self.capture: Capture | None = None
        self.tap_offloads: list[str] = []  # in use, as status shows them
        self._addresses = AddressChanged(())
        self._never: tuple[frozenset[Mac], frozenset[Ip]] | None = None
        self._stun: list[api.HostPort] = [api.HostPort(s.host, s.port) for s in config.stun]

    # --- start

    async def start(self, tasks: asyncio.TaskGroup, urls: tuple[str, ...]) -> None:
        """Bring everything up. Raise SystemRefusal."""
        self.mesh = Mesh(
            urls,
            self.keys,
            self._private,
            self._config.node,
            self.tunnel,
            tasks,
            self.counters,
            named=self._named,
            forgotten=self.proxy.peer_down,
        )
        await self._set_up_tincan(await self.tunnel.connect())
        tasks.create_task(self.mesh.run())  # first: its round trips take the longest
        await self.attachment.prepare()
        self._open_capture()
        tasks.create_task(self._heartbeat())
        tasks.create_task(self._watch_tincan())
        self._loop.call_later(SETTLED_AFTER, self._settled)
        tasks.create_task(self.attachment.run())
        tasks.create_task(self._keep_tincan())
        tasks.create_task(self.guard.watch(self.links))

    async def _set_up_tincan(self, welcome: api.Welcome) -> None:
        """Give tincan what it must know; take over the links that it has."""
        config = self._config
        if welcome.node not in (None, self.node) or (
            welcome.tap is not None and welcome.tap.name != config.tap
        ):
            log.warning("replacing a tincan that runs with another key or TAP")
            welcome = await self.tunnel.replace()
        offloads = config.offloads
        identity = api.Identity(
            private_key=self._private.raw.hex(),
            psk=self.keys.psk.hex(),
            network_id=self.keys.network_id.hex(),
            stun=self._stun,
            turn=[
                api.TurnEntry(t.server.host, t.server.port, t.user, t.password, t.transport)
                for t in config.turn
            ],
            gso=offloads.gso,
            gro=offloads.gro,
            mtu_probing=config.mtu_probing,
        )
        await self.tunnel.call("set_identity", identity, type(None))
        self._push_never()  # before the first frame passes
        info = await self.tunnel.open_tap(
            api.OpenTap(config.tap, self._tap_mac(), offloads.vnet_hdr, offloads.tso, offloads.uso)
        )
        in_use = {"vnet_hdr": info.vnet_hdr, "tso": info.tso, "uso": info.uso}
        self.tap_offloads = [name for name, on in in_use.items() if on]
        self._addresses = await self._netlink.host_addresses(
            config.tap, config.network_ignore_list, config.bridge
        )
        self._push_addresses()
        self.proxy.push_pins()
        self._beat()
        self.guard.took_over(welcome.blocked)
        for link in await self.links():
            if link.state == "connected":
                self._linked(link)

    def _tap_mac(self) -> Mac:
        """fe: and 40 bits of the node's id: above every other MAC, so a bridge never takes it."""
        return "fe:" + hashlib.sha256(bytes.fromhex(self.node)).digest()[:5].hex(":")

    def _open_capture(self) -> None:
        self.capture = Capture(
            self._config.tap, self._captured, self._capture_closed, self.counters
        )
        if self._never is not None:
            self.capture.watch_gateways(self._never[0])
        self._beat()
        self.guard.open()

    def _captured(self, packet: Captured) -> None:
        self.proxy.captured(packet)

    def _capture_closed(self, reason: str) -> None:
        """Somebody deleted the TAP."""
        log.warning("TAP %s is gone (%s): making it anew", self._config.tap, reason)
        self.capture = None
        self.tunnel.discard()

    # --- while it runs

    async def _heartbeat(self) -> None:
        while True:
            self._beat()
            await asyncio.sleep(api.HEARTBEAT_INTERVAL)

    def _beat(self) -> None:
        self.tunnel.notify("heartbeat", api.Heartbeat(self.capture is not None))

    async def _watch_tincan(self) -> None:
        """Kill a tincan that hangs, so that another takes its place."""
        while True:
            await asyncio.sleep(WATCH_TINCAN)
            if not self.tunnel.lost.is_set():
                with contextlib.suppress(SystemRefusal):
                    await self.tunnel.alive(self.capture is not None)

    async def _keep_tincan(self) -> None:
        """Replace a tincan that died."""
        pause = RESTART_PAUSE
        while True:
            began = self._loop.time()
            await self.tunnel.lost.wait()
            if self._loop.time() - began > LONGEST_RESTART_PAUSE:
                pause = RESTART_PAUSE
            log.warning("tincan is gone; starting another")
            self._links_gone()
            try:
                await self._set_up_tincan(await self.tunnel.connect())
                await self.attachment.prepare()
                if self.capture is None:
                    self._open_capture()
            except SystemRefusal as error:
                log.warning("%s", error)
                self.tunnel.discard()  # half set up it would stay, and be of no use
            assert self.mesh is not None
            self.mesh.tincan_restarted()
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_RESTART_PAUSE)

    def _links_gone(self) -> None:
        assert self.mesh is not None
        for contact in self.mesh.topology.contacts.values():
            if contact.linked:
                self.mesh.unlinked(contact.id, "tincan restarted")
                self.proxy.peer_down(contact.id)

    def _on_tunnel(self, event: Any) -> None:
        assert self.mesh is not None
        if isinstance(event, api.IccReceived):
            self.proxy.received(event)
        elif isinstance(event, api.LinkConnected):
            self._linked(event)
        elif isinstance(event, api.LinkDisconnected):
            log.info("link to %s is down: %s", self.mesh.name(event.peer), event.reason)
            self.mesh.unlinked(event.peer, event.reason)
            self.proxy.peer_down(event.peer)
        elif isinstance(event, api.LinkWanted):
            self.mesh.wanted(event.peer, event.reason)
        elif isinstance(event, api.MacClaimed):
            self.proxy.mac_claimed(event)

    def _linked(self, link: api.LinkConnected | api.LinkInfo) -> None:
        assert self.mesh is not None
        contact = self.mesh.topology.contacts.get(link.peer)
        known = contact is not None and contact.linked
        self.mesh.linked(link.peer, link.relayed)
        if not known:
            log.info("link to %s is up", self.mesh.name(link.peer))
            self.proxy.peer_up(link.peer)
            if contact is not None and contact.name:
                self._named(link.peer, contact.name)
            self.guard.wake()

    def _named(self, peer: NodeId, name: str) -> None:
        """A peer with a link says what it is called: links may be there before presence is."""
        self.proxy.named(peer, name)
        for pinned, node in self._policy.names.items():
            self._known.pin(pinned, node)
        try:
            self._known.save()
        except SystemRefusal as error:
            log.warning("names may be taken by others after a restart: %s", error)

    def _may_loop(self) -> bool:
        """Return whether the TAP joins two things at all: a bridge, and a link."""
        if self.mesh is None or self.attachment.bridge is None:
            return False
        return any(contact.linked for contact in self.mesh.topology.contacts.values())

    def _name(self, node: NodeId) -> str:
        return node[:8] if self.mesh is None else self.mesh.name(node)

    def _host_addresses(self, now: AddressChanged) -> None:
        before, self._addresses = self._addresses, now
        if now != before:
            self._push_addresses()
        if now.addresses != before.addresses:
            log.info("this host's addresses are now %s", ", ".join(now.addresses) or "none")
            if self.mesh is not None:
                self.mesh.network_changed(set(before.addresses) - set(now.addresses))

    def _push_addresses(self) -> None:
        addresses = self._addresses
        self.tunnel.notify(
            "set_addresses", api.Addresses(list(addresses.addresses), list(addresses.refused))
        )

    def _routes_changed(self) -> None:
        if self.mesh is not None:
            self.mesh.network_changed()

    def _never_forward(self, macs: frozenset[Mac], ips: frozenset[Ip]) -> None:
        self._never = (macs, ips)
        self._push_never()
        if self.capture is not None:
            self.capture.watch_gateways(macs)

    def _settled(self) -> None:
        """No gateway is shared, if no peer has said so by now."""
        if self._never is None:
            self._never_forward(frozenset(), frozenset())

    def _push_never(self) -> None:
        config = self._config
        macs, ips = self._never or (None, None)
        self.tunnel.notify(
            "set_never_forward",
            api.NeverForwardSet(
                None if macs is None else sorted(macs),
                None if ips is None else sorted(ips),
                dhcp=config.dhcp == "block",
                router=config.ra == "block",
                link_control=not config.link_local_control,
            ),
        )

    # --- asking tincan

    async def links(self) -> list[api.LinkInfo]:
        """Return every link of tincan; raise SystemRefusal."""
        links: list[api.LinkInfo] = []
        cursor: int | None = 0
        while cursor is not None:
            page = await self.tunnel.call("query_link_stats", api.Page(cursor), api.LinkPage)
            links += page.links
            cursor = page.next
        return links

    async def fdb(self) -> list[api.FdbInfo]:
        """Return every entry of tincan's table of MACs; raise SystemRefusal."""
        entries: list[api.FdbInfo] = []
        cursor: int | None = 0
        while cursor is not None:
            page = await self.tunnel.call("query_fdb", api.Page(cursor), api.FdbPage)
            entries += page.entries
            cursor = page.next
        return entries

    async def tincan_counters(self) -> dict[str, int]:
        """Return tincan's counters; raise SystemRefusal."""
        return await self.tunnel.call("query_counters", None, dict[str, int])

    # --- for the operator

    def sources(self) -> Sources:
        """Return what the operator's reports are made from. Its functions need ``start``."""
        return Sources(
            node=self.node,
            started=self.started,
            counters=self.counters,
            tap=self.attachment,
            loops=self.guard,
            snapshot=self.proxy.snapshot,
            clear=self.proxy.clear,
            peers=lambda: {} if self.mesh is None else self.mesh.topology.contacts,
            name=self._name,
            signals=lambda: [] if self.mesh is None else self.mesh.signal_states,
            tap_offloads=lambda: self.tap_offloads,
            capturing=lambda: self.capture is not None,
            links=self.links,
            fdb=self.fdb,
            tincan_counters=self.tincan_counters,
        )

    # --- end

    async def stop(self) -> None:
        """Give everything back."""
        if self.capture is not None:
            self.capture.close()
        self.guard.close()
        self.proxy.close()
        await self.tunnel.stop()
        self.tunnel.close()


def _policy(config: Config, known: KnownPeers, node: NodeId) -> Policy:
    mentioned = {entry.node for entry in config.static} | set(config.allow)
    pins = {name: pinned for name in mentioned if (pinned := known.pinned(name)) is not None}
    pins[config.node] = node  # our own name always means us
    return Policy(
        static=config.static,
        allow=config.allow,
        names=pins,
    )


async def _serve(
    config: Config, private: PrivateKey, started: "subprocess.Popen[bytes] | None"
) -> None:
    stop = stop_requested()
    asyncio.get_running_loop().set_default_executor(DaemonThreads())
    async with AsyncExitStack() as stack:
        netlink = await stack.enter_async_context(Netlink())
        app = App(config, private, netlink, started)
        urls = config.signal
        if config.listen is not None:
            from controller.signal.rendezvous.server import Rendezvous  # not everybody needs it

            stun = Endpoint(config.listen.host, STUN_PORT)
            rendezvous = Rendezvous(
                config.listen,
                stun,
                need_stun=False,  # another controller's, or coturn, may be there
                networks={config.network: app.keys.membership_key},
                counters=app.counters,
            )
            await stack.enter_async_context(rendezvous)
            log.info("rendezvous: %s", rendezvous.describe())
            urls = (rendezvous.url,)
        reporter = Reporter(config, app.sources())
        methods = {
            "status": reporter.status,
            "bindings": reporter.bindings,
            "clear": reporter.clear,
        }
        stack.push_async_callback(app.stop)
        await run_until(stop, _run(app, urls, config, methods))


async def _run(app: App, urls: tuple[str, ...], config: Config, methods: dict[str, Any]) -> None:
    """Run everything until cancelled."""
    async with asyncio.TaskGroup() as tasks, ControlServer(config.control_socket, methods):
        await app.start(tasks, urls)
        await asyncio.Event().wait()


def serve(config: Config, private: PrivateKey, started: "subprocess.Popen[bytes] | None") -> None:
    """Run until SIGTERM or SIGINT. ``started``: a tincan that is loading. Raise SystemRefusal."""
    asyncio.run(_serve(config, private, started))
