"""All links of this node: made on demand, given keys and sockets, described for status."""

import asyncio
import functools
import ipaddress
import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Final

from tincan.control import messages as api
from tincan.crypto.primitives import PrivateKey
from tincan.device.udp import UdpSocket
from tincan.errors import ApiError
from tincan.ice.agent import IceAgent
from tincan.ice.description import TurnServer
from tincan.ice.resolve import Resolver
from tincan.link.link import Link
from tincan.link.listener import Events
from tincan.path.attempt import Negotiation
from tincan.pump.pump import Pump
from tincan.session.session import Session
from tincan.switching.policy import Policy, Refused

MAX_LINKS: Final = 1024


class Links:
    """The links by peer. ``private``, ``identity`` and ``pump`` must be set before the first."""

    def __init__(self, policy: Policy[Link], counters: Counter[str], events: Events) -> None:
        self.private: PrivateKey | None = None
        self.identity: api.Identity | None = None
        self.pump: Pump | None = None
        self.addresses: list[str] = []  # of this host, those that may be offered
        self.refused: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        self._policy = policy
        self._counters = counters
        self._events = events
        self._clock = asyncio.get_running_loop().time
        self._by_peer: dict[str, Link] = {}
        self._resolver = Resolver()

    def __iter__(self) -> Iterator[Link]:
        return iter(list(self._by_peer.values()))

    def __len__(self) -> int:
        return len(self._by_peer)

    def to(self, peer: str) -> Link:
        """Return the link to ``peer``, made now if it is new."""
        link = self._by_peer.get(peer)
        if link is not None:
            return link
        if self.private is None or self.identity is None or self.pump is None:
            raise ApiError(api.REFUSED, "set_identity and open_tap come first")
        if len(self._by_peer) >= MAX_LINKS:
            raise ApiError(api.REFUSED, f"{MAX_LINKS} links are the most")
        elected = self.private.public.hex() < peer
        link = Link(
            peer,
            elected=elected,
            events=self._events,
            counters=self._counters,
            attached=lambda: self._policy.attached,
            blocked=lambda: self._policy.blocked,
            refuse=self.refuses,
            mtu_probing=self.identity.mtu_probing,
            clock=self._clock,
        )
        link.session = Session(
            private=self.private,
            peer=bytes.fromhex(peer),
            psk=bytes.fromhex(self.identity.psk),
            network_id=bytes.fromhex(self.identity.network_id),
            initiator=elected,
            payload=b"",
            new_index=self._new_index,
            owner=link,
            on_keys=functools.partial(self._keys_changed, link),
            jitter=random.random,
            wall=time.time,
        )
        self._by_peer[peer] = link
        self._policy.links.append(link)
        self._policy.changed()
        return link

    def _new_index(self) -> int:
        assert self.pump is not None
        offered = {link.session.pending_index for link in self._by_peer.values()}
        while True:
            index = random.getrandbits(32)
            if index and index not in self.pump.ingress.keys and index not in offered:
                return index

    def _keys_changed(self, link: Link) -> None:
        assert self.pump is not None
        keys = self.pump.ingress.keys
        for index in link.indices:
            keys.pop(index, None)
        link.indices = set(link.session.opening)
        keys.update(link.session.opening)

    def negotiate(self, link: Link, number: int) -> Negotiation:
        identity, pump = self.identity, self.pump
        assert identity is not None
        assert pump is not None
        negotiation = Negotiation(
            number,
            link,
            pump,
            self._open_socket,
        )
        negotiation.agent = IceAgent(
            controlling=link.elected,
            sockets=negotiation,
            stun=[(entry.host, entry.port) for entry in identity.stun],
            turn=[
                TurnServer(t.host, t.port, t.user, t.password, t.transport) for t in identity.turn
            ],
            resolver=self._resolver,
            addresses=lambda: self.addresses,
            refuse=self.refuses,
            on_data=functools.partial(self._stream_data, negotiation),
            on_path=functools.partial(link.path_changed, negotiation),
            counters=self._counters,
        )
        link.begin(negotiation)
        return negotiation

    def _open_socket(self, host: str, port: int) -> UdpSocket:
        identity = self.identity
        assert identity is not None
        sock = UdpSocket(host, port, gso=identity.gso, gro=identity.gro)
        if identity.gro and not sock.receive_offload:
            self._counters["offload_fallbacks.udp_gro"] += 1
        return sock

    def _stream_data(self, negotiation: Negotiation, datagram: bytes) -> None:
        source = negotiation.source()
        if source is not None and self.pump is not None:
            self.pump.ingress.relayed(source, datagram, self._clock())

    async def remove(self, peer: str) -> None:
        """Say goodbye to ``peer`` and forget it; nothing, if there is no link."""
        link = self._by_peer.pop(peer, None)
        if link is None:
            return
        self._policy.remove(link)
        await link.close()
        assert self.pump is not None
        for index in link.indices:
            self.pump.ingress.keys.pop(index, None)

    async def close(self) -> None:
        """Say goodbye to every peer."""
        async with asyncio.TaskGroup() as closing:
            for link in self:
                closing.create_task(link.close())
        self._by_peer.clear()

    def refuses(self, address: str) -> bool:
        """Whether a remote candidate's address must not be used: it leads into the overlay."""
        try:
            remote = ipaddress.ip_address(address)
        except ValueError:
            return True
        return any(remote in network for network in self.refused)


def describe(link: Link, refused: dict[str, Refused], now: float) -> api.LinkInfo:
    """Return what status tells of a link, and of what its peer was refused."""
    path = link.path
    info = None
    if path is not None:
        host, port = path.peer_address
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        relay = None
        if path.local == "relay":
            relay = f"{path.address[0]}:{path.address[1]}"
        info = api.PathInfo(
            path.local, path.remote, address, relay, path.behind_nat, path.peer_behind_nat
        )
    return api.LinkInfo(
        peer=link.peer,
        state=link.state.value,
        relayed=path is not None and path.relayed,
        path=info,
        rtt_ms=None if link.rtt is None else round(link.rtt * 1000, 3),
        pmtu=link.mtu,
        tx_bytes=link.tx_bytes,
        rx_bytes=link.rx_bytes,
        tx_frames=link.tx_frames,
        rx_frames=link.rx_frames,
        tx_records=link.tx_records,
        tx_datagrams=link.tx_datagrams,
        attended=link.attended,
        negotiating=bool(link.pending),
        offloads=_offloads(link),
        refused=[
            api.RefusedFrames(kind, frames.count, round(now - frames.last, 1))
            for kind, frames in refused.items()
        ],
    )


def _offloads(link: Link) -> list[str]:
    """What the kernel does for us on this path: gso (UDP_SEGMENT), gro (UDP_GRO)."""
    path = link.path
    if path is None or path.socket is None:
        return []
    sock = path.socket
    in_use = {"gso": sock.segment_offload, "gro": sock.receive_offload}
    return [name for name, on in in_use.items() if on]
