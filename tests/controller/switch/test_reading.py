"""The checklist of answering, line by line: what a packet says, and what to do about it."""

import pytest

from controller.packets.addresses import BROADCAST_MAC, NO_IP4, ZERO_MAC
from controller.packets.packets import (
    ARP_REPLY,
    ARP_REQUEST,
    Arp,
    NeighbourAdvertisement,
    NeighbourSolicitation,
    RouterMessage,
)
from controller.switch.reading import Question, Reading, Sighting, Verdict, decide, read
from controller.switch.table import Binding
from tests.controller.switch.world import World, mac

ME, PEER = World.id("a"), World.id("b")
ASKER, OWNER = mac(5), mac(7)
KEY = (0, "10.0.3.7")


def arp(
    op: int = ARP_REQUEST,
    sha: str = ASKER,
    spa: str = "10.0.3.5",
    tha: str = ZERO_MAC,
    tpa: str = "10.0.3.7",
    eth_src: str | None = None,
    eth_dst: str = BROADCAST_MAC,
) -> Arp:
    return Arp(op, sha, spa, tha, tpa, 0, eth_src or sha, eth_dst)


def solicitation(
    src: str = "fe80::5",
    lladdr: str | None = ASKER,
    target: str = "fe80::7",
    eth_src: str = ASKER,
    eth_dst: str = "33:33:ff:00:00:07",
    options: bytes = b"",
) -> NeighbourSolicitation:
    return NeighbourSolicitation(
        target, src, "ff02::1:ff00:7", lladdr, 0, eth_src, eth_dst, options
    )


def advertisement(
    lladdr: str | None = OWNER, eth_dst: str = ASKER, router: bool = False, target: str = "fe80::7"
) -> NeighbourAdvertisement:
    return NeighbourAdvertisement(
        target, "fe80::7", "fe80::5", lladdr, router, True, True, 0, OWNER, eth_dst
    )


# --- what ARP says


def test_a_request_asks_and_tells() -> None:
    assert read(arp()) == Reading(
        Sighting((0, "10.0.3.5"), ASKER), Question(KEY, ASKER, "10.0.3.5")
    )


def test_a_probe_asks_and_tells_nothing() -> None:
    """RFC 5227 section 2.1.1."""
    reading = read(arp(spa=NO_IP4))
    assert reading == Reading(None, Question(KEY, ASKER, None))
    assert reading.question is not None
    assert reading.question.is_probe


@pytest.mark.parametrize("op", [ARP_REQUEST, ARP_REPLY])
def test_an_announcement_tells_and_asks_nothing(op: int) -> None:
    """RFC 5227 section 3: request or reply."""
    said = arp(op, spa="10.0.3.5", tpa="10.0.3.5")
    assert read(said) == Reading(Sighting((0, "10.0.3.5"), ASKER))


def test_a_reply_tells_its_asker() -> None:
    said = arp(ARP_REPLY, OWNER, "10.0.3.7", ASKER, "10.0.3.5", eth_dst=ASKER)
    assert read(said) == Reading(Sighting(KEY, OWNER, reply_to=ASKER), unicast=True)


def test_a_unicast_request_is_a_check() -> None:
    assert read(arp(eth_dst=OWNER)).unicast


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (arp(eth_src=mac(9)), "contradicts_source"),
        (arp(sha="01:00:5e:00:00:01"), "bad_source"),
        (arp(sha=ZERO_MAC), "bad_source"),
        (arp(spa="127.0.0.1"), "bad_address"),
        (arp(spa="224.0.0.1"), "bad_address"),
        (arp(spa="255.255.255.255"), "bad_address"),
        (arp(spa=NO_IP4, tpa=NO_IP4), "bad_address"),
        (arp(spa=NO_IP4, tpa="127.0.0.1"), "bad_address"),
        (arp(ARP_REPLY, spa=NO_IP4, eth_dst=OWNER), "bad_address"),
        (solicitation(lladdr=mac(9)), "contradicts_source"),
        (solicitation(src="::", lladdr=ASKER), "bad_address"),
        (solicitation(src="ff02::1"), "bad_address"),
        (solicitation(target="ff02::1"), "bad_address"),
        (solicitation(target="::1"), "bad_address"),
        (advertisement(lladdr=mac(9)), "contradicts_source"),
        (advertisement(target="::"), "bad_address"),
        (RouterMessage(134, "::1", "ff02::1", None, 0, OWNER, BROADCAST_MAC), "bad_address"),
    ],
)
def test_what_contradicts_itself_says_nothing(packet: Arp, reason: str) -> None:
    assert read(packet) == Reading(refused=reason)


