"""The filters, run by the kernel on a pair of datagram sockets: no privilege needed.

A frame on a unix socket has no direction, so the rule about outgoing frames is tested on a TAP
(tests/netns/test_capture.py); here it is cut off.
"""

import socket
from dataclasses import replace

import pytest
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NS, IPv6ExtHdrFragment

from controller.host.packet_socket import attach_filter
from controller.packets import filters as bpf
from controller.packets.encode import build
from controller.packets.packets import Buildable, Prohibited
from tests.controller.packets.test_decode import (
    ADVERTISEMENT,
    DAD,
    ECHO,
    IP_A,
    LL_B,
    REQUEST,
    SOLICITATION,
    A,
    B,
    nd,
)

RAW_A, RAW_B = bytes.fromhex(A.replace(":", "")), bytes.fromhex(B.replace(":", ""))
DIRECTION = 8 * len(bpf._OUTGOING_ONLY)


def passes(program: bytes, frame: bytes) -> bool:
    send, receive = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with send, receive:
        receive.setblocking(False)
        attach_filter(receive, program[DIRECTION:])
        send.send(frame)
        try:
            return receive.recv(4096) == frame[:2048]
        except BlockingIOError:
            return False


NEIGHBOURS: list[Buildable] = [REQUEST, SOLICITATION, DAD, ADVERTISEMENT]
OTHERS: list[Buildable] = [Prohibited("fd00::7", "fd00::1", bytes(60), 0, B, A)]


@pytest.mark.parametrize("vlan", [0, 5])
@pytest.mark.parametrize("packet", [*NEIGHBOURS, ECHO, *OTHERS])
def test_arp_nd_and_gateways_echo_requests_pass(packet: Buildable, vlan: int) -> None:
    frame = build(replace(packet, vlan=vlan))
    assert passes(bpf.resolution(()), frame) == (packet in NEIGHBOURS)
    assert passes(bpf.resolution((), None, [RAW_B]), frame) == (packet in NEIGHBOURS)
    assert passes(bpf.resolution((), None, [RAW_B, RAW_A]), frame) == (packet not in OTHERS)
    assert passes(bpf.frames_from([bytes(6), RAW_A, RAW_B]), frame) == (packet in OTHERS)


def test_other_echoes_of_gateways_go_their_own_way() -> None:
    fragment = bytearray(build(ECHO))
    fragment[20] = 0x20  # more fragments
    for frame in (build(replace(ECHO, reply=True)), bytes(fragment)):
        assert not passes(bpf.resolution((), None, [RAW_A]), frame)
        assert passes(bpf.frames_from([RAW_A]), frame)
    assert not passes(bpf.frames_from([RAW_A]), build(replace(ECHO, eth_dst="ff:ff:ff:ff:ff:ff")))


def test_the_longest_filter_is_not_too_long() -> None:
    macs = [bytes((2, 0, 0, 0, i, j)) for i in range(8) for j in range(32)]
    longest = bpf.resolution(macs[:17], macs, macs[:32])
    assert len(longest) // 8 <= 4096  # BPF_MAXINSNS
    assert passes(longest, build(replace(REQUEST, eth_src="02:00:00:00:07:1f")))


def test_fragmented_nd_passes_so_that_it_is_counted() -> None:
    assert passes(bpf.resolution(()), nd(IP_A, IPv6ExtHdrFragment(nh=58) / ICMPv6ND_NS(tgt=LL_B)))
    assert not passes(bpf.resolution(()), nd(IP_A, IPv6ExtHdrFragment(nh=17) / bytes(60)))
    assert not passes(bpf.resolution(()), nd(IP_A, ICMPv6EchoRequest()))


@pytest.mark.parametrize("length", range(14, 60, 3))
def test_short_frames_are_dropped_or_passed(length: int) -> None:
    for packet in NEIGHBOURS:
        passes(bpf.resolution([RAW_B], [RAW_A]), build(packet)[:length])


def test_loud_senders_are_sampled() -> None:
    many = [bytes((2, 0, 0, 0, 1, i)) for i in range(15)]
    passed = sum(passes(bpf.resolution([*many, RAW_A]), build(REQUEST)) for _ in range(640))
    assert 0 < passed < 64
    assert all(passes(bpf.resolution([*many, RAW_B]), build(REQUEST)) for _ in range(64))


def test_regulars_pass_and_strangers_are_sampled() -> None:
    many = [bytes((2, 0, 0, 0, 1, i)) for i in range(255)]
    assert passes(bpf.resolution((), [*many, RAW_A]), build(REQUEST))
    passed = sum(passes(bpf.resolution((), many), build(REQUEST)) for _ in range(640))
    assert 0 < passed < 64
    assert not passes(bpf.resolution((), [RAW_A, RAW_B]), build(ECHO))
