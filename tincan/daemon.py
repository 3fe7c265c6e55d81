"""tincan's composition root: the TAP, the links, the table, and the controller's wishes.

It lives as long as a controller wants it, and ORPHANED_FOR longer: a controller that crashed or
is being upgraded finds everything running when it returns.
"""

import asyncio
import functools
import ipaddress
import logging
import logging.handlers
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any, Final

from tincan.control import messages as api
from tincan.control.describe import describe
from tincan.control.server import ApiServer, Handler
from tincan.crypto.primitives import PrivateKey
from tincan.device.device import Offloads
from tincan.device.tap import Tap, open_tap
from tincan.device.vnet import NO_VNET
from tincan.errors import ApiError, SystemRefusal
from tincan.link.link import Link
from tincan.link.links import Identity, Links
from tincan.path.description import TurnServer
from tincan.path.path import Path as LinkPath
from tincan.pump import loop
from tincan.pump.gate import Gate
from tincan.pump.loop import HotSelector
from tincan.pump.pump import Pump
from tincan.record.pages import Pool
from tincan.switching.frame import BEACON, MAC_SIZE, Kind, NeverForward
from tincan.switching.policy import Policy
from tincan.switching.table import LOCAL, MAX_LEARNED, Local

logger = logging.getLogger(__name__)

VERSION: Final = "0.1.0"
ORPHANED_FOR: Final = 900.0  # s without a controller before we give up
HOUSEKEEPING: Final = 0.25  # s; also how finely attachment is noticed
BOUNDS: Final = {  # counters, and what is said when they first rise
    "macs_not_learned": f"a peer sends from more MACs than the {MAX_LEARNED} that are learned of "
    "one: frames to the others are flooded",
}
STOPPING: Final = (signal.SIGTERM, signal.SIGINT)
LOG_SIZE: Final = 1 << 20
CLAIM_INTERVAL: Final = 0.5  # s between two mac_claimed events about one MAC
MAX_CLAIMS: Final = 1024


