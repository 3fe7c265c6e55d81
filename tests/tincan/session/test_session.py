"""Two sessions and a network between them that loses, delays, repeats and reorders."""

import contextlib
import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tincan.crypto.primitives import PrivateKey
from tincan.errors import HandshakeFailed
from tincan.record.keys import OpeningKey
from tincan.record.layout import HANDSHAKE_INIT, HANDSHAKE_RESPONSE, HEADER, HEADER_SIZE, ZERO_NONCE
from tincan.session.admission import HANDSHAKES_PER_SECOND, MAC_SIZE, mac1, mac1_key
from tincan.session.session import (
    INIT_LIFETIME,
    MAX_HANDSHAKE,
    MAX_PAYLOAD,
    OPENING_KEYS,
    REJECT_AFTER,
    REJECT_AFTER_RECORDS,
    REKEY_AFTER,
    REKEY_AFTER_RECORDS,
    REPEAT_AFTER,
    RETRY,
    UNCONFIRMED,
    Session,
)
from tincan.session.table import State
from tincan.switching.bucket import TokenBucket

ALICE = PrivateKey.from_bytes(b"\x01" * 32)
BOB = PrivateKey.from_bytes(b"\x02" * 32)
EVE = PrivateKey.from_bytes(b"\x03" * 32)
PSK = b"\x07" * 32
NETWORK = b"\x09" * 16
LINK: Any = object()
TO_ALICE, TO_BOB = mac1_key(PSK, ALICE.public), mac1_key(PSK, BOB.public)


def session(initiator: bool, indexes: Iterator[int], **changes: Any) -> Session:
    defaults: dict[str, Any] = {
        "private": ALICE if initiator else BOB,
        "peer": BOB.public if initiator else ALICE.public,
        "psk": PSK,
        "network_id": NETWORK,
        "initiator": initiator,
        "payload": b"alice" if initiator else b"bob",
        "new_index": lambda: next(indexes),
        "owner": LINK,
    }
    return Session(**{**defaults, **changes})


def pair(**changes: Any) -> tuple[Session, Session]:
    """Changes apply to the initiator."""
    return session(True, itertools.count(1000), **changes), session(False, itertools.count(2000))


Record = tuple[int, int, bytes]


def seal(sender: Session) -> Record:
    key = sender.sealing
    assert key is not None
    counter = key.counter
    key.counter += 1
    nonce = ZERO_NONCE + counter.to_bytes(8, "big")
    return key.receiver, counter, key.aead.encrypt(nonce, b"frame", None)


def unseal(receiver: Session, record: Record, now: float) -> OpeningKey:
    index, counter, ciphertext = record
    key = receiver.opening[index]
    assert key.window.check(counter)
    nonce = ZERO_NONCE + counter.to_bytes(8, "big")
    assert key.aead.decrypt(nonce, ciphertext, None) == b"frame"
    assert key.window.commit(counter)
    receiver.opened(key, now)
    return key


def handshake(alice: Session, bob: Session, now: float = 0.0) -> None:
    [init] = alice.start(now)
    [response] = bob.receive(init, now)
    assert alice.receive(response, now) == []
    unseal(bob, seal(alice), now)
    unseal(alice, seal(bob), now)


def snapshot(each: Session) -> tuple[object, ...]:
    return (
        each.state,
        each.sealing,
        dict(each.opening),
        each.peer_payload,
        each.deadline,
        each.pending_index,
    )


def refused(each: Session, datagram: bytes, now: float = 0.0) -> str:
    """Return the reason for which ``each`` refuses ``datagram``; nothing may change by it."""
    before = snapshot(each)
    each._admission._bucket = TokenBucket(1000, 1000)  # the limit has a test of its own
    with pytest.raises(HandshakeFailed) as failure:
        each.receive(datagram, now)
    assert snapshot(each) == before
    return failure.value.reason


# --- one step after the other


