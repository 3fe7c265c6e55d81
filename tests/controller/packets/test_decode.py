"""Frames to packets and back: held against scapy's own bytes, RFC 4861's rules, and garbage."""

import os
import struct
import subprocess
import sys
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptMTU,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet

from controller.errors import MalformedFrame
from controller.packets.addresses import BROADCAST_MAC, ZERO_MAC
from controller.packets.decode import parse
from controller.packets.encode import build
from controller.packets.packets import (
    ARP_REPLY,
    ARP_REQUEST,
    Arp,
    Buildable,
    Echo,
    HostPacket,
    NeighbourAdvertisement,
    NeighbourSolicitation,
    Prohibited,
    RouterMessage,
)

A, B = "02:00:00:00:00:0a", "02:00:00:00:00:0b"
LL_A, LL_B = "fe80::a", "fe80::b"
NODE_B = "ff02::1:ff00:b"

REQUEST = Arp(ARP_REQUEST, A, "10.0.3.5", ZERO_MAC, "10.0.3.7", 0, A, BROADCAST_MAC)
SOLICITATION = NeighbourSolicitation(LL_B, LL_A, NODE_B, A, 0, A, "33:33:ff:00:00:0b")
DAD = NeighbourSolicitation(LL_B, "::", NODE_B, None, 0, A, "33:33:ff:00:00:0b")
ADVERTISEMENT = NeighbourAdvertisement(LL_B, LL_B, LL_A, B, True, True, False, 0, B, A)
ECHO = Echo(False, "10.0.3.1", "10.0.3.7", 77, 1, b"dnsmasq", 0, A, B)

unicast_macs = st.binary(min_size=6, max_size=6).map(
    lambda raw: bytes((raw[0] & 0xFE | 2,)) + raw[1:]
)
macs = unicast_macs.map(lambda raw: raw.hex(":"))
any_macs = st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":"))
vlans = st.integers(0, 4094)
ip4s = st.integers(0x01000000, 0x7EFFFFFF).map(lambda n: str(IPv4Address(n)))
ip6s = st.integers(0x2000 << 112, 0x3FFF << 112).map(lambda n: str(IPv6Address(n)))


def bare(frame: Packet) -> bytes:
    return bytes(frame)


def refused(frame: bytes, vlan: int | None = None) -> str:
    with pytest.raises(MalformedFrame) as caught:
        parse(frame, vlan)
    return caught.value.reason


# --- there and back


@given(st.sampled_from([1, 2]), macs, ip4s, any_macs, ip4s, vlans, macs, any_macs)
def test_arp_comes_back_as_it_was_built(
    op: int, sha: str, spa: str, tha: str, tpa: str, vlan: int, src: str, dst: str
) -> None:
    packet = Arp(op, sha, spa, tha, tpa, vlan, src, dst)
    assert parse(build(packet), None) == packet


@given(ip6s, ip6s, ip6s, st.none() | macs, vlans, macs, any_macs)
def test_solicitations_come_back_as_they_were_built(
    target: str, src_ip: str, dst_ip: str, lladdr: str | None, vlan: int, src: str, dst: str
) -> None:
    packet = NeighbourSolicitation(target, src_ip, dst_ip, lladdr, vlan, src, dst)
    assert parse(build(packet), None) == packet


@given(ip6s, ip6s, ip6s, st.none() | macs, st.booleans(), st.booleans(), st.booleans(), vlans)
def test_advertisements_come_back_as_they_were_built(
    target: str, src: str, dst: str, lladdr: str | None, r: bool, s: bool, o: bool, vlan: int
) -> None:
    packet = NeighbourAdvertisement(target, src, dst, lladdr, r, s, o, vlan, A, B)
    assert parse(build(packet), None) == packet


