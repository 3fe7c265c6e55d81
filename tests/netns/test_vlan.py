"""VLANs on the real kernel: tagged frames through plain bridges, tables of their own for each VID.

The kernel here has neither 802.1Q devices nor filtering bridges: hosts in a VLAN are sockets that
send tagged frames and answer as a kernel would. What is unproven is a bridge that filters.
"""

from __future__ import annotations

import functools
import ipaddress
import socket
import struct
import threading
import time
from typing import Any

import pytest
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.utils6 import in6_getnsma, in6_getnsmac

from lab import Container, Controller, Host, Lab, wait_until
from lab.capture import _retag
from lab.layouts import Hosts, build

SOL_PACKET, PACKET_AUXDATA, ETH_P_ALL, OUTGOING = 263, 8, 3, 4
ALL = "ff:ff:ff:ff:ff:ff"
PAYLOAD = 0x88B6  # IEEE 802 local experimental, the second one


class Tagged:
    """A host with one address in VLAN `vid`, on `container`'s interface; `priority` is its tags'.

    It answers ARP and neighbour solicitations. `heard` are all frames of its VLAN for it, in order.
    """

    def __init__(
        self, container: Container, vid: int, mac: str, ip: str, *, priority: int = 0
    ) -> None:
        self.vid, self.mac, self.ip, self.priority = vid, mac, ip, priority
        self.heard: list[Any] = []
        self._socket = container.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        self._socket.bind(("eth0", ETH_P_ALL))
        request = container.call(lambda: socket.if_nametoindex("eth0"))
        self._socket.setsockopt(SOL_PACKET, 1, struct.pack("IHH8s", request, 1, 0, b""))
        self._socket.settimeout(0.1)
        self._open = True
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> Tagged:
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while self._open:
            try:
                data, ancillary, _, address = self._socket.recvmsg(2000, 256)
            except TimeoutError:
                continue
            if address[2] == OUTGOING:
                continue
            frame = Ether(_retag(data, ancillary))
            if frame.dst != self.mac and not int(frame.dst[:2], 16) & 1:
                continue
            if Dot1Q in frame and frame[Dot1Q].vlan == self.vid:
                self.heard.append(frame)
                self._answer(frame)

    def _answer(self, frame: Any) -> None:
        if ARP in frame and frame[ARP].op == 1 and frame[ARP].pdst == self.ip:
            asked = frame[ARP]
            reply = ARP(op=2, hwsrc=self.mac, psrc=self.ip, hwdst=asked.hwsrc, pdst=asked.psrc)
            self.send(frame.src, reply)
        elif ICMPv6ND_NS in frame and frame[ICMPv6ND_NS].tgt == self.ip:
            self.send(
                frame.src,
                IPv6(src=self.ip, dst=frame[IPv6].src)
                / ICMPv6ND_NA(tgt=self.ip, R=0, S=1, O=1)
                / ICMPv6NDOptDstLLAddr(lladdr=self.mac),
            )

    def send(self, destination: str, payload: Any, kind: int | None = None) -> None:
        """Send a frame with our tag."""
        tag = Dot1Q(vlan=self.vid, prio=self.priority)
        if kind is not None:
            tag.type = kind
        self._socket.send(bytes(Ether(dst=destination, src=self.mac) / tag / payload))

    def ask(self, ip: str, timeout: float = 2.0) -> list[str]:
        """Ask our VLAN for `ip`; return the MACs in the answers that came within 0.3 s of the
        first."""
        begun = len(self.heard)
        if ":" in ip:
            group = in6_getnsma(ipaddress.ip_address(ip).packed)
            self.send(
                in6_getnsmac(group),
                IPv6(src=self.ip, dst=str(ipaddress.ip_address(group)), hlim=255)
                / ICMPv6ND_NS(tgt=ip)
                / ICMPv6NDOptSrcLLAddr(lladdr=self.mac),
            )
        else:
            self.send(ALL, ARP(op=1, hwsrc=self.mac, psrc=self.ip, pdst=ip))

        def answers() -> list[str]:
            new = self.heard[begun:]
            arp = [f[ARP].hwsrc for f in new if ARP in f and (f[ARP].op, f[ARP].psrc) == (2, ip)]
            nd = [f[ICMPv6NDOptDstLLAddr].lladdr for f in new if ICMPv6ND_NA in f]
            return arp + nd

        end = time.monotonic() + timeout
        while not answers() and time.monotonic() < end:
            time.sleep(0.01)
        if answers():
            time.sleep(0.3)
        return answers()

    def payloads(self) -> list[bytes]:
        """What was sent to us with EtherType PAYLOAD."""
        return [bytes(f[Dot1Q].payload)[:8] for f in self.heard if f[Dot1Q].type == PAYLOAD]


