"""``controller metalbond server|client``: the Go program's command line.

Lists repeat or take commas. What is wrong is said in one line, with exit status 2; what the system
refuses has exit status 1. SIGINT and SIGTERM end it in order.
"""

import argparse
import asyncio
import gc
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final, NoReturn

from controller.errors import ConfigError, RouteError
from controller.routes import options
from controller.routes.clients import DummyClient
from controller.routes.endpoint import Endpoint
from controller.routes.kernel import NetlinkClient, NetlinkClientConfig
from controller.routes.machine import DEFAULT_KEEPALIVE_S, State
from controller.routes.metalbond import MetalBond
from controller.routes.reflector import PROFILES, V0_5_0
from controller.routes.speaker import Config
from controller.stopping import stop_requested

PROGRAM: Final = "controller metalbond"
CONNECTED_WITHIN_S: Final = 10.0
"""A server that is not there after this time is complained of; the Go program gives up then."""
COLLECTED_EVERY: Final = (50_000, 20, 1000)
"""When the collector looks for cycles: routes are in none, and as usual (700, 10, 10) a third of
the time in which 100,000 of them come goes into looking (measured)."""

log = logging.getLogger(__name__)


class _Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(self.prog, message, f"see {self.prog} --help")


def run(arguments: Sequence[str], log_at: Callable[[str], None]) -> int:
    """Run a server or a client until it is told to end, and return the exit status.

    ``log_at`` sets up logging at a level. Raises ConfigError and SystemRefusal.
    """
    chosen = _parser().parse_args(arguments)
    node = _Server(chosen) if chosen.role == "server" else _Client(chosen)
    log_at("DEBUG" if chosen.verbose else "INFO")
    gc.set_threshold(*COLLECTED_EVERY)
    asyncio.run(node.run())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        description="MetalBond: reflect routes (server), or announce and install them (client).",
        allow_abbrev=False,
    )
    roles = parser.add_subparsers(
        dest="role", required=True, metavar="server|client", parser_class=_Parser
    )
    server = roles.add_parser("server", help="reflect routes", allow_abbrev=False)
    client = roles.add_parser("client", help="announce and receive routes", allow_abbrev=False)
    server.add_argument(
        "--listen", metavar="ADDRESS:PORT", default="[::]:4711", help="default: %(default)s"
    )
    client.add_argument(
        "--server",
        metavar="ADDRESS:PORT",
        action="append",
        help="a reflector; several, if you like",
    )
    client.add_argument("--subscribe", metavar="VNI", action="append", help="receive its routes")
    client.add_argument(
        "--announce",
        metavar="VNI#PREFIX#HOP[#STD|LB|NAT[#FROM#TO]]",
        action="append",
        help="announce a route",
    )
    client.add_argument(
        "--install-routes",
        metavar="VNI#TABLE",
        action="append",
        help="install the routes of a VNI in a route table of the kernel",
    )
    client.add_argument("--tun", metavar="DEVICE", help="the ip6tnl device for installed routes")
    client.add_argument("--ipv4-only", action="store_true", help="install only IPv4 routes")
    client.add_argument(
        "--cleanup",
        action="store_true",
        help="at exit remove all routes of protocol 254 from these tables, not only ours",
    )
    for role in (server, client):
        role.add_argument("--http", metavar="ADDRESS:PORT", help="show the routes there")
        role.add_argument(
            "--keepalive",
            metavar="SECONDS",
            default="0",
            help=f"interval of KEEPALIVEs; default: {DEFAULT_KEEPALIVE_S}",
        )
        role.add_argument(
            "--compatible",
            choices=sorted(PROFILES),
            default=V0_5_0.name,
            help="the version of MetalBond to behave as; default: %(default)s",
        )
        role.add_argument("-v", "--verbose", action="store_true", help="log more")
    return parser


class _Node:
    """What a server and a client have in common."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self.place = f"{PROGRAM} {chosen.role}:"
        seconds = options.keepalive(chosen.keepalive, f"{self.place} --keepalive")
        self.config = Config(
            keepalive_interval=seconds or DEFAULT_KEEPALIVE_S,
            profile=PROFILES[chosen.compatible],
        )
        self.http = chosen.http
        if self.http is not None:
            self.endpoint(self.http, "--http")

    def endpoint(self, text: str, option: str) -> str:
        """Return ``text`` if it is an endpoint. Raises ConfigError."""
        try:
            Endpoint.parse(text)
        except RouteError as error:
            place = f"{self.place} {option}"
            raise ConfigError(place, str(error), "write, for example, [::1]:4711") from error
        return text

    async def serve(self, bond: MetalBond) -> None:
        """Show the pages, if wanted, and wait for the end."""
        if self.http is not None:
            await bond.start_http_server(self.http)
        await stop_requested().wait()


class _Server(_Node):
    """``controller metalbond server``."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        super().__init__(chosen)
        self.listen = self.endpoint(chosen.listen, "--listen")

    async def run(self) -> None:
        """Reflect routes until the end."""
        async with MetalBond(self.config) as bond:
            await bond.start_server(self.listen)
            await self.serve(bond)


class _Client(_Node):
    """``controller metalbond client``."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        super().__init__(chosen)

        def place(option: str) -> str:
            return f"{self.place} {option}"

        servers = options.each(chosen.server, lambda text, _: text, "")
        self.servers = [self.endpoint(text, "--server") for text in servers]
        self.subscribe = options.each(chosen.subscribe, options.vni, place("--subscribe"))
        self.announce = options.each(chosen.announce, options.announcement, place("--announce"))
        tables = options.each(chosen.install_routes, options.table, place("--install-routes"))
        self.cleanup = chosen.cleanup
        self.installs = NetlinkClientConfig(dict(tables), chosen.tun or "", chosen.ipv4_only)
        if tables and not chosen.tun:
            raise ConfigError(
                place("--tun"), "is missing", "name the ip6tnl device that routes go through"
            )
        _once(place("--server"), self.servers)
        _once(place("--subscribe"), self.subscribe)
        _once(place("--announce"), self.announce)
        _once(place("--install-routes"), [vni for vni, _ in tables])

    async def run(self) -> None:
        """Announce and receive routes until the end."""
        async with AsyncExitStack() as stack:
            client: NetlinkClient | DummyClient = DummyClient()
            if self.installs.vni_tables:
                from controller.host.netlink import Netlink

                kernel = await stack.enter_async_context(Netlink())
                client = await stack.enter_async_context(NetlinkClient(self.installs, kernel))
                if self.cleanup:
                    stack.push_async_callback(client.cleanup)
            bond = await stack.enter_async_context(MetalBond(self.config, client))
            for vni in self.subscribe:
                bond.subscribe(vni)
            for route in self.announce:
                bond.announce_route(*route)
            for server in self.servers:
                bond.add_peer(server)
            asyncio.get_running_loop().call_later(CONNECTED_WITHIN_S, self._complain, bond)
            await self.serve(bond)

    def _complain(self, bond: MetalBond) -> None:
        for server in self.servers:
            state = bond.peer_state(server)
            if state is not State.ESTABLISHED:
                log.warning("server %s: still %s; going on trying", server, state.value)


def _once(place: str, values: Sequence[object]) -> None:
    """Raise ConfigError if a value is there twice."""
    for value, count in Counter(values).items():
        if count > 1:
            told = value if not isinstance(value, options.Announcement) else value.destination
            raise ConfigError(place, f"{told} is there twice", "once is enough")
