"""Messages between controllers: what is said arrives, and nothing else is believed."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import RpcError
from controller.packets.addresses import usable_ip, usable_mac
from controller.switch import messages as rpc
from controller.switch.table import BUCKETS, MAX_SEQUENCE
from tests.controller.switch.wire import MAX_MESSAGE_BYTES, decode, encode

macs = (
    st.integers(1, 2**47 - 1)
    .map(
        lambda n: ":".join(
            f"{b:02x}" for b in (n << 1 & 0xFE0000000000 | n & 0xFFFFFFFFFF).to_bytes(6)
        )
    )
    .filter(usable_mac)
)
ips = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str).filter(usable_ip)
vlans = st.integers(0, 4094)
sequences = st.integers(0, MAX_SEQUENCE)
entries = st.builds(rpc.Entry, ips, macs, sequences, vlans, st.booleans())
departures = st.builds(rpc.Gone, ips, sequences, vlans)
addresses = st.builds(rpc.Address, ips, macs)
ids = st.integers(0, 2**53 - 1)
checksums = st.integers(0, 2**64 - 1).map(lambda n: f"{n:016x}")
messages: st.SearchStrategy[rpc.SwitchMessage] = st.one_of(
    st.builds(
        rpc.ArpRequest,
        ids,
        ips,
        vlans,
        st.none() | entries,
        st.none() | macs,
        st.integers(0, 60_000),
        st.binary(max_size=rpc.MAX_OPTIONS_BYTES).map(bytes.hex),
    ),
    st.builds(rpc.ArpReply, entries),
    st.builds(rpc.Announce, st.lists(entries, max_size=rpc.MAX_ENTRIES)),
    st.builds(rpc.Withdraw, st.lists(departures, max_size=rpc.MAX_ENTRIES)),
    st.builds(rpc.Stale, st.lists(departures, max_size=rpc.MAX_ENTRIES)),
    st.builds(rpc.Digest, checksums),
    st.builds(rpc.Compare, st.sampled_from(["", "0123456789abcdef" * (BUCKETS // 2)])),
    st.builds(rpc.Differ, st.lists(st.integers(0, BUCKETS - 1), max_size=BUCKETS)),
    st.builds(rpc.Fetch, st.lists(entries, max_size=rpc.MAX_ENTRIES)),
    st.builds(rpc.Probe, ids, ips, macs, vlans, st.none() | macs),
    st.builds(rpc.Probed, ids, st.booleans()),
    st.builds(rpc.Claim, ips, macs, vlans),
    st.builds(rpc.Gateways, st.lists(addresses, max_size=rpc.MAX_ADDRESSES)),
    st.builds(rpc.Clear, ips),
)


@given(messages)
def test_what_is_said_arrives(message: rpc.SwitchMessage) -> None:
    data = encode(message)
    assert len(data) <= MAX_MESSAGE_BYTES
    assert decode(data) == message


def test_the_longest_message_fits() -> None:
    longest = rpc.Entry("fd00:1111:2222:3333:4444:5555:6666:7777", "a" * 2, 0)
    entry = rpc.Entry(longest.ip, "00:16:3e:00:00:05", MAX_SEQUENCE, 4094, True)
    data = encode(rpc.Announce([entry] * rpc.MAX_ENTRIES))
    assert len(data) < MAX_MESSAGE_BYTES
    assert decode(data)


@given(st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(RpcError):
        decode(data)


@given(messages, st.data())
def test_damage_is_refused_or_harmless(message: rpc.SwitchMessage, data: st.DataObject) -> None:
    text = bytearray(encode(message))
    place = data.draw(st.integers(0, len(text) - 1))
    text[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(text)))
    for damaged in (bytes(text), bytes(text[:cut])):
        with contextlib.suppress(RpcError):
            decode(damaged)


def of(**fields: object) -> bytes:
    return json.dumps(fields).encode()


MAC = "00:16:3e:00:00:05"
ENTRY = {"ip": "10.0.3.5", "mac": MAC, "sequence": 0}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[" * 5000,
        b'{"m":"probed","id":' + b"9" * 5000 + b',"alive":true}',
        of(),
        of(m="unheard_of"),
        of(m=3),
        of(m="digest"),
        of(m="digest", own="0" * 15),
        of(m="digest", own="0" * 16 + "\n"),
        of(m="digest", own="0" * 16, more=1),
        of(m="compare", held="0" * 8),
        of(m="differ", buckets=[BUCKETS]),
        of(m="differ", buckets=[0] * (BUCKETS + 1)),
        of(m="claim", ip="10.0.3.5", mac=MAC.upper()),
        of(m="claim", ip="10.0.3.5", mac="01:00:5e:00:00:01"),
        of(m="claim", ip="10.0.3.5", mac="00:00:00:00:00:00"),
        of(m="claim", ip="10.0.3.5", mac=MAC, vlan=4095),
        of(m="claim", ip="10.0.3.5", mac=MAC, vlan=-1),
        of(m="claim", ip="10.0.3.5", mac=MAC, vlan="0"),
        *(
            of(m="claim", ip=ip, mac=MAC)
            for ip in (
                "",
                "x",
                "10.0.3.05",
                "10.0.3.256",
                "0.0.0.0",
                "0.1.2.3",
                "127.0.0.1",
                "224.0.0.251",
                "255.255.255.255",
                "::",
                "::1",
                "ff02::1",
                "FE80::1",
                "fe80::0001",
                "fe80::1%eth0",
                "::ffff:10.0.3.5",
                "10.0.3.5/24",
                "10.0.3.5\n",
            )
        ),
        of(m="announce", entries=[ENTRY | {"sequence": -1}]),
        of(m="announce", entries=[ENTRY | {"sequence": MAX_SEQUENCE + 1}]),
        of(m="announce", entries=[ENTRY | {"sequence": 1.5}]),
        of(m="announce", entries=[ENTRY | {"node": "00"}]),
        of(m="announce", entries=[ENTRY] * (rpc.MAX_ENTRIES + 1)),
        of(m="arp_request", id=1, target="10.0.3.7", options="0"),
        of(m="arp_request", id=1, target="10.0.3.7", options="00" * (rpc.MAX_OPTIONS_BYTES + 1)),
        of(m="arp_request", id=2**53, target="10.0.3.7"),
        of(m="arp_request", id=1, target="10.0.3.7", asker=ENTRY | {"ip": "::1"}),
        of(m="arp_request", id=1, target="10.0.3.7", prober="ff:ff:ff:ff:ff:ff"),
        of(m="gateways", addresses=[{"ip": "10.0.3.1", "mac": MAC}] * (rpc.MAX_ADDRESSES + 1)),
    ],
)
def test_what_breaks_a_rule_is_refused(data: bytes) -> None:
    with pytest.raises(RpcError):
        decode(data)


def test_an_oversized_message_is_refused_unread() -> None:
    with pytest.raises(RpcError, match="oversized"):
        decode(b" " * (MAX_MESSAGE_BYTES + 1))