def test_handshake() -> None:
    alice, bob = pair()
    assert not alice.established
    assert alice.deadline == math.inf
    [init] = alice.start(5.0)
    assert alice.state is State.INIT_SENT
    assert alice.pending_index == 1000
    assert HEADER.unpack_from(init) == (HANDSHAKE_INIT, 0, 1, 1, 1000, 0)
    [response] = bob.receive(init, 5.1)
    assert HEADER.unpack_from(response) == (HANDSHAKE_RESPONSE, 0, 1, 1, 1000, 2000)
    assert bob.state is State.RESPONSE_SENT
    assert not bob.established
    assert list(bob.opening) == [2000]
    assert bob.opening[2000].owner is LINK
    assert alice.receive(response, 5.2) == []
    assert alice.established
    assert alice.pending_index is None
    assert alice.peer_payload == b"bob"
    assert bob.peer_payload is None
    key = unseal(bob, seal(alice), 5.3)
    assert key.confirmed
    assert bob.state is State.ESTABLISHED
    assert bob.peer_payload == b"alice"
    unseal(alice, seal(bob), 5.4)


def test_the_longest_handshake_fits() -> None:
    alice, bob = pair(payload=bytes(MAX_PAYLOAD))
    [init] = alice.start(0.0)
    assert len(init) == MAX_HANDSHAKE
    assert len(bob.receive(init, 0.0)[0]) < len(init)  # no amplification
    with pytest.raises(ValueError, match="payload"):
        pair(payload=bytes(MAX_PAYLOAD + 1))


def test_rekey_keeps_what_is_in_flight() -> None:
    alice, bob = pair()
    handshake(alice, bob)
    old_to_bob, old_to_alice = seal(alice), seal(bob)
    [init] = alice.start(10.0)
    assert alice.state is State.REKEYING
    [response] = bob.receive(init, 10.0)
    assert bob.state is State.REKEYING
    still_old = seal(bob)
    alice.receive(response, 10.0)
    new_to_bob = seal(alice)
    assert new_to_bob[0] == 2001
    assert seal(bob)[0] == 1000
    unseal(bob, new_to_bob, 10.1)
    unseal(bob, old_to_bob, 10.1)
    new_to_alice = seal(bob)
    assert new_to_alice[0] == 1001
    for record in (new_to_alice, still_old, old_to_alice):
        unseal(alice, record, 10.2)


def test_a_late_record_under_the_old_key_does_not_bring_it_back() -> None:
    alice, bob = pair()
    handshake(alice, bob)
    late = seal(alice)
    handshake(alice, bob, 10.0)
    unseal(bob, late, 10.0)
    assert bob.sealing is not None
    assert bob.sealing.receiver == 1001


def test_initiator_rekeys_by_age() -> None:
    alice, bob = pair()
    handshake(alice, bob)
    assert alice.deadline == REKEY_AFTER
    assert bob.deadline == REJECT_AFTER
    assert alice.tick(REKEY_AFTER - 0.1) == []
    [init] = alice.tick(REKEY_AFTER)
    [response] = bob.receive(init, REKEY_AFTER)
    alice.receive(response, REKEY_AFTER)
    assert seal(alice)[0] == 2001
    assert bob.tick(REKEY_AFTER) == []


@pytest.mark.parametrize("direction", ["sent", "received"])
def test_initiator_rekeys_by_records(direction: str) -> None:
    alice, bob = pair()
    handshake(alice, bob)
    assert alice.sealing is not None
    if direction == "sent":
        alice.sealing.counter = REKEY_AFTER_RECORDS
    else:
        alice.opening[1000].window.commit(REKEY_AFTER_RECORDS - 1)
    assert len(alice.tick(1.0)) == 1


def test_an_exhausted_key_seals_no_more() -> None:
    alice, bob = pair()
    handshake(alice, bob)
    assert bob.sealing is not None
    bob.sealing.counter = REJECT_AFTER_RECORDS
    bob.tick(1.0)
    assert not bob.established


def test_old_keys_are_refused_and_forgotten() -> None:
    alice, bob = pair()
    handshake(alice, bob)
    alice.tick(REJECT_AFTER)
    bob.tick(REJECT_AFTER)
    assert alice.opening == bob.opening == {}
    assert alice.state is State.INIT_SENT  # goes on trying
    assert bob.state is State.CLOSED
    assert bob.deadline == math.inf


def test_an_answer_that_nobody_confirms_is_forgotten() -> None:
    alice, bob = pair()
    bob.receive(alice.start(0.0)[0], 0.0)
    bob.tick(bob.deadline)
    assert bob.state is State.CLOSED
    assert bob.opening == {}


