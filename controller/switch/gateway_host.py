"""A host whose bridge address is shared, and containers elsewhere.

Nothing can come back to such a host: the reply would stop at the other gateway. So what it sends
does not leave; but dnsmasq's echo, which asks before a lease whether an address is in use, gets
the truth: an answer in the container's name, once the container's own node has just heard it.
Everything else is refused, visibly.
"""

from typing import Final

from controller.node.rates import Bucket
from controller.packets.addresses import Ip, Key, Mac
from controller.packets.packets import Echo, HostPacket, Prohibited
from controller.switch.gateways import Gateways
from controller.switch.prober import Prober
from controller.switch.segment import Segment
from controller.switch.table import Binding

ECHO_RATE: Final = 50.0
ECHO_BURST: Final = 100.0
"""Echo requests a second that are looked into."""
REFUSAL_RATE: Final = 10.0
REFUSAL_BURST: Final = 20.0
"""ICMP errors a second (RFC 1812 section 4.3.2.8)."""
MAX_WAITING: Final = 128
"""Echo requests that wait for their target."""


class Echoes:
    def __init__(self, segment: Segment, gateways: Gateways, prober: Prober) -> None:
        self._segment = segment
        self._gateways = gateways
        self._prober = prober
        self._echoes = Bucket(ECHO_RATE, ECHO_BURST)
        self._refusals = Bucket(REFUSAL_RATE, REFUSAL_BURST)
        self._waiting = 0

    def asked(self, echo: Echo, now: float) -> None:
        """This host's gateway sends an echo request towards a container elsewhere."""
        target = self._target((echo.vlan, echo.dst_ip), echo.eth_src, echo.src_ip, echo.eth_dst)
        if target is None or echo.reply:
            self._segment.counters["echo_ignored"] += 1
            return
        if self._waiting >= MAX_WAITING or not self._echoes.take(now):
            self._segment.counters["echo_dropped"] += 1
            return

        def done(alive: bool, _: float) -> None:
            self._waiting -= 1
            if not alive:
                self._segment.counters["echo_unanswered"] += 1
                return
            self._segment.counters["echo_answered_by_proxy"] += 1
            reply = Echo(
                reply=True,
                src_ip=echo.dst_ip,
                dst_ip=echo.src_ip,
                identifier=echo.identifier,
                sequence=echo.sequence,
                payload=echo.payload,
                vlan=echo.vlan,
                eth_src=echo.eth_dst,
                eth_dst=echo.eth_src,
            )
            self._segment.inject(reply)

        self._waiting += 1
        if not self._prober.inquire(target, None, now, done):
            self._waiting -= 1

    def refused(self, packet: HostPacket, now: float) -> None:
        """This host's gateway sends anything else towards a container elsewhere."""
        key = (packet.vlan, packet.dst_ip)
        if self._target(key, packet.eth_src, packet.src_ip, packet.eth_dst) is None:
            return
        self._segment.counters["host_packets_refused"] += 1
        self._segment.report(
            "host packets refused",
            f"this host cannot reach containers on other hosts ({packet.dst_ip}, say) while its "
            f"bridge address {packet.src_ip} is another host's, too: give the bridges different "
            "addresses and MACs",
            now,
        )
        if self._refusals.take(now):
            self._segment.inject(
                Prohibited(
                    src_ip=packet.dst_ip,
                    dst_ip=packet.src_ip,
                    quoted=packet.packet,
                    vlan=packet.vlan,
                    eth_src=packet.eth_dst,
                    eth_dst=packet.eth_src,
                )
            )

    def _target(self, key: Key, sender: Mac, ip: Ip, mac: Mac) -> Binding | None:
        """Return the remote binding that a shared gateway of ours sends to."""
        shared = sender in self._gateways.macs and sender in self._gateways.own_macs
        binding = self._segment.table.live(key)
        if not shared or binding is None or binding.mac != mac or binding.node == self._segment.id:
            return None
        return binding