def is_attached(host: Host) -> bool:
    log: str = host.path("/run/switchmode/lab/tincan.log").read_text()
    return "controller attached" in log


def attached(hosts: Hosts) -> list[Controller]:
    """Connected controllers that speak for ARP: before that, tincan forwards it as it is."""
    controllers = hosts.connect()
    for host in hosts.hosts:
        wait_until(functools.partial(is_attached, host), 5, "attached")
    time.sleep(0.2)  # the peers are told
    return controllers


def entries(controller: Controller, kind: str, mac: str) -> set[tuple[int, str]]:
    """(VLAN, where) of `mac` among the `bindings` or `fdb` of the controller's status."""
    found = controller.ask("status")[kind]
    return {(entry["vlan"], entry["at"]) for entry in found if entry["mac"] == mac}


TWIN, TWIN_IP = "02:00:00:00:77:77", "10.0.3.77"


@pytest.mark.parametrize("in_band", [False, True], ids=["auxdata", "in-band"])
def test_vlans_have_tables_of_their_own(lab: Lab, in_band: bool) -> None:
    """One MAC and one address in VLANs 7 and 9, at different nodes; a third host uses both."""
    hosts = build(lab, ["public", "public", "public"], profile="unequal")
    c = hosts.hosts[2]
    untagged = c.container("plain", "10.0.3.50/24")
    places = {host.name: host.container("tagged") for host in hosts.hosts}
    controllers = dict(zip("abc", attached(hosts), strict=True))
    if in_band:  # the TAP's driver takes no tag in the packet's metadata any more
        for host in hosts.hosts:
            host.run(
                "ethtool -K ipop tx-vlan-hw-insert off 2>/dev/null || ethtool -K ipop txvlan off"
            )
    with (
        Tagged(places["a"], 7, TWIN, TWIN_IP, priority=3) as seven,
        Tagged(places["b"], 9, TWIN, TWIN_IP) as nine,
        Tagged(places["c"], 7, "02:00:00:00:00:c7", "10.0.3.57", priority=6) as asker7,
        Tagged(places["c"], 9, "02:00:00:00:00:c9", "10.0.3.59") as asker9,
    ):
        assert asker7.ask(TWIN_IP) == [TWIN]
        assert asker9.ask(TWIN_IP) == [TWIN]
        assert untagged.arping(TWIN_IP) == []
        both = {(7, "a"), (9, "b")}
        wait_until(lambda: entries(controllers["c"], "bindings", TWIN) == both, 3, "two bindings")
        wait_until(lambda: entries(controllers["c"], "fdb", TWIN) == both, 3, "two entries")
        assert entries(controllers["a"], "bindings", TWIN) == {(7, "local"), (9, "b")}
        assert not controllers["c"].ask("status")["conflicts"]

        # Frames go to the one of their VLAN, and nowhere else.
        for number in range(5):
            asker7.send(TWIN, b"seven%03d" % number + bytes(38), PAYLOAD)
            asker9.send(TWIN, b"nine %03d" % number + bytes(38), PAYLOAD)
        wait_until(lambda: len(seven.payloads()) >= 5 and len(nine.payloads()) >= 5, 3, "frames")
        assert seven.payloads() == [b"seven%03d" % number for number in range(5)]
        assert nine.payloads() == [b"nine %03d" % number for number in range(5)]
        seven.send(asker7.mac, b"back  07" + bytes(38), PAYLOAD)
        nine.send(asker9.mac, b"back  09" + bytes(38), PAYLOAD)
        wait_until(lambda: bool(asker7.payloads() and asker9.payloads()), 3, "frames back")
        assert (asker7.payloads(), asker9.payloads()) == ([b"back  07"], [b"back  09"])
        # The priority is the sender's, all the way.
        assert {f[Dot1Q].prio for f in seven.heard if f[Dot1Q].type == PAYLOAD} == {6}
        # A broadcast stays in its VLAN.
        asker7.send(ALL, b"all of 7" + bytes(38), PAYLOAD)
        wait_until(lambda: b"all of 7" in seven.payloads(), 3, "the broadcast")
        assert seven.payloads().count(b"all of 7") == 1
        assert b"all of 7" not in nine.payloads()

        # Repeats are answered here, tagged, whatever the asker's priority.
        before = controllers["c"].counters()["arp_answered_locally"]
        asked = len(seven.heard)
        for priority in (0, 5):
            asker7.priority = priority
            assert asker7.ask(TWIN_IP) == [TWIN]
        assert controllers["c"].counters()["arp_answered_locally"] == before + 2
        assert not [f for f in seven.heard[asked:] if ARP in f and f[ARP].psrc == asker7.ip]

        # It moves within VLAN 7; VLAN 9 does not care.
        with Tagged(places["b"], 7, TWIN, TWIN_IP) as moved:
            seven.mac, seven.ip = "02:00:00:00:00:ff", "10.0.3.254"
            moved.send(ALL, ARP(op=1, hwsrc=TWIN, psrc=TWIN_IP, pdst=TWIN_IP))
            after = {(7, "b"), (9, "b")}
            wait_until(
                lambda: entries(controllers["c"], "bindings", TWIN) == after, 3, "the move in 7"
            )
            asker7.send(TWIN, b"moved  7" + bytes(38), PAYLOAD)
            wait_until(lambda: b"moved  7" in moved.payloads(), 3, "the frame to the new place")
            assert asker9.ask(TWIN_IP) == [TWIN]