def test_init_is_repeated_as_it_is_and_then_made_anew() -> None:
    alice, _ = pair()
    [init] = alice.start(0.0)
    now, times = 0.0, []
    while (now := alice.deadline) < INIT_LIFETIME:
        assert alice.tick(now - 0.001) == []
        assert alice.tick(now) == [init]
        times.append(now)
    assert times[: len(RETRY)] == list(itertools.accumulate(RETRY))
    [another] = alice.tick(INIT_LIFETIME)
    assert another != init
    assert alice.pending_index == 1001


def test_repetitions_are_spread_by_jitter() -> None:
    alice, _ = pair(jitter=lambda: 0.5)
    alice.start(0.0)
    assert alice.deadline == pytest.approx(RETRY[0] * 1.05)


def test_start_again_does_not_flood() -> None:
    alice, bob = pair()
    [init] = alice.start(0.0)
    assert alice.start(REPEAT_AFTER / 2) == []
    assert alice.start(REPEAT_AFTER) == [init]
    alice.receive(bob.receive(init, 0.3)[0], 0.3)
    assert alice.start(0.4) == []  # the new key is not confirmed yet
    unseal(bob, seal(alice), 0.5)
    unseal(alice, seal(bob), 0.5)
    assert len(alice.start(0.5)) == 1


def test_start_again_when_the_peer_has_forgotten_us() -> None:
    alice, bob = pair()
    alice.receive(bob.receive(alice.start(0.0)[0], 0.0)[0], 0.0)
    reborn = session(False, itertools.count(3000))
    [init] = alice.start(UNCONFIRMED)
    alice.receive(reborn.receive(init, 5.0)[0], 5.0)
    unseal(reborn, seal(alice), 5.0)
    unseal(alice, seal(reborn), 5.0)


def test_the_same_init_gets_the_same_response() -> None:
    alice, bob = pair()
    [init] = alice.start(0.0)
    first = bob.receive(init, 0.0)
    before = snapshot(bob)
    assert bob.receive(init, 1.5) == first
    assert snapshot(bob) == before
    alice.receive(first[0], 1.6)
    assert refused(alice, first[0], 1.7) == "handshake_unexpected"
    unseal(bob, seal(alice), 1.8)
    assert bob.receive(init, 1.9) == first
    bob.tick(REJECT_AFTER)
    assert refused(bob, init, REJECT_AFTER) == "handshake_replayed"


def test_a_forged_response_does_not_spoil_the_true_one() -> None:
    alice, bob = pair()
    [init] = alice.start(0.0)
    [response] = bob.receive(init, 0.0)
    forged = bytearray(response)
    forged[-MAC_SIZE - 1] ^= 1
    forged[-MAC_SIZE:] = mac1(TO_ALICE, bytes(forged[:-MAC_SIZE]))
    assert refused(alice, bytes(forged)) == "handshake_forged"
    alice.receive(response, 0.1)
    unseal(bob, seal(alice), 0.1)


def test_a_replayed_init_disturbs_nothing() -> None:
    alice, bob = pair()
    [old] = alice.start(0.0)
    alice.receive(bob.receive(old, 0.0)[0], 0.0)
    unseal(bob, seal(alice), 0.0)
    unseal(alice, seal(bob), 0.0)
    handshake(alice, bob, 10.0)
    assert refused(bob, old, 10.0) == "handshake_replayed"
    record = seal(bob)
    unseal(alice, record, 11.0)


def test_an_init_replayed_to_a_new_session_does_not_hold_off_the_true_one() -> None:
    """After a reboot of the initiator its old stamps may be above its new ones."""
    old, bob = pair(), session(False, itertools.count(2000))
    for now in range(1000, 1010):
        alice, _ = pair()
        bob.receive(alice.start(float(now))[0], 0.1 * now)
    alice, _ = old
    handshake(alice, bob, 102.0)
    assert bob.established


