"""Frames are told apart as scapy builds them, and no bytes whatever raise."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet

from tincan.switching.frame import Kind, NeverForward, classify, vlan_and_type

A, B, G = "02:00:00:00:00:0a", "02:00:00:00:00:0b", "00:16:3e:00:00:00"
ALL = "ff:ff:ff:ff:ff:ff"
GATEWAY = NeverForward(
    frozenset({bytes.fromhex(G.replace(":", ""))}),
    frozenset({bytes([10, 0, 3, 1]), ipaddress.ip_address("fe80::1").packed}),
)
DESTINATION = b"\x3c" + bytes(7)  # an empty header of destination options, and another one


def ether(dst: str = B, src: str = A) -> Packet:
    return Ether(dst=dst, src=src)


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        (ether() / IP(dst="10.0.3.7") / TCP(), Kind.PLAIN),
        (ether() / IP(dst="10.0.3.7") / UDP(sport=67, dport=53), Kind.PLAIN),
        (ether(ALL) / IP() / UDP(sport=68, dport=67) / BOOTP() / DHCP(), Kind.DHCP),
        (ether() / IP() / UDP(sport=67, dport=68) / BOOTP() / DHCP(), Kind.DHCP),
        (ether() / IP(options=[b"\x07\x04\x04\x00"]) / UDP(sport=67, dport=68), Kind.DHCP),
        (ether("33:33:00:01:00:02") / IPv6() / UDP(sport=546, dport=547), Kind.DHCP),
        (ether(ALL) / ARP(op=1, psrc="10.0.3.5", pdst="10.0.3.7"), Kind.NEIGHBOUR),
        (ether() / ARP(op=1, psrc="10.0.3.5", pdst="10.0.3.7"), Kind.REACHABILITY),
        (ether() / ARP(op=2, psrc="10.0.3.5", pdst="10.0.3.7"), Kind.NEIGHBOUR),
        (ether(ALL) / ARP(op=1, psrc="10.0.3.5", pdst="10.0.3.1"), Kind.GATEWAY),
        (ether(ALL) / ARP(op=2, psrc="10.0.3.1", pdst="10.0.3.5"), Kind.GATEWAY),
        (ether(G) / IP() / TCP(), Kind.GATEWAY),
        (ether(src=G) / IP() / TCP(), Kind.GATEWAY),
        (ether("01:80:c2:00:00:00") / bytes(40), Kind.CONTROL),
        (ether("01:80:c2:00:00:0e") / bytes(40), Kind.CONTROL),
        (ether("01:80:c2:00:00:10") / bytes(40), Kind.PLAIN),
        (ether("33:33:00:00:00:01") / IPv6() / ICMPv6ND_RA(), Kind.ROUTER),
        (ether("33:33:00:00:00:02") / IPv6() / ICMPv6ND_RS(), Kind.ROUTER),
        (ether() / IPv6() / ICMPv6ND_Redirect(), Kind.ROUTER),
        (ether() / IPv6() / IPv6ExtHdrDestOpt() / ICMPv6ND_RA(), Kind.ROUTER),
        (ether() / IPv6(nh=60) / (DESTINATION * 8) / ICMPv6ND_RA(), Kind.MALFORMED),
        (ether() / IPv6() / IPv6ExtHdrFragment(nh=58) / ICMPv6ND_RA(), Kind.ROUTER),
        (ether() / IPv6() / IPv6ExtHdrFragment(nh=58) / ICMPv6ND_NS(), Kind.ROUTER),
        (ether() / IPv6() / IPv6ExtHdrFragment(nh=58, m=1) / ICMPv6EchoRequest(), Kind.PLAIN),
        (ether() / IPv6() / IPv6ExtHdrFragment(nh=58, offset=181) / b"\x86", Kind.PLAIN),
        (ether() / IPv6() / IPv6ExtHdrFragment(nh=17) / UDP(sport=547, dport=546), Kind.DHCP),
        (ether() / IPv6() / UDP(sport=4000, dport=546), Kind.DHCP),
        (ether(ALL) / IP() / UDP(sport=4000, dport=68), Kind.DHCP),
        (ether() / IPv6() / IPv6ExtHdrFragment(nh=6) / bytes(20), Kind.PLAIN),
        (ether("33:33:ff:00:00:07") / IPv6() / ICMPv6ND_NS(tgt="fd00::7"), Kind.NEIGHBOUR),
        (ether() / IPv6() / ICMPv6ND_NS(tgt="fd00::7"), Kind.REACHABILITY),
        (ether() / IPv6() / ICMPv6ND_NA(tgt="fd00::7"), Kind.NEIGHBOUR),
        (ether("33:33:ff:00:00:01") / IPv6() / ICMPv6ND_NS(tgt="fe80::1"), Kind.GATEWAY),
        (ether(src="ff:00:00:00:00:01") / IP(), Kind.MALFORMED),
    ],
)
def test_kinds(frame: Packet, kind: Kind) -> None:
    raw = bytes(frame)
    assert classify(raw, GATEWAY) is kind
    assert classify(memoryview(raw), GATEWAY) is kind


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (IP() / UDP(sport=67, dport=68), Kind.DHCP),
        (IPv6() / ICMPv6ND_RA(), Kind.ROUTER),
        (ARP(op=2, psrc="10.0.3.1"), Kind.GATEWAY),
        (ARP(op=2, psrc="10.0.3.5"), Kind.PLAIN),
        (IP() / TCP(), Kind.PLAIN),
    ],
)
def test_kinds_behind_several_tags(payload: Packet, kind: Kind) -> None:
    for outer in (0x8100, 0x88A8):
        stacked = ether() / Dot1Q(vlan=7) / Dot1Q(vlan=8) / payload
        stacked[Ether].type = outer
        assert classify(bytes(stacked), GATEWAY) is kind
    for tags in ((0, 0), (0, 7), (7, 0), (1, 2, 3, 0), (1, 2, 3, 4, 5)):
        stacked = ether()
        for tag in tags:
            stacked = stacked / Dot1Q(vlan=tag)
        assert classify(bytes(stacked / payload), GATEWAY) is Kind.MALFORMED


def test_kinds_behind_a_tag() -> None:
    tagged = ether(ALL) / Dot1Q(vlan=7, prio=5) / IP() / UDP(sport=68, dport=67)
    assert classify(bytes(tagged), NeverForward()) is Kind.DHCP
    assert vlan_and_type(bytes(tagged)) == (7, 0x0800, 18)
    arp = ether(ALL) / Dot1Q(vlan=4094) / ARP()
    assert classify(bytes(arp), NeverForward()) is Kind.NEIGHBOUR


@given(st.binary(max_size=200))
def test_no_bytes_raise(raw: bytes) -> None:
    assert classify(raw, GATEWAY) in Kind


@given(
    st.sampled_from(["0800", "0806", "86dd", "8100"]).map(bytes.fromhex), st.binary(max_size=120)
)
def test_no_payload_raises(ethertype: bytes, payload: bytes) -> None:
    frame = bytes.fromhex("02000000000b02000000000a") + ethertype + payload
    assert classify(frame, GATEWAY) in Kind
