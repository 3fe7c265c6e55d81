"""Whatever peers and containers say: nothing is raised, what is said is sound, bounds hold."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.node.actions import Action, Inject, NeverForward, Pin, Report, Send, Unpin
from controller.packets.addresses import is_unicast, usable_ip, usable_mac
from controller.packets.packets import (
    Arp,
    Captured,
    Echo,
    HostPacket,
    NeighbourAdvertisement,
    NeighbourSolicitation,
    RouterMessage,
)
from controller.switch import messages as rpc
from controller.switch.switch import Switch
from controller.switch.table import MAX_SEQUENCE
from tests.controller.switch.test_messages import messages
from tests.controller.switch.wire import decode, encode
from tests.controller.switch.world import World, mac

ME = World.id("b")
PEERS = [World.id("a"), World.id("c")]
few_macs = st.sampled_from(
    [mac(n) for n in range(1, 5)] + ["ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01"]
)
few_ip4 = st.sampled_from(["10.0.3.1", "10.0.3.2", "10.0.3.3", "0.0.0.0", "224.0.0.1"])
few_ip6 = st.sampled_from(["fe80::1", "fe80::2", "fd00::3", "::", "ff02::1"])
vlans = st.sampled_from([0, 7])
packets: st.SearchStrategy[Captured] = st.one_of(
    st.builds(
        Arp, st.integers(1, 2), few_macs, few_ip4, few_macs, few_ip4, vlans, few_macs, few_macs
    ),
    st.builds(
        NeighbourSolicitation,
        *(few_ip6, few_ip6, few_ip6, st.none() | few_macs, vlans, few_macs, few_macs),
        st.sampled_from([b"", b"\x0b\x01" + bytes(6), bytes(600)]),
    ),
    st.builds(
        NeighbourAdvertisement,
        *(few_ip6, few_ip6, few_ip6, st.none() | few_macs, st.booleans(), st.booleans()),
        *(st.booleans(), vlans, few_macs, few_macs),
    ),
    st.builds(
        RouterMessage,
        *(st.sampled_from([133, 134, 137]), few_ip6, few_ip6, st.none() | few_macs),
        *(vlans, few_macs, few_macs),
    ),
    st.builds(
        Echo,
        *(st.booleans(), few_ip4, few_ip4, st.just(1), st.just(1), st.just(b"x")),
        *(vlans, few_macs, few_macs),
    ),
    st.builds(HostPacket, few_ip4, few_ip4, st.just(b"E"), vlans, few_macs, few_macs),
)
entries = st.builds(
    rpc.Entry,
    few_ip4.filter(usable_ip) | few_ip6.filter(usable_ip),
    few_macs.filter(usable_mac),
    st.integers(0, 5) | st.just(MAX_SEQUENCE),
    vlans,
)
talk: st.SearchStrategy[rpc.SwitchMessage] = st.one_of(
    messages,
    st.builds(rpc.Announce, st.lists(entries, max_size=4)),
    st.builds(rpc.Fetch, st.lists(entries, max_size=4)),
    st.builds(rpc.ArpReply, entries),
    st.builds(
        rpc.ArpRequest,
        st.integers(0, 9),
        few_ip4.filter(usable_ip),
        asker=st.none() | entries,
        prober=st.none() | few_macs.filter(usable_mac),
    ),
    st.builds(rpc.Probed, st.integers(0, 20), st.booleans()),
)
events = st.one_of(
    st.tuples(st.just("captured"), packets),
    st.tuples(st.just("received"), st.sampled_from(PEERS), talk),
    st.tuples(st.sampled_from(["peer_up", "peer_down"]), st.sampled_from(PEERS)),
    st.tuples(st.just("local_port_gone"), few_macs, vlans),
    st.tuples(st.just("mac_claimed"), few_macs, vlans, st.none() | st.sampled_from(PEERS)),
    st.tuples(st.just("bridge_addresses"), st.sets(st.tuples(few_ip4 | few_ip6, few_macs))),
    st.tuples(st.just("clear"), few_ip4.filter(usable_ip)),
    st.tuples(st.just("tick")),
)


@given(st.lists(st.tuples(events, st.sampled_from([0.0, 0.1, 1.0, 300.0])), max_size=40))
@settings(deadline=None, max_examples=100)
def test_nothing_is_raised_and_nothing_unsound_is_said(
    history: list[tuple[tuple[object, ...], float]],
) -> None:
    switch = Switch(ME, Counter())
    now = 0.0
    pinned: dict[tuple[int, str], str | None] = {}
    for peer in PEERS:
        switch.peer_up(peer, now)
    for (name, *arguments), pause in history:
        now += pause
        actions: list[Action] = []
        if switch.deadline <= now:
            actions += switch.tick(now)
        actions += getattr(switch, str(name))(*arguments, now)
        for action in actions:
            match action:
                case Send(to, message):
                    assert to is None or to in PEERS
                    assert decode(encode(message)) == message
                case Inject(packet):
                    assert is_unicast(packet.eth_src)
                case Pin(address, vlan, at):
                    assert is_unicast(address)
                    pinned[vlan, address] = at
                case Unpin(address, vlan):
                    del pinned[vlan, address]
                case NeverForward(macs, ips):
                    assert all(map(usable_mac, macs))
                    assert all(map(usable_ip, ips))
                case Report(level, text):
                    assert level in ("INFO", "WARNING")
                    assert text.isprintable()
        for binding in switch.snapshot(now)["bindings"]:
            at = pinned[binding["vlan"], binding["mac"]]
            assert at is None or at in PEERS
            assert usable_ip(binding["ip"])
            assert usable_mac(binding["mac"])


def test_invented_names_do_not_fill_the_log() -> None:
    """A container that spoofs another source in each frame, for a minute."""
    switch = Switch(ME, Counter())
    lines = 0
    for number in range(6000):
        source = f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"
        spoof = Arp(1, mac(1), "10.0.3.1", mac(0), "10.0.3.2", 0, source, "ff:ff:ff:ff:ff:ff")
        actions = switch.captured(spoof, number / 100)
        lines += sum(isinstance(action, Report) for action in actions)
    assert 50 <= lines <= 80
    assert switch.counters["reports_suppressed"] == 6000 - lines


def test_a_container_that_detects_duplicates_of_the_prober_is_answered_to_all() -> None:
    """An advertisement to :: would be nobody's (RFC 4862 section 5.4.4)."""
    switch = Switch(ME, Counter())
    target = switch._segment.probe_ip
    asked = NeighbourSolicitation(target, "::", "ff02::1:ff00:1", None, 0, mac(1), mac(2))
    (said,) = [a.packet for a in switch.captured(asked, 1.0) if isinstance(a, Inject)]
    assert isinstance(said, NeighbourAdvertisement)
    assert (said.dst_ip, said.eth_dst, said.solicited) == ("ff02::1", "33:33:00:00:00:01", False)