def test_wall_time_orders_handshakes_over_reboots() -> None:
    clock = iter([1e9, 1e9 + 5, 1e9 + 5])
    alice, bob = pair(wall=lambda: next(clock))
    handshake(alice, bob, 5000.0)
    reborn = session(True, itertools.count(1500), wall=lambda: next(clock))
    handshake(reborn, bob, 5001.0)
    # The clock stands still: stamps rise all the same.
    handshake(reborn, bob, 5002.0)


def test_a_clock_that_was_set_back_is_forgiven_when_the_keys_are_gone() -> None:
    alice, bob = pair(wall=lambda: 2e9)
    handshake(alice, bob)
    reborn = session(True, itertools.count(1500), wall=lambda: 1e9)
    assert refused(bob, reborn.start(1.0)[0]) == "handshake_replayed"
    bob.tick(bob.deadline)
    reborn = session(True, itertools.count(1600), wall=lambda: 1e9)
    handshake(reborn, bob, 200.0)


def test_peer_cannot_make_us_remember_more_than_a_few_keys() -> None:
    bob = session(False, itertools.count(2000))
    changes: list[list[int]] = []
    bob._on_keys = lambda: changes.append(sorted(bob.opening))
    alice = session(True, itertools.count(1000))
    handshake(alice, bob, 0.0)
    for now in range(1, 40):
        another = session(True, itertools.count(5000 + now))
        bob.receive(another.start(float(now))[0], float(now))
        assert len(bob.opening) <= OPENING_KEYS
        assert 2000 in bob.opening  # the one in use survives
    assert len(changes) == 40
    unseal(bob, seal(alice), 40.0)
    unseal(alice, seal(bob), 40.0)


def test_work_per_second_is_bounded() -> None:
    alice, bob = pair()
    [init] = alice.start(0.0)
    for _ in range(HANDSHAKES_PER_SECOND):
        assert bob.receive(init, 0.5)
    with pytest.raises(HandshakeFailed) as failure:
        bob.receive(init, 0.5)
    assert failure.value.reason == "handshake_rate"
    looked_at = 0
    for millisecond in range(500, 10_500):
        with contextlib.suppress(HandshakeFailed):
            bob.receive(init, millisecond / 1000)
            looked_at += 1
    assert 10 * HANDSHAKES_PER_SECOND - 1 <= looked_at <= 10 * HANDSHAKES_PER_SECOND


def test_strangers_do_not_count_as_work() -> None:
    alice, bob = pair(psk=b"\x08" * 32)
    [init] = alice.start(0.0)
    for _ in range(2 * HANDSHAKES_PER_SECOND):
        with pytest.raises(HandshakeFailed) as failure:
            bob.receive(init, 0.0)
        assert failure.value.reason == "handshake_stranger"
    handshake(pair()[0], bob)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"psk": b"\x08" * 32}, "handshake_stranger"),
        ({"peer": EVE.public}, "handshake_stranger"),
        ({"network_id": b"\x0a" * 16}, "handshake_forged"),
        ({"private": EVE}, "handshake_forged"),  # the prologue names the initiator
    ],
)
def test_only_the_expected_peer_is_answered(changes: dict[str, Any], reason: str) -> None:
    alice, bob = pair(**changes)
    assert refused(bob, alice.start(0.0)[0]) == reason


def test_roles_are_fixed() -> None:
    alice, bob = pair()
    twin = session(False, itertools.count(1), private=ALICE, peer=BOB.public)
    assert bob.start(0.0) == []
    [init] = session(True, itertools.count(1), private=BOB, peer=ALICE.public).start(0.0)
    assert refused(alice, init) == "handshake_unexpected"
    [response] = twin.receive(init, 0.0)
    assert refused(bob, response) == "handshake_unexpected"


def remac(datagram: bytes, key: bytes) -> bytes:
    return datagram[:-MAC_SIZE] + mac1(key, datagram[:-MAC_SIZE])


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (0, 0x80, "handshake_unexpected"),
        (0, HANDSHAKE_RESPONSE, "handshake_unexpected"),
        (1, 1, "handshake_malformed"),
        (2, 2, "handshake_malformed"),
        (3, 2, "handshake_version"),
        (7, 1, "handshake_forged"),
        (15, 1, "handshake_forged"),
    ],
)
def test_every_field_of_the_header_counts(offset: int, value: int, reason: str) -> None:
    alice, bob = pair()
    init = bytearray(alice.start(0.0)[0])
    init[offset] = value
    assert refused(bob, remac(bytes(init), TO_BOB)) == reason


