"""The TAP's place, on a host in memory."""

import asyncio
from collections.abc import AsyncIterator, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.config.load import check
from controller.errors import SystemRefusal
from controller.host.interfaces import (
    AddressChanged,
    BridgeAddressChanged,
    EntriesGone,
    EntriesUnknown,
    Event,
    GoneEntry,
    Link,
    LinkChanged,
    RouteChanged,
)
from controller.host.tap import DEFAULT_AGEING_S, LOOK_AGAIN_S, TapPlacement, moved_away
from controller.packets.addresses import Ip, Mac, Vlan

TAP = Link(
    index=5,
    name="ipop",
    mac="fe:00:00:00:00:01",
    mtu=1500,
    up=True,
    running=True,
    loopback=False,
    kind="tun",
    master=None,
    parent=None,
    port_state=None,
    stp=False,
    forward_delay=0.0,
    ageing=0.0,
    untagged=0,
)
BRIDGE = replace(TAP, index=2, name="br0", kind="bridge", ageing=300.0, forward_delay=15.0)
OTHER = replace(BRIDGE, index=3, name="br1")
A, B = "02:00:00:00:00:0a", "02:00:00:00:00:0b"


class Twin:
    """A host with a TAP; ``done`` is what was asked of it, ``events`` is what it will tell."""

    def __init__(self, *links: Link) -> None:
        self.links = {link.name: link for link in links}
        self.events: list[Event] = []
        self.done: list[Any] = []
        self.refuses = ""
        self.firewall: str | None = None

    def _do(self, *what: Any) -> None:
        self.done.append(what)
        if self.refuses == what[0]:
            raise SystemRefusal(f"{what[0]} is not permitted")

    async def link(self, which: str | int) -> Link | None:
        found = (link for link in self.links.values() if which in (link.name, link.index))
        return next(found, None)

    async def bridge_addresses(self, bridge: Link) -> frozenset[tuple[Ip, Mac]]:
        return frozenset({("10.0.3.1", bridge.mac)})

    async def bridge_nf_drops(self, bridge: Link) -> str | None:
        self._do("firewall", bridge.name)
        return self.firewall

    async def attach(self, tap: str, bridge: str) -> Link:
        self._do("attach", tap, bridge)
        port = replace(self.links[tap], master=self.links[bridge].index, port_state="forwarding")
        self.links[tap] = port
        return port

    async def forget_entries(self, bridge: Link) -> None:
        self._do("forget", bridge.name)

    async def silence(self, tap: str) -> None:
        self._do("silence", tap)

    async def become_multicast_router(self, tap: str) -> None:
        self._do("router", tap)

    async def set_up(self, tap: str, up: bool = True) -> None:
        self._do("up", tap)

    async def set_addresses(self, tap: str, wanted: Collection[str]) -> bool:
        self._do("addresses", *wanted)
        return True

    async def watch(
        self, tap: str, bridge: str | None = None, ignore: Collection[str] = ()
    ) -> AsyncIterator[Event]:
        assert (tap, bridge, tuple(ignore)) == ("ipop", "br0", ("docker*",))
        for event in self.events:
            yield event


class Placed:
    """A placement on a twin, and what its callbacks heard."""

    def __init__(self, twin: Twin, **more: Any) -> None:
        self.twin = twin
        self.hosts: list[AddressChanged] = []
        self.bridges: list[frozenset[tuple[Ip, Mac]]] = []
        self.routes = 0
        self.gone: list[Collection[tuple[Mac, Vlan | None]]] = []
        given: dict[str, Any] = {
            "network": "lab",
            "secret": "correct horse battery",
            "signal": "ws://r",
        }
        given |= {"bridge": "br0", "network_ignore_list": ["docker*"], **more}
        self.placement = TapPlacement(
            check({key: value for key, value in given.items() if value}, Path("switch.json")),
            twin,
            host_addresses=self.hosts.append,
            bridge_addresses=self.bridges.append,
            routes_changed=self._routes_changed,
            ports_gone=self.gone.append,
        )

    def _routes_changed(self) -> None:
        self.routes += 1

    async def hear(self, *events: Event) -> None:
        self.twin.events = list(events)
        await self.placement.run()


class TestPrepare:
    async def test_joins_its_bridge(self) -> None:
        placed = Placed(Twin(TAP, BRIDGE))
        await placed.placement.prepare()
        assert placed.twin.done == [("silence", "ipop"), ("attach", "ipop", "br0")]
        assert placed.placement.bridge_name == "br0"
        assert placed.placement.state == "forwarding"
        assert placed.bridges == [frozenset({("10.0.3.1", BRIDGE.mac)})]

    async def test_waits_for_a_bridge_that_does_not_exist(self) -> None:
        placed = Placed(Twin(TAP))
        await placed.placement.prepare()
        assert placed.placement.bridge is None
        assert placed.placement.state == "up"
        assert placed.placement.warnings() == [
            "bridge br0 does not exist: create it, the TAP joins by itself"
        ]

    async def test_stays_where_it_is(self) -> None:
        placed = Placed(Twin(replace(TAP, master=3, port_state="forwarding"), BRIDGE, OTHER))
        await placed.placement.prepare()
        assert placed.twin.done == [("silence", "ipop")]
        assert placed.placement.bridge_name == "br1"

    async def test_says_why_it_stays_out(self) -> None:
        twin = Twin(TAP, BRIDGE)
        twin.refuses = "attach"
        placed = Placed(twin)
        await placed.placement.prepare()
        assert placed.placement.bridge is None
        assert placed.placement.warnings() == [
            "TAP ipop stays out of bridge br0: attach is not permitted"
        ]

    async def test_has_its_addresses_in_no_bridge(self) -> None:
        placed = Placed(Twin(TAP), bridge=None, ip4="172.16.0.1", ip6="fd00::5")
        await placed.placement.prepare()
        assert placed.twin.done[-2:] == [
            ("up", "ipop"),
            ("addresses", "172.16.0.1/24", "fd00::5/64"),
        ]

    def test_state_of_a_tap_that_is_absent_or_down(self) -> None:
        placement = Placed(Twin()).placement
        assert placement.state == "absent"
        placement.tap = replace(TAP, up=False)
        assert placement.state == "down"


