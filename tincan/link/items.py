"""Items of a record that are no frames: their layout, and who acts on them. Pure.

``act`` is the receiving side, a table of kinds; ``probe`` and its neighbours make what is sent.
"""

from collections import Counter
from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

from tincan.link.loss import REPORT
from tincan.record.layout import ECHO, SIZE, Flags, Item, item
from tincan.record.port import Port

MAX_ICC: Final = 32768
"""Bytes of one controller message."""

_ANY: Final = 0xFFFFFF
"""The longest payload of an item: its length has 24 bits."""


class Actor(Protocol):
    """Acts on what a peer says: a link. ``port``: where it came by."""

    def probed(self, number: int, flags: Flags, rtt: float | None, port: Port, now: float) -> None:
        """Answer PROBE ``number``; ``rtt``: the round trip that the peer measures, in seconds."""

    def probe_answered(self, number: int, flags: Flags, port: Port, now: float) -> None:
        """Take the answer to probe ``number``."""

    def icc_received(self, channel: int, payload: bytes, now: float) -> None:
        """Take a controller's message."""

    def mtu_probed(self, size: int, port: Port, now: float) -> None:
        """Say that a packet of ``size`` bytes has arrived."""

    def mtu_answered(self, size: int, port: Port, now: float) -> None:
        """Note that a packet of ``size`` bytes has arrived at the peer."""

    def loss_reported(self, report: bytes, now: float) -> None:
        """Take a report of link.loss; raise struct.error if it is none."""

    def closed_by_peer(self, now: float) -> None:
        """Note that the peer leaves."""


def _probe(actor: Actor, payload: bytes, port: Port, now: float) -> None:
    number, flags, rtt = ECHO.unpack(payload)
    actor.probed(number, Flags(flags), rtt / 1e6 if rtt else None, port, now)


def _probe_reply(actor: Actor, payload: bytes, port: Port, now: float) -> None:
    number, flags, _ = ECHO.unpack(payload)
    actor.probe_answered(number, Flags(flags), port, now)


def _icc(actor: Actor, payload: bytes, port: Port, now: float) -> None:
    actor.icc_received(SIZE.unpack_from(payload)[0], payload[SIZE.size :], now)


def _mtu_probe(actor: Actor, payload: bytes, port: Port, now: float) -> None:
    actor.mtu_probed(SIZE.unpack_from(payload)[0], port, now)


def _mtu_reply(actor: Actor, payload: bytes, port: Port, now: float) -> None:
    actor.mtu_answered(SIZE.unpack(payload)[0], port, now)


def _loss(actor: Actor, payload: bytes, port: Port, now: float) -> None:
    actor.loss_reported(payload, now)


def _close(actor: Actor, payload: bytes, port: Port, now: float) -> None:
    actor.closed_by_peer(now)


Handler: TypeAlias = Callable[[Actor, bytes, Port, float], None]

HANDLERS: Final[dict[int, tuple[range, Handler]]] = {
    Item.PROBE: (range(ECHO.size, ECHO.size + 1), _probe),
    Item.PROBE_REPLY: (range(ECHO.size, ECHO.size + 1), _probe_reply),
    Item.ICC: (range(SIZE.size, _ANY + 1), _icc),
    Item.MTU_PROBE: (range(SIZE.size, _ANY + 1), _mtu_probe),  # padded to what is probed
    Item.MTU_REPLY: (range(SIZE.size, SIZE.size + 1), _mtu_reply),
    Item.LOSS: (range(REPORT.size, REPORT.size + 1), _loss),
    Item.CLOSE: (range(_ANY + 1), _close),
}
"""Kind -> (sizes that its payload may have, what becomes of it)."""


def act(
    actor: Actor, kind: int, payload: bytes, port: Port, now: float, counters: Counter[str]
) -> None:
    """Have ``actor`` act on one item; count what is unknown or malformed."""
    sizes, handler = HANDLERS.get(kind, (None, None))
    if sizes is None or handler is None:
        counters["items_dropped.unknown_kind"] += 1
    elif len(payload) not in sizes:
        counters["items_dropped.malformed"] += 1
    else:
        handler(actor, payload, port, now)


def echo(kind: Item, number: int, flags: Flags, rtt: float | None) -> bytes:
    """Return a PROBE or PROBE_REPLY; ``rtt``: the smoothed round trip in seconds, if known."""
    return item(kind, ECHO.pack(number, flags, min(int((rtt or 0.0) * 1e6), 0xFFFFFFFF)))


def icc(channel: int, payload: bytes) -> bytes:
    """Return a controller's message, at most MAX_ICC bytes."""
    return item(Item.ICC, SIZE.pack(channel) + payload)


def mtu_probe(size: int, room: int) -> bytes:
    """Return a probe for packets of ``size`` bytes, padded to the ``room`` of its record."""
    return item(Item.MTU_PROBE, SIZE.pack(size)).ljust(room, b"\0")


def mtu_reply(size: int) -> bytes:
    """Return the answer to a probe of ``size`` bytes."""
    return item(Item.MTU_REPLY, SIZE.pack(size))


def close() -> bytes:
    """Return a goodbye."""
    return item(Item.CLOSE, b"")
