"""Interfaces, addresses and routes of this host: asking the kernel, changing them, being told.

The one module that imports pyroute2. One request costs it about 1 ms of decoding, so the state of
single interfaces is asked for, never of all, and only when ``netlink_events`` reports a change.
"""

import errno
import ipaddress
import socket
import struct
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any, Final

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted, NetlinkError

from controller.errors import SystemRefusal
from controller.host import firewall
from controller.host.interfaces import (
    Address,
    AddressChanged,
    BridgeAddressChanged,
    EntriesGone,
    EntriesUnknown,
    Event,
    Link,
    LinkChanged,
    RouteChanged,
    address_of,
    as_the_tap_sees,
    link_of,
)
from controller.host.netlink_events import NetlinkEvents
from controller.packets.addresses import Ip, Mac, Vlan

_SKIP_STATS: Final = 1 << 3
"""RTEXT_FILTER_SKIP_STATS (linux/rtnetlink.h)."""
_AF_BRIDGE: Final = 7
_ADDR_GEN_MODE_NONE: Final = 1
_MULTICAST_ROUTER_PERMANENT: Final = 2
_NUD_PERMANENT: Final = 0x80
_MAIN_TABLE: Final = 254
_ENCAP_IP6: Final = 4
"""LWTUNNEL_ENCAP_IP6."""
_IP6_ID: Final = 1
_IP6_DST: Final = 2
_IP6_SRC: Final = 3
_IP6_HOPLIMIT: Final = 4
"""enum lwtunnel_ip6_t: pyroute2 does not know this encapsulation, and sends its bytes as given."""
_SCOPE_NOWHERE: Final = 255
"""RT_SCOPE_NOWHERE: IPv4 removes a route of whichever scope (fib_table_delete)."""
_ONLINK: Final = 4
"""RTNH_F_ONLINK."""
_ANY_GATEWAY: Final = "fe80::1"
_FAMILY: Final = {4: socket.AF_INET, 6: socket.AF_INET6}

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Target = ipaddress.IPv6Address

TUNNEL_KINDS: Final = frozenset(
    {"tun", "wireguard", "ipip", "sit", "gre", "gretap", "erspan", "ip6tnl", "ip6gre"}
    | {"ip6gretap", "ip6erspan", "vti", "vti6", "xfrm", "vxlan", "geneve", "bareudp", "gtp"}
)
"""Encapsulations: a path through one of them is a tunnel in a tunnel, or our own overlay."""
_STACKED_KINDS: Final = frozenset({"vlan", "macvlan", "macvtap", "ipvlan", "macsec"})
"""Interfaces that are stacked on another one, their parent."""
_ATTEMPTS: Final = 3
"""Times that a request is made which the kernel interrupts."""