@given(
    *(st.booleans(), ip4s, ip4s, st.integers(0, 65535), st.integers(0, 65535)),
    *(st.binary(max_size=1400), vlans),
)
def test_echoes_come_back_as_they_were_built(
    reply: bool, src: str, dst: str, identifier: int, sequence: int, payload: bytes, vlan: int
) -> None:
    packet = Echo(reply, src, dst, identifier, sequence, payload, vlan, A, B)
    assert parse(build(packet), None) == packet


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (
            REQUEST,
            Ether(src=A, dst=BROADCAST_MAC) / ARP(op=1, hwsrc=A, psrc="10.0.3.5", pdst="10.0.3.7"),
        ),
        (
            Arp(ARP_REPLY, B, "10.0.3.7", A, "10.0.3.5", 42, B, A),
            Ether(src=B, dst=A)
            / Dot1Q(vlan=42)
            / ARP(op=2, hwsrc=B, psrc="10.0.3.7", hwdst=A, pdst="10.0.3.5"),
        ),
        (
            SOLICITATION,
            Ether(src=A, dst="33:33:ff:00:00:0b")
            / IPv6(src=LL_A, dst=NODE_B, hlim=255)
            / ICMPv6ND_NS(tgt=LL_B)
            / ICMPv6NDOptSrcLLAddr(lladdr=A),
        ),
        (
            ADVERTISEMENT,
            Ether(src=B, dst=A)
            / IPv6(src=LL_B, dst=LL_A, hlim=255)
            / ICMPv6ND_NA(tgt=LL_B, R=1, S=1, O=0)
            / ICMPv6NDOptDstLLAddr(lladdr=B),
        ),
        (
            replace(DAD, vlan=7),
            Ether(src=A, dst="33:33:ff:00:00:0b")
            / Dot1Q(vlan=7)
            / IPv6(src="::", dst=NODE_B, hlim=255)
            / ICMPv6ND_NS(tgt=LL_B),
        ),
        (
            replace(ECHO, reply=True),
            Ether(src=A, dst=B)
            / IP(src="10.0.3.1", dst="10.0.3.7", id=0)
            / ICMP(type=0, id=77, seq=1)
            / b"dnsmasq",
        ),
    ],
    ids=["request", "tagged reply", "ns", "na", "tagged dad", "echo"],
)
def test_built_frames_are_what_scapy_builds(packet: Buildable, expected: Packet) -> None:
    if isinstance(expected.getlayer(ARP), ARP) and packet == REQUEST:
        expected[ARP].hwdst = ZERO_MAC
    assert build(packet).hex() == bytes(expected).hex()


def test_prohibited_quotes_the_packet_in_both_families() -> None:
    quoted = bytes(IP(src="10.0.3.1", dst="10.0.3.7") / TCP(dport=22))
    frame = Ether(build(Prohibited("10.0.3.7", "10.0.3.1", quoted, 0, B, A)))
    assert (frame.src, frame.dst) == (B, A)
    assert (frame[ICMP].type, frame[ICMP].code) == (3, 13)
    assert bytes(frame[ICMP].payload) == quoted
    assert frame[ICMP].chksum == ICMP(bytes(ICMP(type=3, code=13) / quoted)).chksum

    quoted = bytes(IPv6(src="fd00::1", dst="fd00::7") / UDP(dport=53))
    frame = Ether(build(Prohibited("fd00::7", "fd00::1", quoted, 9, B, A)))
    assert frame[Dot1Q].vlan == 9
    error = frame[ICMPv6DestUnreach]
    assert (error.type, error.code, bytes(error.payload)) == (1, 1, quoted)
    del error.cksum
    assert bytes(frame) == build(Prohibited("fd00::7", "fd00::1", quoted, 9, B, A))


def test_a_mac_that_is_none_is_not_built() -> None:
    with pytest.raises(ValueError, match="not a MAC: 02:00"):
        build(replace(REQUEST, sha="02:00"))


def test_quotes_are_cut() -> None:
    frame = build(Prohibited("10.0.3.7", "10.0.3.1", bytes(2000), 0, B, A))
    assert len(frame) == 14 + 20 + 8 + 512


# --- what is in a frame


def test_the_vlan_is_in_the_auxiliary_data_or_in_the_frame() -> None:
    untagged, tagged = build(REQUEST), build(replace(REQUEST, vlan=5))
    assert parse(untagged, 5) == parse(tagged, None) == parse(tagged, 0) == replace(REQUEST, vlan=5)
    assert parse(untagged, 0) == parse(untagged, None) == REQUEST
    assert parse(tagged, 5) is None  # two tags
    assert refused(untagged, 4095) == "vlan_reserved"


def test_the_priority_of_a_tag_is_not_the_vlan() -> None:
    frame = (
        bare(Ether(src=A, dst=BROADCAST_MAC) / Dot1Q(vlan=5, prio=7, dei=1)) + build(REQUEST)[14:]
    )
    frame = frame[:16] + b"\x08\x06" + frame[18:]
    assert parse(frame, None) == replace(REQUEST, vlan=5)


