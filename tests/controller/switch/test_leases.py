"""Containers that take a lease in silence are asked for it."""

import contextlib
from collections import Counter

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from controller.errors import MalformedFrame
from controller.node.actions import Inject
from controller.packets import filters as bpf
from controller.packets.addresses import NO_IP4
from controller.packets.decode import parse
from controller.packets.encode import build
from controller.packets.packets import ARP_REPLY, ARP_REQUEST, Arp, LeaseRequest
from controller.switch.claims import CLAIM_S
from controller.switch.leases import ASK_AFTER, MAX_FOLLOWED
from controller.switch.switch import Switch
from tests.controller.packets.test_filters import passes

MAC = "00:16:3e:00:00:05"
IP_ADDRESS = "10.0.3.5"
WANTED = LeaseRequest(IP_ADDRESS, MAC, 0)


def dhcp(kind: str = "request", *options: object, mac: str = MAC) -> bytes:
    """What busybox's udhcpc broadcasts."""
    raw = bytes.fromhex(MAC.replace(":", ""))
    requested = [("requested_addr", IP_ADDRESS)] if kind == "request" else []
    return bytes(
        Ether(src=mac, dst="ff:ff:ff:ff:ff:ff")
        / IP(src="0.0.0.0", dst="255.255.255.255")
        / UDP(sport=68, dport=67)
        / BOOTP(chaddr=raw, xid=7)
        / DHCP(options=[("message-type", kind), *requested, *options, "end"])
    )


def test_a_request_names_the_address() -> None:
    assert parse(dhcp(), None) == WANTED
    assert parse(dhcp("request", ("hostname", b"c5"), "pad"), None) == WANTED
    tag = bytes.fromhex("81000005")
    assert parse(dhcp()[:12] + tag + dhcp()[12:], None) == LeaseRequest(IP_ADDRESS, MAC, 5)


@pytest.mark.parametrize("kind", ["discover", "decline", "release", "inform"])
def test_other_messages_do_not_concern_us(kind: str) -> None:
    assert parse(dhcp(kind), None) is None


def test_a_relay_agent_asks_for_others() -> None:
    assert parse(dhcp(mac="00:16:3e:00:00:99"), None) is None


def test_what_is_cut_or_garbled_is_refused_or_ignored() -> None:
    whole = dhcp()
    for size in range(14, len(whole)):
        with contextlib.suppress(MalformedFrame):
            assert parse(whole[:size], None) in (None, WANTED)
    for at in range(14, len(whole)):
        garbled = bytearray(whole)
        garbled[at] ^= 0xFF
        with contextlib.suppress(MalformedFrame):
            parse(bytes(garbled), None)


def test_the_filter_lets_requests_for_leases_pass() -> None:
    assert passes(bpf.resolution(()), dhcp())
    other = Ether(dhcp())
    other[UDP].dport = 5353
    assert not passes(bpf.resolution(()), bytes(other))
    assert not passes(bpf.frames_from([bytes.fromhex(MAC.replace(":", ""))]), dhcp())


def asked(switch: Switch, now: float) -> list[Arp]:
    """What a tick injects."""
    injected = [a.packet for a in switch.tick(now) if isinstance(a, Inject)]
    assert all(isinstance(packet, Arp) for packet in injected)
    return [packet for packet in injected if isinstance(packet, Arp)]


def test_it_is_asked_until_it_answers() -> None:
    switch = Switch("a" * 64, Counter())
    switch.captured(WANTED, 100.0)
    switch.captured(WANTED, 100.1)
    for after in ASK_AFTER[:2]:
        [question] = asked(switch, 100.0 + after)
        assert (question.op, question.spa, question.tpa) == (ARP_REQUEST, NO_IP4, IP_ADDRESS)
        assert question.eth_dst == MAC
        assert len(build(question)) == 42
    reply = Arp(
        ARP_REPLY, MAC, IP_ADDRESS, question.sha, NO_IP4, 0, eth_src=MAC, eth_dst=question.sha
    )
    switch.captured(reply, 101.6)
    assert [b["ip"] for b in switch.snapshot(101.6)["bindings"]] == [IP_ADDRESS]
    assert not asked(switch, 100.0 + ASK_AFTER[2])


def test_nobody_is_asked_while_the_address_is_probed_for() -> None:
    """Another question would look like a rival's (RFC 5227 section 2.1.1)."""
    switch = Switch("a" * 64, Counter())
    switch.captured(WANTED, 100.0)
    probe = Arp(
        ARP_REQUEST, MAC, NO_IP4, "00:00:00:00:00:00", IP_ADDRESS, 0, MAC, "ff:ff:ff:ff:ff:ff"
    )
    switch.captured(probe, 100.2)
    for after in ASK_AFTER[:-1]:
        assert not [q for q in asked(switch, 100.0 + after) if q.eth_dst == MAC]
    assert ASK_AFTER[-1] > 0.2 + CLAIM_S
    assert asked(switch, 100.0 + ASK_AFTER[-1])


def test_a_scan_of_requests_is_bounded() -> None:
    switch = Switch("a" * 64, Counter())
    for number in range(3000):
        switch.captured(LeaseRequest(f"10.0.{number >> 8}.{number & 255}", MAC, 0), 100.0)
    assert switch.counters["leases_followed"] <= MAX_FOLLOWED
    now = 100.0
    while now < 113.0:
        now += 0.1
        switch.tick(now)
    switch.captured(WANTED, 120.0)
    assert asked(switch, 120.0 + ASK_AFTER[0])
