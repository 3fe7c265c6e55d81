"""VLANs in netlink's messages: a twin of a filtering bridge's, which this kernel does not have."""

import struct
import sys
from dataclasses import replace
from typing import Any

from controller.host.interfaces import Link
from controller.host.netlink import Netlink
from controller.host.netlink_events import _gone_entry

BRIDGE = Link(
    index=2,
    name="br0",
    mac="00:16:3e:00:00:00",
    mtu=1500,
    up=True,
    running=True,
    loopback=False,
    kind="bridge",
    master=None,
    parent=None,
    port_state=None,
    stp=False,
    forward_delay=15.0,
    ageing=300.0,
    untagged=1,
)
REACHABLE, PERMANENT = 0x02, 0x80  # linux/neighbour.h


class Twin(Netlink):
    """Netlink with the kernel's answers at hand."""

    def __init__(self, entries: list[dict[str, Any]]) -> None:
        self._entries = entries

    async def _dump(self, what: str, **filters: int) -> list[Any]:
        assert (what, filters) == ("neigh", {"family": 7})
        return self._entries


def entry(mac: str, vlan: int | None, port: int = 5, state: int = REACHABLE) -> dict[str, Any]:
    return {"lladdr": mac, "vlan": vlan, "ifindex": port, "master": 2, "state": state}


async def test_entries_of_a_filtering_bridge() -> None:
    twin = Twin(
        [
            entry("02:00:00:00:00:01", 1),  # untagged at its port
            entry("02:00:00:00:00:01", 7, 6),
            entry("02:00:00:00:00:02", 9, 7),
            entry("02:00:00:00:00:03", 7, 5, PERMANENT),
        ]
    )
    assert await twin.bridge_entries(BRIDGE) == {
        ("02:00:00:00:00:01", 0): 5,
        ("02:00:00:00:00:01", 7): 6,
        ("02:00:00:00:00:02", 9): 7,
    }


async def test_entries_of_a_plain_bridge() -> None:
    twin = Twin([entry("02:00:00:00:00:01", None)])
    plain = replace(BRIDGE, untagged=0)
    assert await twin.bridge_entries(plain) == {("02:00:00:00:00:01", 0): 5}


def attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data.ljust(-(-len(data) // 4) * 4, b"\0")


def test_an_entry_that_goes() -> None:
    """RTM_DELNEIGH as br_fdb.c's fdb_fill_info makes it."""
    head = struct.pack("=BxxxiHBB", 7, 5, REACHABLE, 0, 0)
    mac = attribute(2, bytes.fromhex("020000000001"))
    rest = attribute(9, struct.pack("=I", 2)) + attribute(3, struct.pack("=4I", 0, 0, 400, 0))
    tagged = _gone_entry(head + mac + rest + attribute(5, (7).to_bytes(2, sys.byteorder)))
    assert tagged is not None
    assert (tagged.mac, tagged.vlan, tagged.port, tagged.bridge) == ("02:00:00:00:00:01", 7, 5, 2)
    assert tagged.silent_for == 4.0
    untagged = _gone_entry(head + mac + rest)
    assert untagged is not None
    assert untagged.vlan == 0