def test_a_spoofed_sender_stays_visible() -> None:
    packet = replace(REQUEST, eth_src=B)
    assert parse(build(packet), None) == packet


def test_padding_behind_a_packet_is_ignored() -> None:
    assert parse(build(REQUEST) + bytes(18), None) == REQUEST
    assert parse(build(DAD) + bytes(18), None) == DAD


def test_probes_are_parsed() -> None:
    probe = replace(REQUEST, spa="0.0.0.0")
    assert parse(build(probe), None) == probe
    assert parse(build(DAD), None) == DAD


def test_nonces_are_known_options_and_others_are_kept_whole() -> None:
    nonce = bytes((14, 1)) + b"nonce!"
    assert parse(build(replace(DAD, options=nonce)), None) == DAD
    unknown = bytes((1, 1)) + bytes.fromhex("02000000000a") + bytes((99, 1)) + b"ahead!"
    packet = replace(SOLICITATION, options=unknown)
    assert parse(build(packet), None) == packet
    assert packet.unknown_options


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            ICMPv6ND_RS() / ICMPv6NDOptSrcLLAddr(lladdr=A),
            RouterMessage(133, LL_A, LL_B, A, 0, A, B),
        ),
        (
            ICMPv6ND_RA() / ICMPv6NDOptMTU() / ICMPv6NDOptSrcLLAddr(lladdr=A),
            RouterMessage(134, LL_A, LL_B, A, 0, A, B),
        ),
        (
            ICMPv6ND_Redirect(tgt=LL_B, dst="fd00::7") / ICMPv6NDOptDstLLAddr(lladdr=B),
            RouterMessage(137, LL_A, LL_B, B, 0, A, B),
        ),
    ],
    ids=["rs", "ra", "redirect"],
)
def test_router_messages(message: Packet, expected: RouterMessage) -> None:
    frame = Ether(src=A, dst=B) / IPv6(src=LL_A, dst=LL_B, hlim=255) / message
    assert parse(bare(frame), None) == expected


def test_other_packets_of_a_gateway() -> None:
    packet = bytes(IP(src="10.0.3.1", dst="10.0.3.7") / TCP(dport=22) / bytes(1000))
    frame = bare(Ether(src=A, dst=B))[:12] + b"\x08\x00" + packet
    assert parse(frame, 3) == HostPacket("10.0.3.1", "10.0.3.7", packet[:512], 3, A, B)
    packet = bytes(IPv6(src="fd00::1", dst="fd00::7") / ICMPv6EchoRequest())
    frame = bare(Ether(src=A, dst=B))[:12] + b"\x86\xdd" + packet
    assert parse(frame, None) == HostPacket("fd00::1", "fd00::7", packet, 0, A, B)


@pytest.mark.parametrize(
    "packet",
    [
        Ether(src=A, dst=B) / IP(src="10.0.3.1", dst="10.0.3.7") / ICMP(type=3, code=1) / bytes(28),
        Ether(src=A, dst=B) / IP(src="10.0.3.1", dst="10.0.3.7", frag=100) / bytes(100),
        Ether(src=A, dst=B) / IP(src="10.0.3.1", dst="224.0.0.251") / UDP(),
        Ether(src=A, dst=BROADCAST_MAC) / IP(src="10.0.3.1", dst="10.0.3.255") / UDP(),
        Ether(src=A, dst=B) / IPv6(src="fd00::1", dst="fd00::7") / ICMPv6DestUnreach() / bytes(48),
        Ether(src=A, dst="33:33:00:00:00:fb") / IPv6(src="fd00::1", dst="ff02::fb") / UDP(),
        Ether(src=A, dst=B, type=0x88CC) / bytes(60),
    ],
    ids=["icmp error", "later fragment", "multicast", "broadcast", "icmp6 error", "mcast6", "lldp"],
)
def test_what_must_not_cause_an_error_is_not_for_us(packet: Packet) -> None:
    assert parse(bare(packet), None) is None


# --- malformed


def nd(ip: IPv6, message: Packet) -> bytes:
    return bare(Ether(src=A, dst=B) / ip / message)


