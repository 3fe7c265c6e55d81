"""Two tincans' hot paths in one process, joined by two UDP sockets on the loopback.

For benches and tests: what waits at one end's device in memory (tincan.device.twin) comes out at
the other's.
"""

import time
from collections import Counter
from typing import Any, Final, cast

from tincan.crypto.primitives import PrivateKey
from tincan.device.twin import Twin
from tincan.device.udp import UdpSocket
from tincan.link.link import Link
from tincan.link.listener import LinkState
from tincan.path.attempt import Attempt
from tincan.path.direct import Direct
from tincan.path.path import Carrier, Path
from tincan.pump.delivery import Delivery
from tincan.pump.egress import Egress
from tincan.pump.ingress import Ingress
from tincan.record.keys import Recipient
from tincan.record.layout import VNET_SIZE
from tincan.record.pages import Pool
from tincan.record.port import Port
from tincan.session.session import Session
from tincan.switching.policy import Policy

MAC_A: Final = bytes.fromhex("020000000001")
MAC_B: Final = bytes.fromhex("020000000002")
POOL: Final = Pool()


class Silent:
    """Hears a link's events and the attempt's watching, and does nothing about them."""

    def __getattr__(self, _: str) -> Any:
        return lambda *_: None


class End:
    """One tincan's hot path."""

    def __init__(self, private: PrivateKey, peer: bytes, mtu: int) -> None:
        self.tap = Twin()
        self.counters: Counter[str] = Counter()
        self.policy: Policy[Link] = Policy(self.counters, lambda *_: None)
        delivery = Delivery(self.tap, self.counters)
        self.policy.deliver_by(delivery.write)
        self.ingress = Ingress(delivery, self.policy, self.counters, POOL)
        self.egress = Egress(self.tap, self.policy, self.counters, POOL)
        elected = private.public < peer
        indices = iter(range(1, 1000))

        def make_session(owner: Recipient) -> Session:
            return Session(
                private=private,
                peer=peer,
                psk=bytes(32),
                network_id=bytes(16),
                initiator=elected,
                payload=b"",
                new_index=lambda: next(indices),
                owner=owner,
            )

        self.link = Link(
            peer.hex(),
            elected=elected,
            make_session=make_session,
            events=cast(Any, Silent()),
            counters=self.counters,
            pool=POOL,
            attached=lambda: True,
            clock=time.monotonic,
        )
        self.session = self.link.session
        self.policy.links.append(self.link)
        self.sock = UdpSocket("127.0.0.1")
        self.attempt = Attempt(1, self.link.handshake, cast(Any, Silent()), UdpSocket)
        self.port = Port(self.sock, self.attempt, self.link.handshake)
        self.link.active = self.attempt
        self.link.state, self.link.up = LinkState.CONNECTED, True
        self.link._armed = 0.0  # no timers here
        self._mtu = mtu

    def join(self, other: "End") -> None:
        """Send to ``other`` from now on, directly."""
        self.go_by(Direct(self.sock, other.sock.address, self.counters))
        self.ingress.keys.update(self.session.opening)

    def go_by(self, carrier: Carrier) -> None:
        """Send by ``carrier``, whose path MTU is known."""
        self.attempt.path = Path(carrier, "host", "host", carrier.address)
        outgoing = self.link.outgoing
        outgoing.begin(carrier, True, time.monotonic())
        assert outgoing._pmtu is not None
        outgoing._pmtu.mtu = self._mtu
        outgoing._resize()

    def wake(self, *frames: bytes, now: float | None = None) -> None:
        """Have the device hand out ``frames``, in this order, and what comes of them sent."""
        self.tap.waiting = list(frames)
        self.egress.wake(time.monotonic() if now is None else now)

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()


def pair(mtu: int) -> tuple[End, End]:
    """Return two ends with keys and a path; the first is elected."""
    low, high = sorted((PrivateKey.generate() for _ in range(2)), key=lambda k: k.public)
    one, two = End(low, high.public, mtu), End(high, low.public, mtu)
    now = time.monotonic()
    for init in one.session.start(now):
        for response in two.session.receive(init, now):
            one.session.receive(response, now)
    one.join(two)
    two.join(one)
    one.policy.table.pin(MAC_B, 0, one.link, now)
    return one, two


def frame(size: int) -> bytes:
    """Return a virtio header and an IPv4 frame; super-frames are TCP, others UDP."""
    protocol = 6 if size > 1514 else 17
    ip = bytes([0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol]) + bytes(10)
    head = bytes(VNET_SIZE) + MAC_B + MAC_A + b"\x08\x00" + ip + b"\x30\x39\x13\x89"
    return head.ljust(size + VNET_SIZE, b"x")
