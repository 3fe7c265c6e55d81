"""The networks that people are on, by name, and hosts in them."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lab.host import Host, Profile
from lab.network import Network
from lab.processes import Controller, Coturn, Rendezvous
from lab.topology import Lab

# easy, hard: each host behind a NAT of its own, all with the same private prefix;
# public: on the public network itself; lan: all on one LAN, the rendezvous too;
# shared: all behind one easy NAT; ipv6: on a public network that has IPv6 only;
# ipv6-firewall: IPv6 only, each behind a stateful firewall of its own.
Place = Literal["easy", "hard", "public", "lan", "shared", "ipv6", "ipv6-firewall"]

PREFIX4 = "203.0.113.0/24"
PREFIX6 = "2001:db8:0:113::/64"


@dataclass
class Hosts:
    """Hosts of a lab, in order, named a, b, c ...; `server` is the host of the rendezvous, on
    which a coturn may be started too."""

    lab: Lab
    hosts: list[Host]
    server: Host

    @property
    def a(self) -> Host:
        """The first host."""
        return self.hosts[0]

    @property
    def b(self) -> Host:
        """The second host."""
        return self.hosts[1]

    @property
    def rendezvous(self) -> Rendezvous:
        """The lab's rendezvous, started when first asked for."""
        return self.lab.rendezvous() or self.server.rendezvous()

    def coturn(self) -> Coturn:
        """Start a coturn beside the rendezvous."""
        return self.server.coturn()

    def start(self, config: dict[str, Any] | None = None, **keys: Any) -> list[Controller]:
        """Start the rendezvous, and a controller on every host; configuration as in
        Host.controller."""
        assert self.rendezvous.running
        return [host.controller(config, **keys) for host in self.hosts]

    def connect(
        self, config: dict[str, Any] | None = None, *, timeout: float = 30, **keys: Any
    ) -> list[Controller]:
        """The same, and wait until every controller is connected to every other."""
        controllers = self.start(config, **keys)
        for controller in controllers:
            others = [host.name for host in self.hosts if host is not controller.host]
            controller.wait_connected(others, timeout)
        return controllers


def build(
    lab: Lab,
    places: Sequence[Place],
    *,
    profile: Profile = "stock",
    profiles: Sequence[Profile] | None = None,
) -> Hosts:
    """Put one host into each of `places`, and a server on the public network.

    `profiles` gives each host a profile of its own. IPv6 places and IPv4 ones can be mixed: the
    public network then has both.
    """
    ipv6 = [place.startswith("ipv6") for place in places]
    public: Network
    if "lan" in places:
        public = lab.segment("lan", prefix4="192.168.7.0/24")
    else:
        public = lab.segment(
            "public",
            prefix4=None if all(ipv6) else PREFIX4,
            prefix6=PREFIX6 if any(ipv6) else None,
        )
    server = lab.host("server", public, "plain")
    shared: Network | None = None
    hosts = []
    for number, place in enumerate(places):
        name = _name(number)
        network: Network
        match place:
            case "easy" | "hard":
                network = lab.router(f"nat-{name}", public, place)
            case "shared":
                network = shared = shared or lab.router("nat", public, "easy")
            case "ipv6-firewall":
                prefix6 = f"2001:db8:1:{number + 1:x}::/64"
                network = lab.router(f"fw-{name}", public, None, prefix4=None, prefix6=prefix6)
            case _:
                network = public
        hosts.append(lab.host(name, network, profiles[number] if profiles else profile))
    return Hosts(lab, hosts, server)


def _name(number: int) -> str:
    """a, b, ... z, aa, ab, ..."""
    tens, ones = divmod(number, 26)
    return (_name(tens - 1) if tens else "") + string.ascii_lowercase[ones]


__all__ = ["Hosts", "Place", "build"]
