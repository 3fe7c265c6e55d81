"""Networks that hosts are plugged into: segments, and the private side of NAT routers.

Addresses are documentation prefixes (RFC 5737, RFC 3849). A network's own address, the first of
its prefix, is everyone's default gateway on it.
"""

from __future__ import annotations

import ipaddress
import time
from dataclasses import dataclass
from typing import Literal

from lab.namespace import Namespace, Place

# easy: one outside port for all destinations (endpoint-independent mapping, RFC 4787);
# hard: another port for every destination ("symmetric"); None: a stateful firewall, no NAT.
Nat = Literal["easy", "hard"]
MASQUERADE = {"easy": "masquerade", "hard": "masquerade random"}

FIRST_HOST = 10
BRIDGE = "br0"


@dataclass
class Uplink:
    """`place`'s interface into `network`; `port` is its other end, a port of the network's
    bridge. `ip4` and `ip6` are the addresses, without prefix length, or ""."""

    place: Place
    interface: str
    network: Network
    port: str
    ip4: str
    ip6: str

    def down(self) -> None:
        """Pull the cable: the carrier goes."""
        self.network.run(["ip", "link", "set", self.port, "down"])

    def up(self) -> None:
        """Put the cable back."""
        self.network.run(["ip", "link", "set", self.port, "up"])

    def flap(self, seconds: float) -> None:
        """Pull the cable for `seconds`."""
        self.down()
        time.sleep(seconds)
        self.up()

    def readdress(self) -> str:
        """Give the interface the network's next free IPv4 address in place of its own, as DHCP
        in another place would, and return it."""
        new = self.network.next_ip4()
        self.place.run(
            f"ip addr del {self.ip4}/{self.network.length4} dev {self.interface};"
            f"ip addr add {new}/{self.network.length4} dev {self.interface};"
            f"ip route replace default via {self.network.gateway4}"
        )
        self.ip4 = new
        return new

    def wire(self, *, rate: str | None = None, loss: float = 0) -> None:
        """Limit what the place sends to `rate` (tc's units: "100mbit") and drop a fraction `loss`
        of it, 0 to 1, datagram by datagram. Without arguments: a perfect wire again.

        Call it on both ends for both directions.
        """
        self.place.run(["tc", "qdisc", "del", "dev", self.interface, "root"], check=False)
        if rate:
            self.place.run(
                f"tc qdisc add dev {self.interface} root tbf rate {rate} burst 128kb latency 50ms"
            )
        # Segmentation off, or one drop would take a whole burst of 64 KiB.
        state = "off" if loss else "on"
        self.place.run(
            f"ethtool -K {self.interface} tx-udp-segmentation {state} tso {state} >/dev/null"
        )
        table = f"netdev wire-{self.port}"
        rules = f"add table {table}\ndelete table {table}\n"
        if loss:
            rules += f"""
            table {table} {{
                chain loss {{
                    type filter hook ingress device "{self.port}" priority 0;
                    numgen random mod 1000000 < {min(round(loss * 1e6), 999_999)} drop
                }}
            }}
            """
        self.network.run(["nft", "-f", "-"], input=rules)