class Netlink:
    """The kernel's view of this host's network, inside ``async with``.

    Every method raises SystemRefusal with one line. Changing anything needs CAP_NET_ADMIN. There
    may be one ``watch`` at a time.
    """

    async def __aenter__(self) -> "Netlink":
        self._ip = AsyncIPRoute()
        try:
            self._events = NetlinkEvents()
        except OSError as error:
            self._ip.close()
            raise SystemRefusal(f"no netlink socket: {error.strerror}") from error
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._events.close()
        self._ip.close()

    # --- asking

    async def link(self, which: str | int) -> Link | None:
        """Return the interface of this name or index, None if there is none."""
        key = {"index": which} if isinstance(which, int) else {"ifname": which}
        try:
            answers = await self._ask("link", "get", ext_mask=_SKIP_STATS, **key)
        except NetlinkError as error:
            if error.code in (errno.ENODEV, errno.EINVAL, errno.ERANGE):  # or a name too long
                return None
            raise _refusal(f"asking for interface {which}", error) from error
        return link_of(answers[0]) if answers else None

    async def bridge_addresses(self, bridge: Link) -> frozenset[tuple[Ip, Mac]]:
        """Return all addresses of ``bridge``, also link-local and tentative ones, with its MAC."""
        addresses = await self._addresses()
        return frozenset((a.ip, bridge.mac) for a in addresses if a.index == bridge.index)

    async def bridge_entries(self, bridge: Link) -> dict[tuple[Mac, Vlan], int]:
        """Return by MAC and VLAN the port where ``bridge`` learned it; not its own MACs."""
        entries = {}
        for entry in await self._dump("neigh", family=_AF_BRIDGE):
            mac, master = entry.get("lladdr"), entry.get("master")
            if master == bridge.index and mac and not entry["state"] & _NUD_PERMANENT:
                vlan = int(entry.get("vlan") or 0)
                vlan = 0 if vlan == bridge.untagged else vlan
                entries[str(mac), vlan] = int(entry["ifindex"])
        return entries

    async def default_routes(self) -> frozenset[tuple[int, Ip, str]]:
        """Return the default routes of the main table: family (4, 6), gateway or "", interface."""
        found = set()
        for family, number in ((2, 4), (10, 6)):
            for route in await self._dump("route", family=family, table=_MAIN_TABLE):
                if route["dst_len"] or route.get("table") != _MAIN_TABLE or route["type"] != 1:
                    continue
                hops = [(route.get("oif"), route.get("gateway"))]
                hops += [
                    (hop.get("oif"), hop.get("gateway")) for hop in route.get("multipath") or ()
                ]
                found |= {(number, str(via or ""), int(oif)) for oif, via in hops if oif}
        names = {index: await self.link(index) for _, _, index in found}
        return frozenset(
            (number, via, link.name) for number, via, index in found if (link := names[index])
        )

    async def host_addresses(
        self, tap: str, ignore: Collection[str] = (), bridge: str | None = None
    ) -> AddressChanged:
        """Return the addresses that a peer may be told, sorted, and networks behind the overlay.

        Only interfaces that are up and running count. Left out are

        - the TAP, the bridge that it is in, and the one named ``bridge``, which it may join; but
          not a bridge through which a default route leaves;
        - whatever is stacked on these;
        - other tunnels, loopback, and interfaces whose name matches one of ``ignore`` (shell
          patterns);
        - addresses that are link-local, tentative, failed or deprecated, and temporary ones
          beside a stable one of the same prefix.
        """
        usable: list[Address] = []
        refused: set[str] = set()
        overlay = await self._overlay(tap, bridge)
        links: dict[int, Link | None] = {}
        for address in await self._addresses():
            if not address.beyond_link:
                continue
            if address.index in overlay:
                refused.add(address.network[1])
            if address.unusable:
                continue
            if address.index not in links:
                links[address.index] = await self.link(address.index)
            link = links[address.index]
            if link is not None and await self._leads_outside(link, overlay, ignore):
                usable.append(address)
        stable = {a.network for a in usable if not a.temporary}
        chosen = {a.ip for a in usable if not (a.temporary and a.network in stable)}
        addresses = sorted(chosen, key=lambda ip: (":" in ip, ipaddress.ip_address(ip).packed))
        return AddressChanged(tuple(addresses), tuple(sorted(refused)))

    async def goes_through(self, address: Ip, tap: str) -> bool:
        """Return whether packets to ``address`` would leave by the TAP or its bridge.

        A bridge that holds a default route does not count.
        """
        try:
            routes = await self._ask("route", "get", dst=address)
        except NetlinkError:
            return False  # unreachable: not through the overlay either
        overlay = await self._overlay(tap)
        return any(route.get("oif") in overlay for route in routes)

    async def bridge_nf_drops(self, bridge: Link) -> str | None:
        """Return one line with its cure if the firewall drops bridged traffic, else None."""
        return await firewall.drops_bridged(bridge.name)

    async def _overlay(self, tap: str, configured: str | None = None) -> frozenset[int]:
        """Return the indexes of the TAP and of its bridges, of now and as configured."""
        link = await self.link(tap)
        bridges = [
            await self.link(each)
            for each in (link.master if link is not None else None, configured)
            if each is not None
        ]
        outside = {name for _, _, name in await self.default_routes()} if bridges else set()
        inside = {b.index for b in bridges if b is not None and b.name not in outside}
        return frozenset(inside | {link.index} if link is not None else inside)

    async def _leads_outside(
        self, link: Link, overlay: frozenset[int], ignore: Collection[str]
    ) -> bool:
        """Return whether a path through ``link`` avoids the overlay and other tunnels."""
        if not (link.up and link.running) or link.loopback or link.kind in TUNNEL_KINDS:
            return False
        if link.index in overlay or any(fnmatchcase(link.name, name) for name in ignore):
            return False
        if link.parent is None:
            return True
        parent = await self.link(link.parent)
        if parent is None:
            return True
        # A host may give itself an address on the bridge with a vlan, or with a veth whose other
        # end is a port.
        if link.kind in _STACKED_KINDS:
            return await self._leads_outside(parent, overlay, ignore)
        return not (link.kind == "veth" and parent.master in overlay)

    async def _addresses(self) -> list[Address]:
        return [address_of(message) for message in await self._dump("addr")]

    async def _dump(self, what: str, **filters: int) -> list[Any]:
        try:
            return await self._ask(what, "dump", **filters)
        except NetlinkError as error:
            raise _refusal(f"reading the {what} table", error) from error

    async def _ask(self, what: str, command: str, **arguments: Any) -> list[Any]:
        """Return all answers to one request; raise NetlinkError."""
        failure = NetlinkError(errno.EBUSY)
        for _ in range(_ATTEMPTS):
            try:
                answers = await getattr(self._ip, what)(command, **arguments)
                return [m async for m in answers] if command == "dump" else list(answers)
            except NetlinkDumpInterrupted as interrupted:  # it changed meanwhile: incomplete
                failure = interrupted
            except OSError as error:  # AsyncIPRoute is of no use any more after one
                failure = NetlinkError(error.errno)
                self._ip.close()
                self._ip = AsyncIPRoute()
        raise failure

    # --- changing

    async def attach(self, tap: str, bridge: str) -> Link:
        """Make the TAP a port of ``bridge`` and bring it up; return the TAP as it is then.

        The bridge keeps its MTU, because the TAP takes that before it enters. It keeps its MAC,
        too: a bridge that nobody gave one takes the lowest of its ports', and is given back what
        it had. Steps that are done already are skipped.
        """
        target = await self.link(bridge)
        if target is None:
            raise SystemRefusal(f"there is no bridge {bridge}", "create it, or correct `bridge`")
        if target.kind != "bridge":
            raise SystemRefusal(
                f"{bridge} is not a Linux bridge but {target.kind or 'hardware'}",
                "name a bridge in `bridge`",
            )
        port = await self._tap(tap)
        await self.silence(tap)
        if port.master != target.index:
            await self._set(port, "setting the MTU of", mtu=target.mtu)
            await self._set(port, f"attaching to {bridge}", master=target.index)
        await self.become_multicast_router(tap)
        await self._set(port, "bringing up", state="up")
        after = await self.link(target.index)
        if after is not None and after.mac != target.mac:
            await self._set(after, "keeping the MAC of", address=target.mac)
        return await self._tap(tap)

    async def detach(self, tap: str) -> None:
        """Take the TAP out of its bridge, if it is in one."""
        link = await self.link(tap)
        if link is not None and link.master is not None:
            await self._set(link, "detaching", master=0)

    async def forget_entries(self, bridge: Link) -> None:
        """Have ``bridge`` forget what it has learned; it floods until it has learned it anew.

        Spanning tree does the same after a change of topology (IEEE 802.1D section 7.9).
        """
        try:
            await self._ask("link", "set", index=bridge.index, kind=bridge.kind, br_fdb_flush=True)
        except NetlinkError as error:
            raise _refusal(f"flushing {bridge.name}", error) from error

    async def silence(self, tap: str) -> None:
        """Give the TAP no link-local address: coming up, it will emit no DAD, RS or MLD."""
        link = await self._tap(tap)
        mode = {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", _ADDR_GEN_MODE_NONE]]}
        with suppress(NetlinkError):  # a kernel without IPv6 emits nothing of the kind
            spec = {"attrs": [["AF_INET6", mode]]}
            await self._ask("link", "set", index=link.index, IFLA_AF_SPEC=spec)
        for address in await self._addresses():
            if address.index == link.index and ipaddress.ip_address(address.ip).is_link_local:
                with suppress(NetlinkError):  # the kernel was faster
                    await self._change_address("del", link, address.interface)

    async def become_multicast_router(self, tap: str) -> None:
        """Have the bridge send the TAP all multicast: snooping, it knows no listeners behind it."""
        link = await self._tap(tap)
        with suppress(NetlinkError):  # a kernel without snooping floods it anyway
            await self._ask(
                "brport", "set", index=link.index, multicast_router=_MULTICAST_ROUTER_PERMANENT
            )

    async def set_mtu(self, tap: str, mtu: int) -> None:
        """Set the TAP's MTU, in bytes."""
        await self._set(await self._tap(tap), "setting the MTU of", mtu=mtu)

    async def set_up(self, tap: str, up: bool = True) -> None:
        """Bring the TAP up, or down."""
        state = "up" if up else "down"
        await self._set(await self._tap(tap), f"setting {state}", state=state)

    async def set_addresses(self, tap: str, wanted: Collection[str]) -> bool:
        """Give the TAP these addresses ("172.16.0.1/24") and no others; return whether it has them.

        A TAP that is a port of a bridge gets none.
        """
        link = await self._tap(tap)
        is_port = link.master is not None
        current = {a.interface for a in await self._addresses() if a.index == link.index}
        target = set() if is_port else {str(ipaddress.ip_interface(w)) for w in wanted}
        for gone in current - target:
            if ipaddress.ip_interface(gone).is_link_local and not is_port:
                continue
            with suppress(NetlinkError):  # the kernel was faster
                await self._change_address("del", link, gone)
        for new in target - current:
            try:
                await self._change_address("replace", link, new)
            except NetlinkError as error:
                raise _refusal(f"putting {new} on {tap}", error) from error
        return not is_port

    # --- routes through a tunnel

    async def replace_route(
        self, network: Network, table: int, proto: int, device: int, targets: Sequence[Target]
    ) -> None:
        """Route ``network`` through the tunnel device to these far ends, whatever it was before.

        Each packet gets an IPv6 header to one of the targets (lwtunnel ``encap ip6``). Several
        are one multipath route. IPv6 takes several next hops only with gateways, so they have
        one that the tunnel never looks at, and does not replace a route of the other form.
        """
        encaps = [_encapsulation(target) for target in targets]
        arguments: dict[str, Any]
        if network.version == 4:
            hops = [{"oif": device, "attrs": encap} for encap in encaps]
            arguments = {"multipath": hops}
        elif len(encaps) == 1:
            arguments = {"oif": device, "encap_type": _ENCAP_IP6, "encap": encaps[0][1][1]}
        else:
            gateway = ["RTA_GATEWAY", _ANY_GATEWAY]
            hops = [
                {"oif": device, "flags": _ONLINK, "attrs": [gateway, *encap]} for encap in encaps
            ]
            arguments = {"multipath": hops}
        where = {
            "table": table,
            "proto": proto,
            "dst": str(network),
            "family": _FAMILY[network.version],
        }
        try:
            await self._ask("route", "replace", **where, **arguments)
        except NetlinkError as error:
            raise _refusal(f"routing {network} in table {table}", error) from error

    async def delete_route(self, network: Network, table: int, proto: int) -> None:
        """Remove the route to ``network`` that is of this protocol, if there is one."""
        where = {
            "table": table,
            "proto": proto,
            "dst": str(network),
            "family": _FAMILY[network.version],
        }
        try:
            await self._ask("route", "del", scope=_SCOPE_NOWHERE, **where)
        except NetlinkError as error:
            if error.code not in (errno.ESRCH, errno.ENOENT):
                raise _refusal(f"removing {network} from table {table}", error) from error

    async def routed_networks(self, table: int, proto: int) -> list[Network]:
        """Return the networks to which a table has routes of this protocol."""
        found: list[Network] = []
        for family in _FAMILY.values():
            try:
                messages = await self._ask("route", "dump", family=family, table=table)
            except NetlinkError as error:
                if error.code == errno.ENOENT:  # nobody has made that table yet
                    continue
                raise _refusal(f"reading table {table}", error) from error
            for message in messages:
                if message["proto"] == proto and message.get("table") == table:
                    default = "0.0.0.0" if family == socket.AF_INET else "::"
                    address = message.get("dst") or default
                    found.append(ipaddress.ip_network(f"{address}/{message['dst_len']}"))
        return found

    async def _change_address(self, command: str, link: Link, address: str) -> None:
        ip, _, length = address.partition("/")
        arguments = {"index": link.index, "address": ip, "prefixlen": int(length)}
        await self._ask("addr", command, **arguments)

    async def _tap(self, name: str) -> Link:
        link = await self.link(name)
        if link is None:
            raise SystemRefusal(f"there is no interface {name}")
        return link

    async def _set(self, link: Link, doing: str, **attributes: Any) -> None:
        try:
            await self._ask("link", "set", index=link.index, **attributes)
        except NetlinkError as error:
            raise _refusal(f"{doing} {link.name}", error) from error

    # --- being told

    async def watch(
        self, tap: str, bridge: str | None = None, ignore: Collection[str] = ()
    ) -> AsyncIterator[Event]:
        """Yield the state of now, as events, and then each change, about 0.1 s after the kernel's.

        ``bridge`` is the configured name. Bridge entries that disappear are yielded at once. The
        TAP's MTU is made to follow its bridge's.
        """
        told: dict[type, Event] = {}
        here = LinkChanged(None, None, None)
        unknown = False
        self._events.mark()
        while True:
            gone, changed, lost = await self._events.wait()
            unknown = unknown or lost
            if here.tap is not None and here.bridge is not None:
                bridge_index, port = here.bridge.index, here.tap.index
                mine = [g for g in gone if g.bridge == bridge_index and g.port != port]
                if mine:
                    yield EntriesGone(tuple(as_the_tap_sees(g, here.bridge) for g in mine))
            if not changed:
                continue
            try:
                state = await self._state(tap, bridge, ignore, unknown)
            except SystemRefusal:  # reading needs no permission: it changes too fast
                self._events.mark()
                continue
            unknown = False
            for event in state:
                if isinstance(event, LinkChanged):
                    here = event
                if told.get(type(event)) != event or isinstance(event, EntriesUnknown):
                    told[type(event)] = event
                    yield event

    async def _state(
        self, tap: str, bridge: str | None, ignore: Collection[str], lost: bool
    ) -> list[Event]:
        link = await self.link(tap)
        home = await self.link(link.master) if link is not None and link.master else None
        configured = await self.link(bridge) if bridge is not None else None
        if link is not None and home is not None:
            with suppress(SystemRefusal):  # one of them is just going away: there will be word
                link = await self._follow_mtu(link, home, lost)
        events: list[Event] = [LinkChanged(link, home, configured)]
        there = await self.bridge_addresses(home) if home is not None else frozenset()
        events.append(BridgeAddressChanged(there))
        events.append(await self.host_addresses(tap, ignore, bridge))
        events.append(RouteChanged(await self.default_routes()))
        if lost and home is not None and link is not None:
            entries = await self.bridge_entries(home)
            present = frozenset(key for key, port in entries.items() if port != link.index)
            events.append(EntriesUnknown(present))
        return events

    async def _follow_mtu(self, tap: Link, bridge: Link, lost: bool) -> Link:
        """Give ``tap`` the MTU that its bridge has, or could have without it; return the TAP.

        A bridge takes the smallest MTU of its ports: while only the TAP limits it, its smallest
        other port counts.
        """
        known = self._events.port_mtus
        if lost or bridge.index not in known:
            known.clear()
            known[bridge.index] = {}
            for message in await self._dump("link", master=bridge.index):
                known[bridge.index][message["index"]] = message.get("mtu")
        others = [mtu for port, mtu in known[bridge.index].items() if port != tap.index]
        wanted = max(bridge.mtu, min(others, default=bridge.mtu))
        if tap.mtu == wanted:
            return tap
        await self.set_mtu(tap.name, wanted)
        return await self._tap(tap.name)


def _encapsulation(target: Target) -> list[list[Any]]:
    """Return the attributes of a next hop that is the far end of an IPv6 tunnel."""
    values = {
        _IP6_ID: bytes(8),
        _IP6_DST: target.packed,
        _IP6_SRC: bytes(16),
        _IP6_HOPLIMIT: bytes(1),
    }
    encoded = b""
    for kind, value in values.items():
        attribute = struct.pack("=HH", 4 + len(value), kind) + value
        encoded += attribute + bytes(-len(attribute) % 4)
    return [["RTA_ENCAP_TYPE", _ENCAP_IP6], ["RTA_ENCAP", encoded]]


def _refusal(doing: str, error: NetlinkError) -> SystemRefusal:
    if error.code in (errno.EPERM, errno.EACCES):
        return SystemRefusal(f"{doing} is not permitted", "run as root or with CAP_NET_ADMIN")
    return SystemRefusal(f"{doing} failed: {error.args[-1]}")