class TestRun:
    async def test_a_bridge_that_returns_gets_its_port_back(self) -> None:
        placed = Placed(Twin(TAP, BRIDGE))
        await placed.placement.prepare()
        placed.twin.done.clear()
        await placed.hear(LinkChanged(TAP, None, None), LinkChanged(TAP, None, BRIDGE))
        assert [each for each in placed.twin.done if each[0] == "attach"] == [
            ("attach", "ipop", "br0")
        ]
        assert placed.placement.bridge_name == "br0"

    async def test_a_user_who_moves_the_tap_is_noticed(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        placed = Placed(Twin(TAP, BRIDGE, OTHER))
        moved = replace(TAP, master=3, up=False)
        await placed.hear(LinkChanged(moved, OTHER, BRIDGE))
        assert ("router", "ipop") in placed.twin.done
        assert ("silence", "ipop") in placed.twin.done
        assert ("up", "ipop") in placed.twin.done
        assert placed.placement.bridge_name == "br1"
        assert "TAP ipop is in bridge br1" in caplog.text

    async def test_what_others_are_told(self) -> None:
        placed = Placed(Twin(TAP, BRIDGE))
        addresses = AddressChanged(("192.0.2.1",))
        await placed.hear(
            addresses,
            BridgeAddressChanged(frozenset({("10.0.3.1", A)})),
            RouteChanged(frozenset()),
            RouteChanged(frozenset()),
            RouteChanged(frozenset({(4, "192.0.2.254", "eth0")})),
            EntriesUnknown(frozenset()),
        )
        assert placed.hosts == [addresses]
        assert placed.bridges == [frozenset({("10.0.3.1", A)})]
        assert placed.routes == 1
        assert placed.gone == []

    async def test_ports_that_are_gone(self) -> None:
        placed = Placed(Twin(TAP, BRIDGE))
        await placed.hear(EntriesGone((GoneEntry(A, 0, 6, 2, 299.0),)))
        assert placed.gone == []
        await placed.hear(EntriesGone((GoneEntry(A, 0, 6, 2, 1.0),)))
        assert placed.gone == [{(A, None)}]


class TestMovedAway:
    def test_entries_that_aged_out_are_left_out(self) -> None:
        event = EntriesGone((GoneEntry(A, 0, 6, 2, 0.0), GoneEntry(B, 0, 6, 2, 280.0)))
        assert moved_away(event, BRIDGE) == {(A, None)}
        assert moved_away(event, replace(BRIDGE, ageing=1000.0)) == {(A, None), (B, None)}
        assert DEFAULT_AGEING_S == 300.0
        assert moved_away(event, None) == {(A, None)}

    def test_vlans_count_on_a_bridge_that_filters_them(self) -> None:
        event = EntriesGone((GoneEntry(A, 0, 6, 2, 0.0), GoneEntry(B, 7, 6, 2, 0.0)))
        assert moved_away(event, replace(BRIDGE, untagged=1)) == {(A, 0), (B, 7)}
        assert moved_away(event, BRIDGE) == {(A, None), (B, 7)}


class TestCheck:
    async def test_the_firewall_is_read_seldom_unless_it_drops(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        placed = Placed(Twin(TAP, BRIDGE))
        await placed.placement.prepare()
        placed.twin.done.clear()

        async def look(now: float) -> list[str]:
            return await placed.placement.check(now)

        assert await look(0.0) == []
        assert await look(LOOK_AGAIN_S - 1) == []
        assert placed.twin.done == [("firewall", "br0")]
        placed.twin.firewall = "it drops; cure"
        assert await look(LOOK_AGAIN_S) == ["it drops; cure"]
        assert await look(LOOK_AGAIN_S + 1) == ["it drops; cure"]
        assert len(placed.twin.done) == 3
        assert caplog.text.count("it drops; cure") == 1
        placed.twin.firewall = None
        assert await look(LOOK_AGAIN_S + 2) == []

    async def test_spanning_tree(self) -> None:
        placed = Placed(Twin(TAP, BRIDGE))
        await placed.placement.prepare()
        placed.placement.tap = replace(TAP, master=2, port_state="learning")
        (told,) = placed.placement.warnings()
        assert told.startswith("the bridge holds TAP ipop in learning for spanning tree's 30 s: ")

    async def test_a_refused_flush_is_only_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        placed = Placed(Twin(TAP, BRIDGE))
        await placed.placement.forget_entries()
        assert placed.twin.done == []
        await placed.placement.prepare()
        placed.twin.refuses = "forget"
        async with asyncio.timeout(10):
            await placed.placement.forget_entries()
        assert "forget is not permitted" in caplog.text
