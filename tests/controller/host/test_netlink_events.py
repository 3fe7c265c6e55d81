"""Notifications of the kernel, read in place."""

import struct
import sys

from controller.host.netlink_events import _gone_entry

REACHABLE = 2


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
