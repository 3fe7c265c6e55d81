"""Every kind of message, mutated: the peer is heard or closed, and nobody else notices."""

import random

from controller.routes import messages
from controller.routes.messages import KEEPALIVE, Hello
from tests.controller.routes.world import (
    A1,
    NAT,
    NET1,
    NET2,
    VNI,
    Stranger,
    add,
    read,
    remove,
    speaker,
)

MUTANTS = 20_000
MESSAGES = (
    messages.hello(Hello(5)),
    KEEPALIVE,
    messages.subscribe(VNI),
    messages.unsubscribe(VNI),
    *(make(net, hop) for make in (add, remove) for net in (NET1, NET2) for hop in (A1, NAT)),
)


def mutant(chance: random.Random) -> bytes:
    """Return a message with one to three bytes changed, put in or taken out."""
    data = bytearray(chance.choice(MESSAGES))
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(data) + 1)
        data[at : at + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
    return bytes(data)


def test_mutants() -> None:
    chance = random.Random(4711)
    node = speaker()
    good = Stranger.established(node, "good")
    good.say(messages.subscribe(VNI))
    bad = Stranger.established(node, "bad")
    for number in range(MUTANTS):
        if bad.peer.name not in node.peers:
            bad = Stranger.established(node, f"bad {number}")
        bad.say(mutant(chance))
        if number % 100 == 0:
            bad.hears()
            read(good.hears())
            good.say(KEEPALIVE)
            assert read(good.hears())[0] == read(KEEPALIVE)[0]
    node.lost(bad.peer, "gone", 0.0)
    while node.busy:
        node.work(0.0)
    assert set(node.peers) == {"good"}
    assert not node.reflector.received.routes
    assert {"undecodable", "wrong_version", "unknown_kind", "too_long"} <= set(node.closed)