def test_a_request_for_nonsense_still_tells_who_asks() -> None:
    assert read(arp(tpa="224.0.0.1")) == Reading(Sighting((0, "10.0.3.5"), ASKER))


# --- what neighbour discovery says


def test_a_solicitation_asks_and_tells() -> None:
    assert read(solicitation()) == Reading(
        Sighting((0, "fe80::5"), ASKER), Question((0, "fe80::7"), ASKER, "fe80::5")
    )


def test_duplicate_address_detection_asks_and_tells_nothing() -> None:
    """RFC 4862 section 5.4.2."""
    reading = read(solicitation(src="::", lladdr=None))
    assert reading == Reading(None, Question((0, "fe80::7"), ASKER, None))


def test_unknown_options_stay_with_the_question() -> None:
    reading = read(solicitation(options=b"\x0b\x01" + bytes(6)))
    assert reading.question is not None
    assert reading.question.options


def test_an_advertisement_tells_whether_it_is_a_router() -> None:
    assert read(advertisement(router=True)) == Reading(
        Sighting((0, "fe80::7"), OWNER, router=True, reply_to=ASKER), unicast=True
    )


def test_an_unsolicited_advertisement_announces() -> None:
    """RFC 9131: learn from it, too."""
    assert read(advertisement(eth_dst="33:33:00:00:00:01")) == Reading(
        Sighting((0, "fe80::7"), OWNER, router=False)
    )


def test_a_router_is_known_by_its_advertisements() -> None:
    said = RouterMessage(134, "fe80::7", "ff02::1", OWNER, 0, OWNER, "33:33:00:00:00:01")
    assert read(said) == Reading(Sighting((0, "fe80::7"), OWNER, router=True))


@pytest.mark.parametrize(
    "said",
    [
        RouterMessage(133, "::", "ff02::2", None, 0, OWNER, "33:33:00:00:00:02"),
        RouterMessage(137, "fe80::7", "fe80::5", OWNER, 0, OWNER, ASKER),
    ],
)
def test_other_router_messages_say_nothing_about_their_sender(said: RouterMessage) -> None:
    assert read(said) == Reading()


# --- what to do


ELSEWHERE = Binding(KEY, OWNER, PEER, 0, 0.0)
HERE = Binding(KEY, OWNER, ME, 0, 0.0)
ASKED = Question(KEY, ASKER, "10.0.3.5")
PROBED = Question(KEY, ASKER, None)
ITSELF = Question(KEY, OWNER, None)
ODD = Question(KEY, ASKER, "10.0.3.5", b"\x0b\x01" + bytes(6))


@pytest.mark.parametrize(
    ("question", "binding", "conditions", "verdict"),
    [
        (ASKED, None, "", Verdict.RELAY),
        (PROBED, None, "", Verdict.RELAY),
        (ASKED, ELSEWHERE, "", Verdict.ANSWER),
        (PROBED, ELSEWHERE, "", Verdict.ANSWER),
        (ITSELF, ELSEWHERE, "", Verdict.QUIET),
        (ITSELF, HERE, "", Verdict.QUIET),
        (ASKED, HERE, "", Verdict.QUIET),
        (PROBED, HERE, "", Verdict.QUIET),
        (ASKED, ELSEWHERE, "down", Verdict.RELAY),
        (ITSELF, ELSEWHERE, "down", Verdict.QUIET),
        (ASKED, ELSEWHERE, "unicast", Verdict.CHECK),
        (ASKED, HERE, "unicast", Verdict.CHECK),
        (ASKED, None, "unicast", Verdict.CHECK),
        (ASKED, None, "gateway", Verdict.QUIET),
        (PROBED, None, "gateway", Verdict.QUIET),
        (ASKED, ELSEWHERE, "gateway unicast", Verdict.QUIET),
        (ODD, ELSEWHERE, "", Verdict.FORWARD),
        (ODD, None, "", Verdict.RELAY),
        (ODD, HERE, "", Verdict.QUIET),
    ],
)
def test_verdicts(
    question: Question, binding: Binding | None, conditions: str, verdict: Verdict
) -> None:
    decided, _ = decide(
        question,
        binding,
        node=ME,
        unicast="unicast" in conditions,
        gateway="gateway" in conditions,
        reachable="down" not in conditions,
    )
    assert decided is verdict