@pytest.mark.parametrize(
    ("arp", "reason"),
    [
        (ARP(hwsrc=A, psrc="10.0.3.5", pdst="10.0.3.7", hwtype=6), "arp_format"),
        (ARP(hwsrc=A, psrc="10.0.3.5", pdst="10.0.3.7", ptype=0x86DD), "arp_format"),
        (ARP(op=3, hwsrc=A, psrc="10.0.3.5", pdst="10.0.3.7"), "arp_operation"),
        (ARP(hwsrc=BROADCAST_MAC, psrc="10.0.3.5", pdst="10.0.3.7"), "arp_sender_mac"),
        (ARP(hwsrc="33:33:00:00:00:01", psrc="10.0.3.5", pdst="10.0.3.7"), "arp_sender_mac"),
        (ARP(hwsrc=ZERO_MAC, psrc="10.0.3.5", pdst="10.0.3.7"), "arp_sender_mac"),
        (ARP(hwsrc=A, psrc="127.0.0.1", pdst="10.0.3.7"), "arp_sender_ip"),
        (ARP(hwsrc=A, psrc="255.255.255.255", pdst="10.0.3.7"), "arp_sender_ip"),
        (ARP(hwsrc=A, psrc="224.0.0.1", pdst="10.0.3.7"), "arp_sender_ip"),
        (ARP(hwsrc=A, psrc="10.0.3.5", pdst="127.0.0.1"), "arp_target_ip"),
        (ARP(hwsrc=A, psrc="10.0.3.5", pdst="239.1.1.1"), "arp_target_ip"),
        (ARP(hwsrc=A, psrc="10.0.3.5", pdst="255.255.255.255"), "arp_target_ip"),
        (ARP(hwsrc=A, psrc="10.0.3.5", pdst="0.0.0.0"), "arp_target_ip"),
    ],
)
def test_malformed_arp(arp: ARP, reason: str) -> None:
    assert refused(bare(Ether(src=A, dst=BROADCAST_MAC) / arp)) == reason


@pytest.mark.parametrize(("at", "value"), [(18, 5), (18, 8), (18, 255), (19, 0), (19, 16)])
def test_arp_of_wrong_lengths(at: int, value: int) -> None:
    frame = bytearray(build(REQUEST))
    frame[at] = value
    assert refused(bytes(frame)) == "arp_format"


@pytest.mark.parametrize("length", range(42))
def test_truncated_arp(length: int) -> None:
    expected = "ethernet_truncated" if length < 14 else "arp_truncated"
    assert refused(build(REQUEST)[:length]) == expected


IP_A = IPv6(src=LL_A, dst=NODE_B, hlim=255)
OPT_A = ICMPv6NDOptSrcLLAddr(lladdr=A)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (nd(IPv6(src=LL_A, dst=NODE_B, hlim=254), ICMPv6ND_NS(tgt=LL_B)), "nd_hop_limit"),
        (nd(IP_A, ICMPv6ND_NS(tgt=LL_B, code=1)), "nd_code"),
        (nd(IP_A, ICMPv6ND_NS(tgt=LL_B, cksum=1)), "nd_checksum"),
        (nd(IP_A, ICMPv6ND_NS(tgt=NODE_B)), "nd_target"),
        (nd(IP_A, ICMPv6ND_NS(tgt="::")), "nd_target"),
        (nd(IPv6(src="ff02::1", dst=NODE_B, hlim=255), ICMPv6ND_NS(tgt=LL_B)), "nd_source"),
        (nd(IPv6(src="::", dst=LL_B, hlim=255), ICMPv6ND_NS(tgt=LL_B)), "nd_source"),
        (nd(IPv6(src="::", dst=NODE_B, hlim=255), ICMPv6ND_NS(tgt=LL_B) / OPT_A), "nd_source"),
        (nd(IPv6(src="::", dst="ff02::2", hlim=255), ICMPv6ND_RS() / OPT_A), "nd_source"),
        (nd(IPv6(src="fd00::1", dst="ff02::1", hlim=255), ICMPv6ND_RA()), "nd_source"),
        (
            nd(IPv6(src=LL_A, dst="ff02::1", hlim=255), ICMPv6ND_NA(tgt=LL_A, S=1)),
            "nd_solicited_flag",
        ),
        (nd(IP_A, ICMPv6ND_NS(tgt=LL_B) / bytes((1, 0)) / bytes(6)), "nd_option_length"),
        (nd(IP_A, ICMPv6ND_NS(tgt=LL_B) / bytes((1, 2)) / bytes(6)), "nd_option_length"),
        (nd(IP_A, ICMPv6ND_NS(tgt=LL_B) / bytes((1,))), "nd_option_length"),
        (nd(IP_A, ICMPv6ND_NS(tgt=LL_B) / bytes((1, 2)) / bytes(14)), "nd_option_lladdr"),
        (
            nd(IP_A, ICMPv6ND_NS(tgt=LL_B) / ICMPv6NDOptSrcLLAddr(lladdr=BROADCAST_MAC)),
            "nd_option_lladdr",
        ),
        (nd(IP_A, IPv6ExtHdrFragment(nh=58) / ICMPv6ND_NS(tgt=LL_B)), "nd_fragment"),
        (nd(IP_A, IPv6ExtHdrHopByHop(nh=58) / ICMPv6ND_NS(tgt=LL_B)), "nd_hop_by_hop"),
        (nd(IPv6(src=LL_A, dst=NODE_B, hlim=255, plen=2000), ICMPv6ND_NS()), "nd_truncated"),
        (nd(IPv6(src=LL_A, dst=NODE_B, hlim=255, plen=20), ICMPv6ND_NS()), "nd_truncated"),
        (nd(IPv6(src=LL_A, dst=NODE_B, version=5), ICMPv6ND_NS()), "ip6_header"),
    ],
)  # fmt: skip
def test_malformed_nd(frame: bytes, reason: str) -> None:
    assert refused(frame) == reason