def test_index_of_the_responder_is_authentic() -> None:
    alice, bob = pair()
    response = bytearray(bob.receive(alice.start(0.0)[0], 0.0)[0])
    response[15] ^= 1
    assert refused(alice, remac(bytes(response), TO_ALICE)) == "handshake_malformed"


def test_every_truncation_is_refused() -> None:
    alice, bob = pair()
    [init] = alice.start(0.0)
    for size in range(len(init)):
        assert refused(bob, init[:size]) in ("handshake_truncated", "handshake_stranger")
        if size >= HEADER_SIZE + MAC_SIZE:
            assert refused(bob, remac(init[:size], TO_BOB))
    [response] = bob.receive(init, 0.0)
    for size in range(len(response)):
        assert refused(alice, response[:size]) in ("handshake_truncated", "handshake_stranger")
        if size >= HEADER_SIZE + MAC_SIZE:
            assert refused(alice, remac(response[:size], TO_ALICE))
    assert refused(bob, bytes(MAX_HANDSHAKE + 1)) == "handshake_oversized"


@given(bit=st.integers(0), of_response=st.booleans(), insider=st.booleans())
def test_every_flipped_bit_is_refused(bit: int, of_response: bool, insider: bool) -> None:
    alice, bob = pair()
    [datagram] = alice.start(0.0)
    receiver = bob
    if of_response:
        [datagram] = bob.receive(datagram, 0.0)
        receiver = alice
    flipped = bytearray(datagram)
    bit %= 8 * len(flipped)
    flipped[bit // 8] ^= 1 << bit % 8
    if insider and bit < 8 * (len(flipped) - MAC_SIZE):
        flipped = bytearray(remac(bytes(flipped), TO_ALICE if of_response else TO_BOB))
    assert refused(receiver, bytes(flipped))


@given(garbage=st.binary(max_size=2 * MAX_HANDSHAKE), kind=st.integers(0, 255), mac=st.booleans())
def test_garbage_is_refused(garbage: bytes, kind: int, mac: bool) -> None:
    alice, bob = pair()
    alice.start(0.0)
    for each, key in ((alice, TO_ALICE), (bob, TO_BOB)):
        datagram = bytes([kind, 0, 1, 1]) + garbage
        if mac:
            datagram += mac1(key, datagram)
        assert refused(each, datagram)


def test_opened_with_a_key_that_is_gone_is_harmless() -> None:
    alice, bob = pair()
    bob.receive(alice.start(0.0)[0], 0.0)
    key = bob.opening[2000]
    bob.tick(REJECT_AFTER)
    bob.opened(key, REJECT_AFTER)
    assert bob.state is State.CLOSED


# --- a network that does what networks do


@dataclass(frozen=True)
class Fate:
    """What happens to one datagram: when its copies arrive, in seconds after it was sent."""

    delays: tuple[float, ...]


def fates(seed: int, loss: float, twice: float) -> Callable[[], Fate]:
    rng = random.Random(seed)

    def fate() -> Fate:
        if rng.random() < loss:
            return Fate(())
        copies = 2 if rng.random() < twice else 1
        return Fate(tuple(rng.choice((0.05, rng.uniform(0, MAX_DELAY))) for _ in range(copies)))

    return fate


MAX_DELAY = 3.0


class World:
    """Alice and Bob, both sending a record now and then, and everything under way between them."""

    def __init__(self, fate: Callable[[], Fate]) -> None:
        indexes = itertools.count(1)
        self.alice = session(True, indexes)
        self.bob = session(False, indexes)
        self.fate = fate
        self.now = 0.0
        self.queue: list[tuple[float, int, Callable[[], None]]] = []
        self.order = itertools.count()
        self.refusals: set[str] = set()

    def at(self, time: float, action: Callable[[], None]) -> None:
        heapq.heappush(self.queue, (time, next(self.order), action))

    def send(self, receiver: Session, datagrams: list[bytes]) -> None:
        for datagram in datagrams:
            for delay in self.fate().delays:
                self.at(self.now + delay, lambda d=datagram: self.arrive(receiver, d))  # type: ignore[misc]

    def arrive(self, receiver: Session, datagram: bytes) -> None:
        sender = self.bob if receiver is self.alice else self.alice
        was_established = receiver.established
        try:
            self.send(sender, receiver.receive(datagram, self.now))
        except HandshakeFailed as failure:
            self.refusals.add(failure.reason)
        if receiver is self.alice and (not was_established or receiver.opening):
            self.record(self.alice)

    def record(self, sender: Session) -> None:
        """Send a record, as a link does at once when it has a new key."""
        if sender.sealing is None:
            return
        receiver = self.bob if sender is self.alice else self.alice
        born, record = sender.sealing.born, seal(sender)
        for delay in self.fate().delays[:1]:
            self.at(self.now + delay, lambda: self.take(receiver, record, born))

    def take(self, receiver: Session, record: Record, born: float) -> None:
        if self.now < born + REJECT_AFTER - 2 * MAX_DELAY:
            assert record[0] in receiver.opening, (self.now, born)
        if record[0] in receiver.opening:
            unseal(receiver, record, self.now)

    def run(self, until: float) -> None:
        while True:
            due = min(self.alice.deadline, self.bob.deadline)
            if self.queue and self.queue[0][0] <= due:
                time, _, action = self.queue[0]
                if time > until:
                    break
                heapq.heappop(self.queue)
                self.now = max(self.now, time)
                action()
                continue
            if due > until:
                break
            self.now = max(self.now, due)
            before = due
            self.send(self.bob, self.alice.tick(self.now))
            self.send(self.alice, self.bob.tick(self.now))
            assert min(self.alice.deadline, self.bob.deadline) > before
        self.now = until

    def agree(self) -> None:
        """Both can seal now, and each opens what the other seals."""
        for sender, receiver in ((self.alice, self.bob), (self.bob, self.alice)):
            unseal(receiver, seal(sender), self.now)


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0),
    loss=st.floats(0, 0.9),
    twice=st.floats(0, 1),
    starts=st.lists(st.floats(0, 60), max_size=12),
    chatter=st.floats(0.3, 5.0),
)
def test_converges_and_loses_nothing(
    seed: int, loss: float, twice: float, starts: list[float], chatter: float
) -> None:
    world = World(fates(seed, loss, twice))
    world.send(world.bob, world.alice.start(0.0))
    for time in starts:
        world.at(time, lambda: world.send(world.bob, world.alice.start(world.now)))
    for step in range(int(60 / chatter)):
        for each in (world.alice, world.bob):
            world.at(step * chatter, lambda each=each: world.record(each))  # type: ignore[misc]
    world.run(60.0)
    # The network heals: a few seconds later all is well.
    world.fate = lambda: Fate((0.05,))
    world.run(60.0 + INIT_LIFETIME)
    assert world.alice.established
    for step in range(10):
        world.at(world.now + step, lambda: world.record(world.alice))
    world.run(world.now + 10)
    world.agree()
    assert world.refusals <= {"handshake_unexpected", "handshake_replayed"}


@pytest.mark.parametrize("round_trip", [0.001, 0.1, 0.9, 1.4, 4.0])
def test_one_init_suffices_on_any_round_trip(round_trip: float) -> None:
    world = World(lambda: Fate((round_trip / 2,)))
    world.send(world.bob, world.alice.start(0.0))
    world.run(round_trip * 1.01)
    assert world.alice.established
    world.run(round_trip * 1.6)
    assert world.bob.established
    assert len(world.bob.opening) == 1


def test_idle_hours_cost_little_and_never_lack_a_key() -> None:
    """3 hours with a probe every 3 s: always a key, never more than needed."""
    world = World(lambda: Fate((0.02,)))
    world.send(world.bob, world.alice.start(0.0))
    world.run(1.0)
    for second in range(1, 3 * 3600, 3):
        world.run(float(second))
        assert world.alice.established
        world.record(world.alice)
        world.run(second + 0.5)
        world.record(world.bob)
        assert world.bob.established
        assert len(world.alice.opening) <= 2
    handshakes = world.alice._count
    assert handshakes == math.ceil(3 * 3600 / REKEY_AFTER)