class Tincan:
    """One overlay's data plane."""

    def __init__(self, run_dir: Path, tasks: asyncio.TaskGroup, selector: HotSelector) -> None:
        self._selector = selector
        self.counters: Counter[str] = Counter()
        self.finished = asyncio.Event()
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._policy: Policy[Link] = Policy(self.counters, self._claimed)
        self._tap: Tap | None = None
        self._pump: Pump[Link] | None = None
        self._gate: Gate[Link] | None = None
        self._pool = Pool()
        self._links = Links(self._policy, self.counters, events=self, pool=self._pool)
        self._last_heartbeat = self._loop.time()
        self._capturing = False
        self._claims: dict[tuple[bytes, int], float] = {}
        self._told: set[str] = set()
        methods: dict[str, tuple[type[Any] | None, Handler]] = {
            "hello": (api.Hello, self._hello),
            "open_tap": (api.OpenTap, self._open_tap),
            "heartbeat": (api.Heartbeat, self._heartbeat),
            "set_blocked": (api.Blocked, self._set_blocked),
            "set_identity": (api.Identity, self._set_identity),
            "set_addresses": (api.Addresses, self._set_addresses),
            "set_never_forward": (api.NeverForwardSet, self._set_never_forward),
            "pin": (api.Pins, self._pin),
            "unpin": (api.Pins, self._unpin),
            "create_link": (api.NewLink, self._create_link),
            "answer_link": (api.Offered, self._answer_link),
            "connect_link": (api.Offered, self._connect_link),
            "remove_link": (api.PeerName, self._remove_link),
            "query_link_stats": (api.Page, self._query_link_stats),
            "query_fdb": (api.Page, self._query_fdb),
            "query_counters": (None, self._query_counters),
            "inject": (api.Frame, self._inject),
            "icc": (api.Icc, self._icc),
            "set_logging": (api.Logging, self._set_logging),
            "shutdown": (None, self._shutdown),
        }
        self._server = ApiServer(
            run_dir / api.SOCKET_NAME, methods, tasks, gone=self._controller_gone
        )

    # -- the controller

    async def _hello(self, _: api.Hello) -> tuple[api.Welcome, None]:
        identity = self._links.identity
        node = identity.private.public.hex() if identity is not None else None
        tap = self._tap_info() if self._tap is not None else None
        blocked = self._policy.blocked
        return api.Welcome(api.API_VERSION, VERSION, os.getpid(), node, tap, blocked), None

    def _heartbeat(self, beat: api.Heartbeat) -> tuple[None, None]:
        self._last_heartbeat = self._loop.time()
        self._capturing = beat.capture
        self._note_attachment()
        return None, None

    def _controller_gone(self) -> None:
        self._capturing = False
        self._note_attachment()

    def _note_attachment(self) -> None:
        now = self._loop.time()
        attached = self._capturing and now - self._last_heartbeat < api.ATTACHED_FOR
        if attached == self._policy.attached:
            return
        logger.info("controller %s", "attached" if attached else "gone; forwarding goes on")
        self._policy.set_attached(attached)
        for link in self._links:
            link.announce_flags(now)

    def _set_blocked(self, wish: api.Blocked) -> tuple[None, None]:
        """Block the TAP, or open it again; either way the segment behind it is another one.

        It stays as it is when the controller goes: a loop is worse than a host that waits for
        its controller behind another one's link.
        """
        self._policy.table.forget_learned()
        if wish.blocked != self._policy.blocked:
            logger.warning("the TAP is %s", "blocked" if wish.blocked else "open again")
            now = self._loop.time()
            self._policy.set_blocked(wish.blocked)
            if self._gate is not None:
                self._gate.observe(now)
            for link in self._links:
                link.announce_flags(now)
        return None, None

    async def housekeeping(self) -> None:
        """Notice time passing: attachment, ageing, an orphan's end."""
        while not self.finished.is_set():
            await asyncio.sleep(HOUSEKEEPING)
            now = self._loop.time()
            self._note_attachment()
            self._policy.table.age(now)
            if self._gate is not None:
                self._gate.observe(now)
            self._note_bounds()
            if self._tap is not None and not self._policy.attached and self._tap.gone():
                # A controller would replace us. Without one: the descriptor is always ready.
                logger.warning("TAP %s was deleted: there is nothing left to do", self._tap.name)
                self.finished.set()
            if now - self._last_heartbeat > ORPHANED_FOR:
                logger.warning("no controller for %d s: giving everything back", ORPHANED_FOR)
                self.finished.set()

    def _note_bounds(self) -> None:
        """Say once that somebody is at a bound."""
        for counter in BOUNDS.keys() - self._told:
            if self.counters[counter]:
                self._told.add(counter)
                logger.warning(BOUNDS[counter])

    async def _set_logging(self, wish: api.Logging) -> tuple[None, None]:
        logging.getLogger().setLevel(wish.level)
        return None, None

    async def _shutdown(self, _: None) -> tuple[None, None]:
        self.finished.set()
        return None, None

    async def close(self) -> None:
        """Say goodbye to every peer and give everything back."""
        await self._links.close()
        if self._pump is not None:
            self._pump.stop()
        if self._tap is not None:
            self._tap.close()
        self._server.close()

    # -- the TAP

    async def _open_tap(self, wish: api.OpenTap) -> tuple[api.TapInfo, int]:
        descriptor = self._server.take_descriptor()
        if self._tap is not None and descriptor is not None:
            os.close(descriptor)
        if self._tap is None:
            offloads = Offloads(wish.vnet_hdr, wish.tso, wish.uso)
            tap = self._tap = open_tap(wish.name, _mac(wish.mac), offloads, descriptor)
            self._gate = Gate(tap, self._policy, self.counters, self._loop.time())
            self._pump = Pump(tap, self._policy, self.counters, self._selector, self._pool)
            self._links.ports = self._pump
            self._pump.start()
            for name in ("vnet_hdr", "tso", "uso"):
                if getattr(offloads, name) and not getattr(tap.offloads, name):
                    self.counters[f"offload_fallbacks.{name}"] += 1
        elif self._tap.name != wish.name:
            raise ApiError(api.REFUSED, f"this tincan already has TAP {self._tap.name}")
        return self._tap_info(), self._tap.fd

    def _tap_info(self) -> api.TapInfo:
        tap = self._tap
        assert tap is not None
        return api.TapInfo(
            tap.name, tap.mac.hex(":"), tap.offloads.vnet_hdr, tap.offloads.tso, tap.offloads.uso
        )

    def _inject(self, wish: api.Frame) -> tuple[None, None]:
        if self._pump is None:
            raise ApiError(api.REFUSED, "no TAP is open")
        if self._policy.blocked and wish.frame[:MAC_SIZE] != BEACON:
            self.counters["frames_dropped.loop_blocked"] += 1
            return None, None
        self._pump.deliver(memoryview(NO_VNET + wish.frame))
        self.counters["frames_injected"] += 1
        return None, None

    # -- configuration

    async def _set_identity(self, wish: api.Identity) -> tuple[None, None]:
        private = PrivateKey.from_bytes(bytes.fromhex(wish.private_key))
        before = self._links.identity
        if before is not None and before.private.public != private.public:
            raise ApiError(api.REFUSED, "this tincan runs under another node key")
        self._links.identity = Identity(
            private,
            bytes.fromhex(wish.psk),
            bytes.fromhex(wish.network_id),
            [(entry.host, entry.port) for entry in wish.stun],
            [TurnServer(t.host, t.port, t.user, t.password, t.transport) for t in wish.turn],
            wish.gso,
            wish.gro,
            wish.mtu_probing,
        )
        for link in self._links:
            link.set_mtu_probing(wish.mtu_probing)
        return None, None

    def _set_addresses(self, wish: api.Addresses) -> tuple[None, None]:
        self._links.addresses = wish.local
        try:
            self._links.refused = [
                ipaddress.ip_network(each, strict=False) for each in wish.refused
            ]
        except ValueError as error:
            raise ApiError(api.INVALID_PARAMS, str(error)) from None
        for link in self._links:
            link.addresses_changed(self._links.addresses)
        return None, None

    def _set_never_forward(self, wish: api.NeverForwardSet) -> tuple[None, None]:
        kinds = {
            kind
            for kind, on in (
                (Kind.DHCP, wish.dhcp),
                (Kind.ROUTER, wish.router),
                (Kind.CONTROL, wish.link_control),
            )
            if on
        }
        never = self._policy.never
        macs, addresses = never.macs, never.addresses
        try:
            if wish.ips is not None:
                addresses = frozenset(ipaddress.ip_address(ip).packed for ip in wish.ips)
        except ValueError as error:
            raise ApiError(api.INVALID_PARAMS, str(error)) from None
        if wish.macs is not None:
            macs = frozenset(map(_mac, wish.macs))
        self._policy.set_never(NeverForward(macs, addresses, frozenset(kinds)))
        return None, None

    # -- the table

    def _pin(self, wish: api.Pins) -> tuple[None, None]:
        now = self._loop.time()
        if wish.replace:
            self._policy.table.flush_pins()
        for entry in wish.entries:
            port: Link | Local = LOCAL
            if entry.at is not None:
                port = self._links.to(entry.at)
            if not self._policy.table.pin(_mac(entry.mac), entry.vlan, port, now):
                raise ApiError(api.REFUSED, "the table of pinned addresses is full")
        return None, None

    def _unpin(self, wish: api.Pins) -> tuple[None, None]:
        for entry in wish.entries:
            self._policy.table.unpin(_mac(entry.mac), entry.vlan)
        return None, None

    async def _query_fdb(self, page: api.Page) -> tuple[api.FdbPage, None]:
        now = self._loop.time()
        entries = [
            api.FdbInfo(
                e.mac.hex(":"),
                e.vlan,
                None if isinstance(e.port, Local) else e.port.peer,
                round(now - e.seen, 1),
                e.pinned,
            )
            for e in list(self._policy.table)[page.cursor : page.cursor + api.PAGE + 1]
        ]
        following = page.cursor + api.PAGE if len(entries) > api.PAGE else None
        return api.FdbPage(entries[: api.PAGE], following), None

    def _claimed(self, mac: bytes, vlan: int, port: Link | Local) -> None:
        now = self._loop.time()
        if now - self._claims.get((mac, vlan), float("-inf")) < CLAIM_INTERVAL:
            return
        if len(self._claims) >= MAX_CLAIMS:
            self._claims.clear()
        self._claims[mac, vlan] = now
        at = None if isinstance(port, Local) else port.peer
        # Not now: if it cannot be sent, the controller is gone, and telling that to the peers would
        # pack a probe over the frame that the pump has in hand.
        self._loop.call_soon(self._emit, api.MacClaimed(mac.hex(":"), vlan, at))

    # -- links

    async def _create_link(self, wish: api.NewLink) -> tuple[api.Offer, None]:
        attempt = self._links.attempt(self._links.to(wish.peer), wish.number)
        return api.Offer(await attempt.gather()), None

    async def _answer_link(self, wish: api.Offered) -> tuple[api.Offer, None]:
        link = self._links.to(wish.peer)
        attempt = self._links.attempt(link, wish.number)
        answer = await attempt.gather()
        self._tasks.create_task(link.connect(attempt, wish.description))
        return api.Offer(answer), None

    async def _connect_link(self, wish: api.Offered) -> tuple[None, None]:
        link = self._links.to(wish.peer)
        attempt = link.pending.get(wish.number)
        if attempt is None:
            raise ApiError(api.REFUSED, f"no negotiation {wish.number} is open")
        self._tasks.create_task(link.connect(attempt, wish.description))
        return None, None

    async def _remove_link(self, wish: api.PeerName) -> tuple[None, None]:
        await self._links.remove(wish.peer)
        return None, None

    async def _query_link_stats(self, page: api.Page) -> tuple[api.LinkPage, None]:
        links = list(self._links)
        following = page.cursor + api.PAGE if page.cursor + api.PAGE < len(links) else None
        now, refused = self._loop.time(), self._policy.refused
        shown = links[page.cursor : page.cursor + api.PAGE]
        infos = [describe(link, refused(link), now) for link in shown]
        return api.LinkPage(infos, following), None

    async def _query_counters(self, _: None) -> tuple[dict[str, int], None]:
        lost = sum(link.news_of_drops() for link in self._links)
        if lost:
            self.counters["datagrams_dropped.receive_buffer_full"] += lost
        if self._gate is not None:
            self._gate.count_dropped()
        return dict(self.counters), None

    def _icc(self, wish: api.Icc) -> tuple[None, None]:
        now = self._loop.time()
        for link in self._links:
            if wish.peer is not None and link.peer != wish.peer:
                continue
            if not link.send_icc(wish.channel, wish.payload, now) and wish.peer is not None:
                self.counters["icc_dropped.link_down"] += 1
        return None, None

    # -- what links tell

    def _emit(self, event: api.Event) -> None:
        self._server.notify(api.EVENT_NAMES[type(event)], event)

    def link_connected(self, peer: str, path: LinkPath) -> None:
        logger.info(
            "link to %.8s up: %s to %s by %s", peer, path.local, path.remote, path.peer_address
        )
        self._emit(api.LinkConnected(peer, path.relayed))

    def link_disconnected(self, peer: str, reason: str) -> None:
        logger.info("link to %.8s down: %s", peer, reason)
        self._emit(api.LinkDisconnected(peer, reason))

    def link_wanted(self, peer: str, reason: str) -> None:
        self._emit(api.LinkWanted(peer, reason))

    def link_changed(self, peer: str, blocked: bool) -> None:
        link = self._links.find(peer)
        if blocked and link is not None:
            self._policy.table.forget(link)  # its containers are reached through another node
        self._policy.changed()

    def icc(self, peer: str, channel: int, payload: bytes) -> None:
        self._emit(api.IccReceived(peer, channel, payload))


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


async def _serve(run_dir: Path, selector: HotSelector) -> None:
    async with asyncio.TaskGroup() as tasks:
        tincan = Tincan(run_dir, tasks, selector)
        for number in STOPPING:
            asyncio.get_running_loop().add_signal_handler(number, tincan.finished.set)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)  # as the controller left us
        keeper = tasks.create_task(tincan.housekeeping())
        await tincan.finished.wait()
        keeper.cancel()
        await tincan.close()


def run(run_dir: Path, level: str) -> int:
    """Serve until told to stop; return the exit status. Logs to ``run_dir/tincan.log``.

    No pipe is held: standard input and outputs are the null device, so that the death of
    whoever started us cannot kill us.
    """
    handler = logging.handlers.RotatingFileHandler(
        run_dir / "tincan.log", maxBytes=LOG_SIZE, backupCount=1
    )
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
    status = 0
    try:
        loop.run(functools.partial(_serve, run_dir))
    except* SystemRefusal as group:
        for error in group.exceptions:
            logger.error("%s", error)
        status = 1
    return status