def test_a_frame_from_a_group_address_is_malformed() -> None:
    assert refused(build(replace(REQUEST, eth_src=BROADCAST_MAC))) == "ethernet_source"
    assert refused(build(replace(REQUEST, eth_src=ZERO_MAC))) == "ethernet_source"


def test_an_echo_with_a_wrong_checksum_is_malformed() -> None:
    frame = bytearray(build(ECHO))
    frame[-1] ^= 1
    assert refused(bytes(frame)) == "icmp_checksum"


def test_a_thousand_options_cost_no_recursion() -> None:
    options = bytes((99, 1, 0, 0, 0, 0, 0, 0)) * 1000
    packet = parse(build(replace(SOLICITATION, options=options)), None)
    assert isinstance(packet, NeighbourSolicitation)
    assert packet.options == options


# --- garbage

TYPES = (0x0806, 0x0800, 0x86DD, 0x8100, 0x88A8, 0)


@given(st.sampled_from(TYPES), st.binary(max_size=200), st.none() | st.integers(0, 4095))
@example(0x0800, b"\x45", None)
@example(0x86DD, b"\x60" + bytes(39), None)
def test_garbage_is_refused_or_ignored(kind: int, body: bytes, vlan: int | None) -> None:
    survive(bytes.fromhex("02000000000b02000000000a") + struct.pack(">H", kind) + body, vlan)


@given(st.data())
def test_damaged_frames_are_refused_or_parsed(data: st.DataObject) -> None:
    samples = [
        *(build(p) for p in (REQUEST, SOLICITATION, DAD, ADVERTISEMENT, ECHO)),
        nd(IPv6(src=LL_A, dst="ff02::1", hlim=255), ICMPv6ND_RA() / ICMPv6NDOptMTU() / OPT_A),
        nd(IP_A, IPv6ExtHdrFragment(nh=58) / ICMPv6ND_NS(tgt=LL_B)),
        bare(Ether(src=A, dst=B) / IP(src="10.0.3.1", dst="10.0.3.7") / TCP()),
    ]
    frame = bytearray(data.draw(st.sampled_from(samples)))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    survive(bytes(frame[: data.draw(st.integers(0, len(frame)))]), None)


def survive(frame: bytes, vlan: int | None) -> None:
    try:
        packet = parse(frame, vlan)
    except MalformedFrame:
        return
    # What is parsed can be built, and means the same then.
    if isinstance(packet, Arp | NeighbourSolicitation | NeighbourAdvertisement | Echo):
        assert parse(build(packet), None) == packet


def test_scapy_leaves_no_file_in_the_home_directory_and_loads_no_vendors(tmp_path: Path) -> None:
    code = "import controller.packets.decode, scapy.data; print(len(scapy.data.MANUFDB))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "0\n"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
