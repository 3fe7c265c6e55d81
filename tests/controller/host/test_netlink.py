"""VLANs in netlink's messages: a twin of a filtering bridge's, which this kernel does not have."""

from dataclasses import replace
from typing import Any

from controller.host.interfaces import Link
from controller.host.netlink import Netlink

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