def test_neighbour_discovery_in_a_vlan(lab: Lab) -> None:
    hosts = build(lab, ["public", "public"], profile="unequal")
    a, b = hosts.hosts
    places = a.container("tagged"), b.container("tagged")
    one, two = attached(hosts)
    with (
        Tagged(places[0], 7, "02:00:00:00:00:a7", "fd00::a7") as owner,
        Tagged(places[1], 7, "02:00:00:00:00:b7", "fd00::b7") as asker,
        Tagged(places[1], 8, "02:00:00:00:00:b8", "fd00::b8") as stranger,
    ):
        assert asker.ask(owner.ip) == [owner.mac]
        wait_until(
            lambda: entries(two, "bindings", owner.mac) == {(7, "a")}, 3, "the owner's binding"
        )
        before = two.counters()["arp_answered_locally"]
        assert asker.ask(owner.ip) == [owner.mac]
        assert two.counters()["arp_answered_locally"] == before + 1
        answer = next(f for f in reversed(asker.heard) if ICMPv6ND_NA in f)
        assert (answer[ICMPv6ND_NA].S, answer[ICMPv6ND_NA].O, answer[IPv6].hlim) == (1, 1, 255)
        assert stranger.ask(owner.ip, 0.8) == []
        assert entries(one, "bindings", owner.mac) == {(7, "local")}
    # Its port goes: a plain bridge knows nothing of the VLAN, and its binding goes all the same.
    places[0].stop()
    wait_until(lambda: not entries(two, "bindings", owner.mac), 2, "the withdrawal")
