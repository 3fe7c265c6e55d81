"""All links of this node: made on demand, given sessions and attempts."""

import asyncio
import functools
import ipaddress
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from tincan.crypto.primitives import PrivateKey
from tincan.device.device import Address
from tincan.device.udp import UdpSocket
from tincan.errors import LinkError
from tincan.ice.agent import IceAgent
from tincan.ice.resolve import Resolver
from tincan.link.link import Link
from tincan.link.listener import Events
from tincan.path.attempt import Attempt, Reader
from tincan.path.description import TurnServer
from tincan.record.keys import OpeningKey, Recipient
from tincan.record.pages import Pool
from tincan.record.port import Port
from tincan.session.session import Session
from tincan.switching.policy import Policy

MAX_LINKS: Final = 1024
"""Links of one node."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is, and what its links are made with."""

    private: PrivateKey
    psk: bytes
    network_id: bytes
    stun: list[Address] = field(default_factory=list)
    turn: list[TurnServer] = field(default_factory=list)
    gso: bool = True
    gro: bool = True
    mtu_probing: bool = True


class Ports(Reader, Protocol):
    """Reads ports, and opens what comes by them: the pump."""

    keys: dict[int, OpeningKey]
    """Receiver index -> key."""

    def relayed(self, port: Port, datagram: bytes, now: float) -> None:
        """Take a datagram that came through a relay over a stream."""


class Links:
    """The links by peer. ``identity`` and ``ports`` must be set before the first."""

    def __init__(
        self, policy: Policy[Link], counters: Counter[str], events: Events, pool: Pool
    ) -> None:
        self.identity: Identity | None = None
        self.ports: Ports | None = None
        self.addresses: list[str] = []  # of this host, those that may be offered
        self.refused: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        self._policy = policy
        self._counters = counters
        self._events = events
        self._pool = pool
        self._clock = asyncio.get_running_loop().time
        self._by_peer: dict[str, Link] = {}
        self._resolver = Resolver()

    def __iter__(self) -> Iterator[Link]:
        return iter(list(self._by_peer.values()))

    def __len__(self) -> int:
        return len(self._by_peer)

    def find(self, peer: str) -> Link | None:
        """Return the link to ``peer`` if there is one."""
        return self._by_peer.get(peer)

    def to(self, peer: str) -> Link:
        """Return the link to ``peer``, made now if it is new; raise LinkError."""
        link = self._by_peer.get(peer)
        if link is not None:
            return link
        identity, ports = self.identity, self.ports
        if identity is None or ports is None:
            raise LinkError("set_identity and open_tap come first")
        if len(self._by_peer) >= MAX_LINKS:
            raise LinkError(f"{MAX_LINKS} links are the most")
        elected = identity.private.public.hex() < peer

        def make_session(owner: Recipient) -> Session:
            return Session(
                private=identity.private,
                peer=bytes.fromhex(peer),
                psk=identity.psk,
                network_id=identity.network_id,
                initiator=elected,
                payload=b"",
                new_index=self._new_index,
                owner=owner,
                on_keys=lambda: self._keys_changed(made),
                jitter=random.random,
                wall=time.time,
            )

        made = self._by_peer[peer] = Link(
            peer,
            elected=elected,
            make_session=make_session,
            events=self._events,
            counters=self._counters,
            pool=self._pool,
            attached=lambda: self._policy.attached,
            blocked=lambda: self._policy.blocked,
            refuse=self.refuses,
            mtu_probing=identity.mtu_probing,
            clock=self._clock,
        )
        self._policy.links.append(made)
        self._policy.changed()
        return made

    def _new_index(self) -> int:
        """Return an unused receiver index; never 0, which is the rehearsals'."""
        assert self.ports is not None
        offered = {link.session.pending_index for link in self._by_peer.values()}
        while True:
            index = random.getrandbits(32)
            if index and index not in self.ports.keys and index not in offered:
                return index

    def _keys_changed(self, link: Link) -> None:
        """Register the keys that ``link`` has now, and no others of it."""
        assert self.ports is not None
        keys = self.ports.keys
        for index in link.indices:
            keys.pop(index, None)
        link.indices = set(link.session.opening)
        keys.update(link.session.opening)

    def attempt(self, link: Link, number: int) -> Attempt:
        """Begin a negotiation: return its attempt, with an agent that has done nothing yet."""
        identity, ports = self.identity, self.ports
        assert identity is not None
        assert ports is not None
        attempt = Attempt(number, link.handshake, ports, self._open_socket)
        attempt.agent = IceAgent(
            controlling=link.elected,
            sockets=attempt,
            stun=identity.stun,
            turn=identity.turn,
            resolver=self._resolver,
            addresses=lambda: self.addresses,
            refuse=self.refuses,
            on_data=functools.partial(self._stream_data, attempt),
            on_path=functools.partial(link.path_changed, attempt),
            counters=self._counters,
        )
        link.begin(attempt)
        return attempt

    def _open_socket(self, host: str, port: int) -> UdpSocket:
        """Bind a socket with the offloads that are wanted; raise SystemRefusal."""
        identity = self.identity
        assert identity is not None
        sock = UdpSocket(host, port, gso=identity.gso, gro=identity.gro)
        if identity.gro and not sock.receive_offload:
            self._counters["offload_fallbacks.udp_gro"] += 1
        return sock

    def _stream_data(self, attempt: Attempt, datagram: bytes) -> None:
        """Hand on what came through a relay over a stream."""
        if self.ports is not None:
            self.ports.relayed(attempt.stream, datagram, self._clock())

    async def remove(self, peer: str) -> None:
        """Say goodbye to ``peer`` and forget it; do nothing if there is no link."""
        link = self._by_peer.pop(peer, None)
        if link is None:
            return
        self._policy.remove(link)
        await link.close()
        assert self.ports is not None
        for index in link.indices:
            self.ports.keys.pop(index, None)

    async def close(self) -> None:
        """Say goodbye to every peer."""
        async with asyncio.TaskGroup() as closing:
            for link in self:
                closing.create_task(link.close())
        self._by_peer.clear()

    def refuses(self, address: str) -> bool:
        """Return whether a remote candidate's address must not be used.

        It must not if it leads into the overlay.
        """
        try:
            remote = ipaddress.ip_address(address)
        except ValueError:
            return True
        return any(remote in network for network in self.refused)
