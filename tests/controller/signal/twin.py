"""Signalling in memory: a room in which every twin sees every other at once."""

import asyncio
from collections.abc import Collection

from controller.signal.events import Absent, Present, Received, SignalConnected, SignalLost
from controller.signal.port import Listener, Signalling, SignalState
from controller.signal.sealing import MAX_PAYLOAD_BYTES


class Room:
    """The twins that are connected, by id."""

    def __init__(self) -> None:
        self.members: dict[str, SignalTwin] = {}
        self.sessions = 0


class SignalTwin:
    """``Signalling`` through a Room; what ``send`` takes arrives before it returns."""

    def __init__(self, room: Room, node: str, name: str, listener: Listener) -> None:
        self.node = node
        self.name = name
        self.lost_addresses: list[str] = []
        self._room = room
        self._listener = listener

    @property
    def state(self) -> SignalState:
        return SignalState("memory:", self.node in self._room.members, None)

    @property
    def peers(self) -> dict[str, str]:
        if self.node not in self._room.members:
            return {}
        others = self._room.members.values()
        return {other.node: other.name for other in others if other is not self}

    async def run(self) -> None:
        room = self._room
        room.sessions += 1
        present = Present(self.node, self.name, room.sessions.to_bytes(16, "big"))
        room.members[self.node] = self
        self._listener(SignalConnected())
        for other in [each for each in room.members.values() if each is not self]:
            self._listener(Present(other.node, other.name, bytes(16)))
            other._listener(present)
        try:
            await asyncio.Event().wait()
        finally:
            del room.members[self.node]
            self._listener(SignalLost())
            for other in room.members.values():
                other._listener(Absent(self.node))

    def send(self, peer: str, payload: bytes) -> bool:
        receiver = self._room.members.get(peer)
        if peer not in self.peers or receiver is None or len(payload) > MAX_PAYLOAD_BYTES:
            return False
        receiver._listener(Received(self.node, payload))
        return True

    def network_changed(self, gone: Collection[str] = ()) -> None:
        self.lost_addresses += gone


def of_the_port(signalling: Signalling) -> Signalling:
    """Return ``signalling``; the type checker sees here that a class has the port."""
    return signalling
