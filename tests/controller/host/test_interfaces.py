"""Messages of a kernel that filters VLANs, which the one of the tests does not."""

from dataclasses import replace
from typing import Any

from controller.host.interfaces import GoneEntry, Link, address_of, as_the_tap_sees, link_of


class Message(dict[Any, Any]):
    """A twin of pyroute2's messages: fields, and attributes by name or path."""


def bridge(**data: int) -> Link:
    values: dict[Any, Any] = {("linkinfo", "data", name): value for name, value in data.items()}
    values |= {("linkinfo", "kind"): "bridge", "index": 2, "ifname": "br0", "flags": 0x11043}
    values |= {"mtu": 1500, "address": "00:16:3e:00:00:00"}
    return link_of(Message(values))


FILTERING = bridge(br_vlan_filtering=1, br_vlan_default_pvid=1, br_ageing_time=30000)
PLAIN = bridge(br_vlan_filtering=0, br_vlan_default_pvid=1, br_ageing_time=30000)
ENTRY = GoneEntry("02:00:00:00:00:01", 1, 3, 2, 0.0)


def test_a_filtering_bridge_knows_untagged_frames_by_a_number_that_no_port_sees() -> None:
    assert FILTERING.untagged == 1
    assert as_the_tap_sees(ENTRY, FILTERING).vlan == 0
    assert as_the_tap_sees(replace(ENTRY, vlan=5), FILTERING).vlan == 5


def test_a_plain_bridge_knows_no_vlans() -> None:
    assert PLAIN.untagged == 0
    assert as_the_tap_sees(replace(ENTRY, vlan=0), PLAIN).vlan == 0


def test_times_of_a_bridge_are_in_seconds() -> None:
    assert PLAIN.ageing == 300.0


def test_a_port_in_a_state_that_nobody_knows() -> None:
    message = {"index": 3, "ifname": "v0", "flags": 0, ("linkinfo", "slave_kind"): "bridge"}
    assert link_of(Message({**message, ("linkinfo", "slave_data", "state"): 3})).port_state == (
        "forwarding"
    )
    assert link_of(Message({**message, ("linkinfo", "slave_data", "state"): 9})).port_state is None
    assert link_of(Message(message)).port_state is None


def test_the_own_end_of_a_point_to_point_address() -> None:
    message = {"local": "10.0.0.1", "address": "10.0.0.2", "index": 4, "prefixlen": 32}
    address = address_of(Message({**message, "scope": 0, "flags": 0x80}))
    assert (address.ip, address.interface) == ("10.0.0.1", "10.0.0.1/32")
