"""A chain of changes, read by each at its own pace."""

import sys

from controller.routes.channel import ENTRY_BYTES, NOBODY, Channel, Cursor
from controller.routes.table import Route
from controller.routes.values import Destination, NextHop, Vni

VNI = Vni(1)


def route(serial: int) -> Route:
    return Route(VNI, Destination(serial.to_bytes(4, "big"), 32), NextHop(bytes(16)), serial)


def frames(cursor: Cursor) -> list[bytes]:
    return [entry.frame for entry in cursor.changes()]


def test_each_reads_what_came_after_it() -> None:
    channel = Channel()
    assert channel.append(b"before", route(1), NOBODY) == []
    one = channel.join(1, VNI, 0)
    assert frames(one) == []
    assert channel.append(b"a", route(2), NOBODY) == [one]
    two = channel.join(2, VNI, 0)
    assert channel.append(b"b", route(3), NOBODY) == []  # one is awake, two has not waited yet
    assert frames(one) == [b"a", b"b"]
    assert frames(two) == [b"b"]
    assert set(channel.append(b"c", route(4), 2)) == {one, two}
    assert frames(one) == [b"c"]
    assert frames(two) == []  # kept from it


def test_a_change_of_what_is_still_to_be_replayed_is_left_out() -> None:
    channel = Channel()
    cursor = channel.join(1, VNI, 5)
    channel.append(b"old", route(5), NOBODY)
    channel.append(b"new", route(6), NOBODY)
    assert frames(cursor) == [b"new"]
    cursor.told = 5
    channel.append(b"old", route(5), NOBODY)
    assert frames(cursor) == [b"old"]


def test_what_all_have_read_is_gone() -> None:
    channel = Channel()
    slow, fast = channel.join(1, VNI, 0), channel.join(2, VNI, 0)
    kept = route(1)
    for _ in range(100):
        channel.append(b"0123456789", kept, NOBODY)
    assert len(frames(fast)) == 100
    assert slow.unread == channel.unread == 100 * (ENTRY_BYTES + 10)
    assert fast.unread == 0
    before = sys.getrefcount(kept)
    channel.leave(1)
    del slow
    assert channel.unread == 0
    assert sys.getrefcount(kept) == before - 99  # the last entry is kept for the next one


def test_a_long_chain_goes_without_recursion() -> None:
    channel = Channel()
    cursor = channel.join(1, VNI, 0)
    for _ in range(300_000):
        channel.append(b"", route(1), NOBODY)
    channel.leave(1)
    del cursor
