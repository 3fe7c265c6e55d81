"""New keys and new addresses under full load: no record is lost or refused for them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from lab import Lab, Router
from lab.layouts import build
from tests.netns.traffic import Files, Numbered, start_tincan

# Every second; and each INIT leaves its news in the log, to be counted.
OFTEN = """
import logging, tincan.session.session as session
session.REKEY_AFTER = 1.0
add = session.Session._add
def counted(self, *args):
    logging.getLogger("test").warning("another generation of keys")
    return add(self, *args)
session.Session._add = counted
"""
# Counters that begin beyond 32 bits, and a replay window that has seen as much.
HIGH = """
import tincan.session.session as session
create = session.SealingKey.__init__
def late(self, *args):
    create(self, *args)
    self.counter = (1 << 32) + 5
session.SealingKey.__init__ = late
session.REKEY_AFTER_RECORDS = 1 << 33
"""


REBIND = """
table ip rebind {
    chain postrouting {
        type nat hook postrouting priority srcnat - 1; policy accept;
        oifname "wan" meta l4proto udp masquerade to :61000-61999
    }
}
"""


def lost_records(counters: dict[str, Any]) -> dict[str, int]:
    """What says that a record was not taken."""
    found = {f"record.{k}": n for k, n in counters.get("records_dropped", {}).items()}
    found |= {f"datagram.{k}": n for k, n in counters.get("datagrams_dropped", {}).items()}
    return {name: count for name, count in found.items() if count}


@pytest.mark.parametrize("changes", [OFTEN, HIGH], ids=["rekey every second", "64-bit counters"])
def test_no_record_is_lost(lab: Lab, changes: str) -> None:
    hosts = build(lab, ["lan", "lan"])
    a = hosts.a.container("c5", "10.0.3.5/24")
    b = hosts.b.container("c7", "10.0.3.7/24")
    logs = []
    assert hosts.rendezvous.running
    for host in (hosts.a, hosts.b):
        start_tincan(host, changes)
        logs.append(host.path("/run/switchmode/lab/tincan.log"))
    controllers = hosts.connect()
    a.wait_ping(b.ip)
    before = [lost_records(controller.counters()) for controller in controllers]
    with (
        Files([(a, b, b.ip), (b, a, a.ip)], 40),
        Numbered(a, b, b.ip, seconds=4, size=200, rate=1000) as there,
        Numbered(b, a, a.ip, seconds=4, size=1400, rate=500, port=7102) as back,
    ):
        pass
    for flow in (there, back):
        assert flow.received["received"] == flow.sent["sent"]
        assert (flow.received["late"], flow.received["damaged"]) == (0, 0)
    assert [lost_records(controller.counters()) for controller in controllers] == before
    if changes == OFTEN:
        for log in logs:
            assert log.read_text().count("another generation") >= 4
    for controller in controllers:
        (peer,) = controller.ask("status")["peers"]
        assert peer["state"] == "connected"


def test_a_nat_forgets_under_load(lab: Lab) -> None:
    """a's NAT gives its link another port, as after a restart: the peer follows at once."""
    hosts = build(lab, ["easy", "public"])
    a = hosts.a.container("c5", "10.0.3.5/24")
    b = hosts.b.container("c7", "10.0.3.7/24")
    one, two = hosts.connect()
    a.wait_ping(b.ip)
    (seen,) = (peer["path"]["address"] for peer in two.ask("status")["peers"])
    router = lab.networks["nat-a"]
    assert isinstance(router, Router)
    wan = router.wan
    with Files([(a, b, b.ip), (b, a, a.ip)], 60) as files:
        # Other ports for new mappings; and the kernel forgets those of an address that goes.
        router.run(["nft", "-f", "-"], input=REBIND)
        router.run(
            f"ip addr del {wan.ip4}/24 dev wan; ip addr add {wan.ip4}/24 dev wan;"
            f"ip route replace default via {wan.network.gateway4}"
        )
        began = time.monotonic()
        (now,) = (seen,)
        while now == seen:
            assert time.monotonic() - began < 3
            (now,) = (peer["path"]["address"] for peer in two.ask("status")["peers"])
        took = time.monotonic() - began
        while not a.ping(b.ip, 1, "-W", "0.3").received:
            assert time.monotonic() - began < 3
        assert not files.finished
    print(f"{seen} became {now} after {took:.2f} s")
    assert 61000 <= int(now.rpartition(":")[2]) < 62000
    assert two.counters()["paths_roamed"] == 1
    assert one.connected() == {"b"}
