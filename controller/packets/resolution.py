"""Builds ARP and neighbour discovery packets, one function for both families.

Callers decide whether a packet may be sent; switch mode does so in ``switch.voice``. Pure.
"""

from typing import NamedTuple, Protocol, TypeAlias

from controller.packets.addresses import (
    ALL_NODES_IP,
    ALL_NODES_MAC,
    BROADCAST_MAC,
    NO_IP4,
    NO_IP6,
    ZERO_MAC,
    Ip,
    Key,
    Mac,
    solicited_node,
)
from controller.packets.packets import (
    ARP_REPLY,
    ARP_REQUEST,
    Arp,
    NeighbourAdvertisement,
    NeighbourSolicitation,
)

Neighbour: TypeAlias = Arp | NeighbourSolicitation | NeighbourAdvertisement


class Owner(Protocol):
    """Whoever has an address: a binding of the table, or a ``Holder``."""

    @property
    def key(self) -> Key:
        """The VLAN and the address."""

    @property
    def mac(self) -> Mac:
        """The MAC that has it."""

    @property
    def router(self) -> bool:
        """The R flag of its advertisements (RFC 4861 section 4.4)."""


class Holder(NamedTuple):
    """An owner that is in no table: a prober, or whoever claims an address."""

    key: Key
    mac: Mac
    router: bool = False


def question(key: Key, asker_mac: Mac, asker_ip: Ip | None, options: bytes = b"") -> Neighbour:
    """Return a question to everybody: who has ``key``?

    Without ``asker_ip`` it is a probe (RFC 5227 section 2.1.1, RFC 4862 section 5.4.2).
    """
    vlan, ip = key
    if ":" not in ip:
        sender = asker_ip or NO_IP4
        return Arp(ARP_REQUEST, asker_mac, sender, ZERO_MAC, ip, vlan, asker_mac, BROADCAST_MAC)
    group_ip, group_mac = solicited_node(ip)
    return NeighbourSolicitation(
        target=ip,
        src_ip=asker_ip or NO_IP6,
        dst_ip=group_ip,
        lladdr=asker_mac if asker_ip else None,
        vlan=vlan,
        eth_src=asker_mac,
        eth_dst=group_mac,
        options=options,
    )


def check(key: Key, mac: Mac, probe_mac: Mac, probe_ip: Ip) -> Neighbour:
    """Return a question to ``mac`` alone: does it have ``key``? It is asked in nobody's name.

    In IPv6 the sender must have an address: a solicitation without one is a duplicate address
    detection, and the end of an address that is tentative at the target (RFC 4862 section 5.4.3).
    """
    vlan, ip = key
    if ":" not in ip:
        return Arp(ARP_REQUEST, probe_mac, NO_IP4, ZERO_MAC, ip, vlan, probe_mac, mac)
    return NeighbourSolicitation(ip, probe_ip, ip, probe_mac, vlan, probe_mac, mac)


def answer(owner: Owner, asker_mac: Mac, asker_ip: Ip | None) -> Neighbour:
    """Return what ``owner`` itself would answer the asker (RFC 826, RFC 4861 section 7.2.4).

    Without ``asker_ip`` the asker is a prober (RFC 5227 section 2.1.1, RFC 4862 section 5.4.4).
    """
    vlan, ip = owner.key
    mac = owner.mac
    if ":" not in ip:
        return Arp(ARP_REPLY, mac, ip, asker_mac, asker_ip or NO_IP4, vlan, mac, asker_mac)
    return NeighbourAdvertisement(
        target=ip,
        src_ip=ip,
        dst_ip=asker_ip or ALL_NODES_IP,
        lladdr=mac,
        router=owner.router,
        solicited=asker_ip is not None,
        override=True,
        vlan=vlan,
        eth_src=mac,
        eth_dst=asker_mac if asker_ip else ALL_NODES_MAC,
    )


def announcement(owner: Owner) -> Neighbour:
    """Return what tells everybody where ``owner`` is now.

    RFC 5227 section 2.3 and RFC 4861 section 7.2.6.
    """
    vlan, ip = owner.key
    mac = owner.mac
    if ":" not in ip:
        return Arp(ARP_REQUEST, mac, ip, ZERO_MAC, ip, vlan, mac, BROADCAST_MAC)
    return NeighbourAdvertisement(
        target=ip,
        src_ip=ip,
        dst_ip=ALL_NODES_IP,
        lladdr=mac,
        router=owner.router,
        solicited=False,
        override=True,
        vlan=vlan,
        eth_src=mac,
        eth_dst=ALL_NODES_MAC,
    )