class Network(Namespace):
    """A bridge in a namespace of its own, with an IPv4 prefix, an IPv6 prefix, or both."""

    def __init__(
        self,
        lab: str,
        name: str,
        *,
        prefix4: str | None,
        prefix6: str | None,
        script: str = "",
    ) -> None:
        self.prefix4 = ipaddress.IPv4Network(prefix4) if prefix4 else None
        self.prefix6 = ipaddress.IPv6Network(prefix6) if prefix6 else None
        self.gateway4 = str(self.prefix4[1]) if self.prefix4 else ""
        self.gateway6 = str(self.prefix6[1]) if self.prefix6 else ""
        self.length4 = self.prefix4.prefixlen if self.prefix4 else 0
        self.length6 = self.prefix6.prefixlen if self.prefix6 else 0
        self._hosts4 = 0
        self._hosts6 = 0
        # It stands for switches and wires: no netfilter on what it bridges. And it has been there
        # for long: no address of it, or of a host on it, waits for duplicate address detection.
        steps = f"""
        echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
        ip link add {BRIDGE} type bridge mcast_snooping 0
        for key in /proc/sys/net/bridge/bridge-nf-call-*; do
            [ ! -e "$key" ] || echo 0 > "$key"
        done
        """
        if self.gateway4:
            steps += f"ip addr add {self.gateway4}/{self.length4} dev {BRIDGE}\n"
        if self.gateway6:
            steps += f"ip addr add {self.gateway6}/{self.length6} dev {BRIDGE} nodad\n"
        steps += f"ip link set {BRIDGE} up\n"
        super().__init__(lab, name, script=steps + script)

    def next_ip4(self) -> str:
        """The next IPv4 address that no host has had."""
        assert self.prefix4
        self._hosts4 += 1
        return str(self.prefix4[FIRST_HOST + self._hosts4 - 1])

    def next_ip6(self) -> str:
        """The next IPv6 address that no host has had."""
        assert self.prefix6
        self._hosts6 += 1
        return str(self.prefix6[FIRST_HOST + self._hosts6 - 1])

    def attach(self, place: Place, interface: str = "eth0", *, mtu: int = 1500) -> Uplink:
        """Plug `place` in: an interface of its own with the next addresses and a default route."""
        uplink = Uplink(
            place,
            interface,
            self,
            port=f"p-{place.name}"[:15],
            ip4=self.next_ip4() if self.prefix4 else "",
            ip6=self.next_ip6() if self.prefix6 else "",
        )
        self.run(
            f"ip link add {uplink.port} mtu {mtu} type veth"
            f" peer name {interface} mtu {mtu} netns {place.pid};"
            f"ip link set {uplink.port} master {BRIDGE} up"
        )
        steps = (
            f"echo 0 > /proc/sys/net/ipv6/conf/{interface}/accept_dad\nip link set {interface} up\n"
        )
        if uplink.ip4:
            steps += (
                f"ip addr add {uplink.ip4}/{self.length4} dev {interface}\n"
                f"ip route add default via {self.gateway4}\n"
            )
        if uplink.ip6:
            steps += (
                f"ip addr add {uplink.ip6}/{self.length6} dev {interface} nodad\n"
                f"ip route add default via {self.gateway6}\n"
            )
        place.run(steps)
        return uplink


class Segment(Network):
    """A public network. Its gateway drops silently whatever is for no one on it.

    Silently, since coturn closes a whole allocation on ENETUNREACH when it forwards to a private
    candidate: IPv4 is not forwarded, IPv6 only to the prefixes behind the segment's routers.
    """

    def __init__(
        self,
        lab: str,
        name: str = "public",
        *,
        prefix4: str | None = "203.0.113.0/24",
        prefix6: str | None = None,
    ) -> None:
        script = ""
        if prefix6:
            script = "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding\n"
            script += "ip -6 route add blackhole default\n"
        super().__init__(lab, name, prefix4=prefix4, prefix6=prefix6, script=script)


class Router(Network):
    """A router as people have at home, with its hosts on a bridge behind it.

    Nothing new is let in from outside, neither to the router nor through it. That is also what
    makes hole punching work as with real ones: an early packet from a peer must not confirm a
    conntrack entry, which would push the later punch to another port.
    """

    def __init__(
        self,
        lab: str,
        name: str,
        outside: Network,
        nat: Nat | None,
        *,
        prefix4: str | None = "192.168.1.0/24",
        prefix6: str | None = None,
    ) -> None:
        self.nat = nat
        script = """
        echo 1 > /proc/sys/net/ipv4/ip_forward
        echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
        nft -f - <<'end'
        table inet firewall {
            chain input {
                type filter hook input priority filter; policy accept;
                iifname "wan" ct state established,related accept
                iifname "wan" icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
                iifname "wan" drop
            }
            chain forward {
                type filter hook forward priority filter; policy accept;
                iifname "wan" ct state established,related accept
                iifname "wan" drop
            }
        }
        """
        if nat:
            script += f"""
        table ip nat {{
            chain postrouting {{
                type nat hook postrouting priority srcnat; policy accept;
                oifname "wan" {MASQUERADE[nat]}
            }}
        }}
        """
        script += "\nend\n"
        super().__init__(lab, name, prefix4=prefix4, prefix6=prefix6, script=script)
        self.wan = outside.attach(self, "wan")
        if prefix6:
            outside.run(["ip", "-6", "route", "add", prefix6, "via", self.wan.ip6])
