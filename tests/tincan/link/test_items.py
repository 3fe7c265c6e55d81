"""Items of any kind and length: acted on, or counted."""

from collections import Counter
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from tincan.link import items
from tincan.record.layout import ITEM_SIZE, Flags, Item


class Actor:
    """Remembers what it was asked to do."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self.asked.append((name, *args))


def act(kind: int, payload: bytes) -> tuple[list[tuple[Any, ...]], Counter[str]]:
    actor, counters = Actor(), Counter[str]()
    items.act(actor, kind, payload, cast(Any, "port"), 1.0, counters)
    return actor.asked, counters


@given(st.integers(0, 15), st.binary(max_size=40))
def test_each_is_acted_on_or_counted(kind: int, payload: bytes) -> None:
    asked, counters = act(kind, payload)
    assert len(asked) + sum(counters.values()) == 1


def test_a_probe_says_what_was_put_in() -> None:
    probe = items.echo(Item.PROBE, 7, Flags.ATTENDED | Flags.BLOCKED, 0.25)
    ((name, number, flags, rtt, _, _),), _ = act(Item.PROBE, probe[ITEM_SIZE:])
    assert (name, number, rtt) == ("probed", 7, 0.25)
    assert flags == Flags.ATTENDED | Flags.BLOCKED


def test_a_message_keeps_its_channel() -> None:
    ((name, channel, payload, _),), _ = act(Item.ICC, items.icc(5, b"x")[ITEM_SIZE:])
    assert (name, channel, payload) == ("icc_received", 5, b"x")
