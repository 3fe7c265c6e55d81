"""Which candidates are offered, accepted and paired."""

import ipaddress
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tincan.ice.candidates import (
    MAX_LOCAL_ADDRESSES,
    Remote,
    is_site_local,
    offerable,
    parse,
    screen,
    seen_as,
    seen_behind_nat,
    worth_pairing,
)
from tincan.ice.library import local_candidate
from tincan.path.description import MAX_CANDIDATES

GOOD = "abc 1 udp 2130706431 192.0.2.7 5000 typ host"


def nobody(_host: str) -> bool:
    return False


@pytest.mark.parametrize(
    ("line", "remote"),
    [
        (GOOD, Remote("abc", 2130706431, "192.0.2.7", 5000, "host")),
        ("candidate:" + GOOD, Remote("abc", 2130706431, "192.0.2.7", 5000, "host")),
        (
            "x 1 UDP 1 2001:DB8:0::7 65535 typ relay raddr 10.0.0.1 rport 9 generation 0",
            Remote("x", 1, "2001:db8::7", 65535, "relay"),
        ),
    ],
)
def test_a_candidate_is_understood(line: str, remote: Remote) -> None:
    assert parse(line) == remote


@pytest.mark.parametrize(
    "line",
    [
        "",
        "abc",
        GOOD.replace("192.0.2.7", "3f9a.local"),
        GOOD.replace("192.0.2.7", "0.0.0.0"),
        GOOD.replace("192.0.2.7", "255.255.255.255"),
        GOOD.replace("192.0.2.7", "240.0.0.1"),
        GOOD.replace("192.0.2.7", "224.0.0.1"),
        GOOD.replace("192.0.2.7", "fe80::1"),
        GOOD.replace("192.0.2.7", "2001:db8::1%eth0"),
        GOOD.replace("192.0.2.7", "::ffff:192.0.2.7"),
        GOOD.replace("192.0.2.7", "1.2.3"),
        GOOD.replace(" 1 udp", " 2 udp"),
        GOOD.replace("udp", "tcp"),
        GOOD.replace("5000", "0"),
        GOOD.replace("5000", "65536"),
        GOOD.replace("5000", "٥٠٠٠"),
        GOOD.replace("2130706431", "2147483648"),
        GOOD.replace("2130706431", "0"),
        GOOD.replace("host", "prflx"),
        GOOD + " raddr",
        GOOD + "\n",
        GOOD + " a b" * 100,
    ],
)
def test_what_is_not_for_us_is_no_candidate(line: str) -> None:
    assert parse(line) is None


@given(st.text(max_size=300))
def test_no_text_raises(line: str) -> None:
    parse(line)


@given(st.ip_addresses(), st.integers(1, 65535), st.sampled_from(["host", "srflx", "relay"]))
def test_what_we_offer_is_understood_or_has_no_meaning_elsewhere(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int, kind: str
) -> None:
    line = local_candidate(kind, (str(address), port), 3, ("10.0.0.1", 1)).to_sdp()
    remote = parse(line)
    assert (remote is not None) == (offerable([str(address)]) == [str(address)])
    if remote is not None:
        assert (remote.host, remote.port, remote.kind) == (str(address), port, kind)


def test_candidates_are_screened_and_the_best_comes_first() -> None:
    counters: Counter[str] = Counter()
    lines = [
        "a 1 udp 100 192.0.2.1 1 typ relay",
        "b 1 udp 300 10.99.0.1 1 typ host",
        "c 1 udp 200 192.0.2.2 1 typ host",
        "d 1 udp 200 127.0.0.1 1 typ host",
        "rubbish",
    ]
    usable = screen(lines, lambda host: host.startswith("10.99."), ["192.0.2.9"], counters)
    assert [remote.host for remote in usable] == ["192.0.2.2", "192.0.2.1"]
    assert counters == {"ice_candidates_malformed": 1, "ice_candidates_refused": 2}


def test_loopback_is_accepted_by_who_offers_it() -> None:
    line = "d 1 udp 200 127.0.0.1 1 typ host"
    assert screen([line], nobody, ["127.0.0.1"], Counter())


def test_no_more_than_so_many_candidates_count() -> None:
    counters: Counter[str] = Counter()
    lines = [f"a 1 udp 100 192.0.2.1 {port} typ host" for port in range(1, 101)]
    assert len(screen(lines, nobody, [], counters)) == MAX_CANDIDATES
    assert counters == {"ice_candidates_refused": 100 - MAX_CANDIDATES}


def test_offered_are_addresses_that_a_peer_can_send_to() -> None:
    addresses = ["192.0.2.1", "fe80::1", "garbage", "2001:DB8::1", "192.0.2.1", "0.0.0.0"]
    assert offerable(addresses) == ["192.0.2.1", "2001:db8::1"]
    many = [f"192.0.2.{n}" for n in range(1, 100)]
    assert offerable(many) == many[:MAX_LOCAL_ADDRESSES]


@pytest.mark.parametrize(
    ("kind", "host", "remote", "worth"),
    [
        ("host", "192.168.1.2", "10.0.0.1", True),
        ("relay", "198.51.100.1", "203.0.113.1", True),
        ("relay", "198.51.100.1", "192.168.1.2", False),
        ("relay", "2001:db8::1", "fd00::1", False),
        ("relay", "192.168.1.1", "192.168.1.2", True),
    ],
)
def test_a_public_relay_is_not_sent_to_private_addresses(
    kind: str, host: str, remote: str, worth: bool
) -> None:
    assert worth_pairing(kind, host, remote) is worth


def test_documentation_prefixes_are_public() -> None:
    assert not any(map(is_site_local, ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1"]))
    assert all(map(is_site_local, ["10.0.3.1", "100.64.0.1", "fd00::1", "fe80::1", "127.0.0.1"]))


def test_the_local_type_is_what_the_peer_saw() -> None:
    local, stun = ("192.168.1.2", 5000), ("192.0.2.1", 5000)
    assert seen_as(local, None, {stun}) == "host"
    assert seen_as(local, local, {stun}) == "host"
    assert seen_as(local, stun, {stun}) == "srflx"
    assert seen_as(local, ("192.0.2.1", 6000), {stun}) == "prflx"


def test_who_stands_behind_a_nat() -> None:
    host, public, other = ("192.168.1.10", 5000), ("203.0.113.7", 6000), ("203.0.113.9", 7000)
    assert seen_behind_nat(False, [], [("host", public)]) == (False, False)
    assert seen_behind_nat(False, [public], [("host", host), ("srflx", other)]) == (True, True)
    assert seen_behind_nat(True, [public], [("host", ("2001:db8::7", 1))]) == (False, False)
    # A check from another port of an address that the peer named: a firewall, not a NAT.
    assert seen_behind_nat(False, [], [("host", public), ("prflx", ("203.0.113.7", 9))])[1] is False
    assert seen_behind_nat(False, [], [("host", host), ("prflx", other)])[1] is True
