"""One peer's session: handshakes, and the keys that they leave.

::

    initiator                                         responder
      start                INIT  ->                     one more opening key, unconfirmed
      seals with the new   <-  RESPONSE
      key at once          RECORD ->                    first record under it: seals with it too

Both sides keep the earlier opening keys until they are too old, so a rekey loses nothing in
flight. The responder answers the same INIT with the same RESPONSE: the initiator repeats its INIT
as it is, and neither loss, duplication nor a round trip longer than the retry interval costs a
handshake.

A handshake datagram is the 16-byte header of record.layout, a Noise IKpsk2 message, and 16 bytes of
``mac1`` (session.admission)::

    INIT      receiver = initiator's new index, counter = 0
              payload = u64 stamp, capabilities
    RESPONSE  receiver = initiator's index, counter = responder's new index
              payload = u32 responder's new index, capabilities

Time is an argument, ``now``, in monotonic seconds; nothing here reads a clock.
"""

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tincan.crypto.noise import Handshake
from tincan.crypto.primitives import Aead, PrivateKey
from tincan.errors import HandshakeFailed
from tincan.record.keys import OpeningKey, Recipient, SealingKey
from tincan.record.layout import HANDSHAKE_INIT, HANDSHAKE_RESPONSE, HEADER, HEADER_SIZE, VERSION
from tincan.session.admission import MAC_SIZE, Admission, mac1, mac1_key
from tincan.session.table import INITIATOR, RESPONDER, Event, State

PATTERN: Final = "IKpsk2"
MAX_PAYLOAD: Final = 64
"""Bytes of capabilities."""
STAMP: Final = struct.Struct(">Q")
INDEX: Final = struct.Struct(">I")
_KEY_AND_TAG: Final = 32 + 16
MAX_HANDSHAKE: Final = HEADER_SIZE + 32 + _KEY_AND_TAG + STAMP.size + MAX_PAYLOAD + 16 + MAC_SIZE
"""Bytes of the longest INIT; a RESPONSE is shorter."""

REKEY_AFTER: Final = 120.0
"""Seconds after which the initiator makes a new key."""
REJECT_AFTER: Final = 180.0
"""Seconds; nothing is sealed or opened with a key of this age."""
REKEY_AFTER_RECORDS: Final = 1 << 32
REJECT_AFTER_RECORDS: Final = 1 << 34
RETRY: Final = (0.5, 1.0, 1.0, 1.0, 5.0)
"""Seconds between repetitions of an INIT; the last of them holds for all that follow."""
INIT_LIFETIME: Final = 20.0
"""Seconds after which an INIT without a RESPONSE is made anew."""
UNCONFIRMED: Final = 5.0
"""Seconds that a new key has to prove itself before another may be asked for."""
REPEAT_AFTER: Final = 0.2
"""Seconds; start() called sooner than this after an INIT sends no copy of it."""
OPENING_KEYS: Final = 4
"""Per session; a peer that asks for more loses the least needed one."""


@dataclass(frozen=True, slots=True)
class _Generation:
    """The keys of one handshake.

    ``number``: 0 for the first of a session, then counting. ``payload``: the peer's capabilities.
    ``stamp``: of the INIT.
    """

    number: int
    opening: OpeningKey
    sealing: SealingKey
    payload: bytes
    stamp: int


@dataclass(slots=True)
class _Init:
    """An INIT of ours that waits for its RESPONSE."""

    handshake: Handshake
    index: int
    datagram: bytes
    born: float
    sent: float = -math.inf
    """When it was sent last."""
    repeat_at: float = -math.inf
    tries: int = 0


@dataclass(frozen=True, slots=True)
class _Response:
    """The newest INIT that we answered, our answer, and the index of the key in it."""

    init: bytes
    datagram: bytes
    index: int


class Session:
    """The keys shared with one peer.

    After calling ``start``, ``receive`` or ``tick``, send the datagrams that they return; after
    calling any method, call ``tick`` at ``deadline`` (seconds, perhaps infinity).

    ``private`` and ``peer``: our key, and the only public key accepted. ``psk``: 32 bytes,
    ``network_id``: 16 bytes. ``payload``: at most MAX_PAYLOAD bytes of capabilities for the peer,
    whose own are ``peer_payload`` once established. ``new_index`` returns an unused 32-bit index
    that is not 0 (the rehearsal's). ``owner`` is handed on in every OpeningKey. ``on_keys`` is
    called whenever ``opening`` has changed. ``jitter`` returns numbers in [0, 1). ``wall`` returns
    the time that stamps handshakes, so that a recorded INIT cannot be replayed later; without it
    ``now`` stamps them, and an initiator that reboots is answered only by a responder whose
    session is new.

    ``sealing``: the key to seal with, None when there is none. ``opening``: by index, at most
    OPENING_KEYS.
    """

    def __init__(
        self,
        *,
        private: PrivateKey,
        peer: bytes,
        psk: bytes,
        network_id: bytes,
        initiator: bool,
        payload: bytes,
        new_index: Callable[[], int],
        owner: Recipient,
        on_keys: Callable[[], None] = lambda: None,
        jitter: Callable[[], float] = lambda: 0.0,
        wall: Callable[[], float] | None = None,
    ) -> None:
        if len(payload) > MAX_PAYLOAD:
            raise ValueError(f"at most {MAX_PAYLOAD} bytes of payload, not {len(payload)}")
        first, second = (private.public, peer) if initiator else (peer, private.public)
        self._prologue = b"switchmode" + bytes([VERSION]) + network_id + first + second
        self._mac1_key = mac1_key(psk, peer)
        self._admission = Admission(
            mac1_key(psk, private.public),
            HANDSHAKE_RESPONSE if initiator else HANDSHAKE_INIT,
            MAX_HANDSHAKE,
        )
        self._private = private
        self._peer = peer
        self._psk = psk
        self._initiator = initiator
        self._table = INITIATOR if initiator else RESPONDER
        self._payload = payload
        self._new_index = new_index
        self._owner = owner
        self._on_keys = on_keys
        self._jitter = jitter
        self._wall = wall

        self.state = State.CLOSED
        self.sealing: SealingKey | None = None
        self.opening: dict[int, OpeningKey] = {}
        self.peer_payload: bytes | None = None
        self.deadline = math.inf
        self._generations: list[_Generation] = []  # oldest first, the same keys as opening
        self._count = 0  # of generations ever made
        self._sealing_number = -1
        self._started = False
        self._init: _Init | None = None
        self._response: _Response | None = None
        self._stamp = -1  # initiator: of our last INIT; responder: of the newest confirmed one

    @property
    def established(self) -> bool:
        """Return whether records can be sealed."""
        return self.sealing is not None

    @property
    def pending_index(self) -> int | None:
        """Return our index in the INIT that waits: its RESPONSE carries it as receiver."""
        return self._init.index if self._init else None

    def start(self, now: float) -> list[bytes]:
        """Begin a handshake, or a new one beside the present keys; return datagrams to send.

        A responder returns none. A session that was started keeps itself alive by tick().
        """
        if not self._initiator:
            return []
        self._started = True
        if self._init is not None:
            return self._repeat(self._init, now) if now >= self._init.sent + REPEAT_AFTER else []
        if self._generations:
            newest = self._generations[-1].opening
            if not newest.confirmed and now < newest.born + UNCONFIRMED:
                return []  # the peer may not have switched to it yet: one step at a time
        return self._new_init(now)

    def receive(self, datagram: bytes, now: float) -> list[bytes]:
        """Take a handshake datagram; return replies to send back by the way it came.

        Raise HandshakeFailed for whatever is not acceptable; keys and state are then as before.
        """
        receiver, counter = self._admission.admit(datagram, now)
        if self._initiator:
            self._take_response(datagram, receiver, counter, now)
            return []
        return self._take_init(datagram, receiver, counter, now)

    def opened(self, key: OpeningKey, now: float) -> None:
        """Note that a record has authenticated under ``key``: needed until it is confirmed."""
        if key.confirmed or self.opening.get(key.index) is not key:
            return
        key.confirmed = True
        if not self._initiator:
            generation = next(each for each in self._generations if each.opening is key)
            if generation.number > self._sealing_number:
                # Only now: a replayed INIT must not be able to hold off the peer's next one.
                self._stamp = max(self._stamp, generation.stamp)
                self._seal_with(generation)
                self._move(Event.CONFIRMED)
        self._schedule()

    def tick(self, now: float) -> list[bytes]:
        """Repeat, renew and expire what is due; return datagrams to send."""
        self._expire(now)
        datagrams: list[bytes] = []
        if self._init is not None:
            if now >= self._init.born + INIT_LIFETIME:
                datagrams = self._new_init(now)
            elif now >= self._init.repeat_at:
                datagrams = self._repeat(self._init, now)
        elif self._started and self._rekey_is_due(now):
            datagrams = self._new_init(now)
        self._schedule()
        return datagrams

    # --- handshakes

    def _new_init(self, now: float) -> list[bytes]:
        seconds = now if self._wall is None else self._wall()
        self._stamp = max(int(seconds * 1e9), self._stamp + 1, 0)
        index = self._new_index()
        header = HEADER.pack(HANDSHAKE_INIT, 0, 1, VERSION, index, 0)
        handshake = self._handshake(header)
        message = handshake.write(STAMP.pack(self._stamp) + self._payload)
        self._init = _Init(handshake, index, self._with_mac1(header + message), now)
        self._move(Event.INIT_SENT)
        return self._repeat(self._init, now)

    def _repeat(self, init: _Init, now: float) -> list[bytes]:
        delay = RETRY[min(init.tries, len(RETRY) - 1)]
        init.tries += 1
        init.sent = now
        init.repeat_at = min(now + delay * (1 + 0.1 * self._jitter()), init.born + INIT_LIFETIME)
        self._schedule()
        return [init.datagram]

    def _take_init(self, init: bytes, receiver: int, counter: int, now: float) -> list[bytes]:
        if self._response is not None and self._response.init == init:
            if self._response.index not in self.opening:
                raise HandshakeFailed("handshake_replayed")
            return [self._response.datagram]
        handshake = self._handshake(init[:HEADER_SIZE])
        payload = handshake.read(init[HEADER_SIZE:-MAC_SIZE])
        if counter != 0 or not STAMP.size <= len(payload) <= STAMP.size + MAX_PAYLOAD:
            raise HandshakeFailed("handshake_malformed")
        (stamp,) = STAMP.unpack_from(payload)
        if stamp <= self._stamp:
            raise HandshakeFailed("handshake_replayed")
        index = self._new_index()
        header = HEADER.pack(HANDSHAKE_RESPONSE, 0, 1, VERSION, receiver, index)
        message = handshake.write(INDEX.pack(index) + self._payload)
        response = self._with_mac1(header + message)
        to_us, to_peer = handshake.split()
        self._add(
            OpeningKey(Aead(to_us), index, now, self._owner),
            SealingKey(Aead(to_peer), receiver, now),
            payload[STAMP.size :],
            stamp,
        )
        self._response = _Response(init, response, index)
        self._move(Event.INIT_RECEIVED)
        self._schedule()
        return [response]

    def _take_response(self, response: bytes, receiver: int, counter: int, now: float) -> None:
        init = self._init
        if init is None or receiver != init.index:
            raise HandshakeFailed("handshake_unexpected")
        handshake = init.handshake.fork()  # a forged answer must not spoil the true one
        payload = handshake.read(response[HEADER_SIZE:-MAC_SIZE])
        if not INDEX.size <= len(payload) <= INDEX.size + MAX_PAYLOAD:
            raise HandshakeFailed("handshake_malformed")
        (index,) = INDEX.unpack_from(payload)
        if index != counter:
            raise HandshakeFailed("handshake_malformed")
        to_peer, to_us = handshake.split()
        # Born with the INIT, so that we stop to seal before the responder refuses to open; the
        # opening key with the RESPONSE, so that we open what the responder may still seal.
        generation = self._add(
            OpeningKey(Aead(to_us), init.index, now, self._owner),
            SealingKey(Aead(to_peer), index, init.born),
            payload[INDEX.size :],
            self._stamp,
        )
        self._init = None
        self._seal_with(generation)
        self._move(Event.RESPONSE_RECEIVED)
        self._schedule()

    def _handshake(self, init_header: bytes) -> Handshake:
        return Handshake(
            PATTERN,
            initiator=self._initiator,
            prologue=self._prologue + init_header,
            static=self._private,
            remote_static=self._peer,
            psk=self._psk,
        )

    def _with_mac1(self, datagram: bytes) -> bytes:
        return datagram + mac1(self._mac1_key, datagram)

    # --- keys

    def _add(
        self, opening: OpeningKey, sealing: SealingKey, payload: bytes, stamp: int
    ) -> _Generation:
        if len(self._generations) >= OPENING_KEYS:
            self._drop(self._least_needed())
        generation = _Generation(self._count, opening, sealing, payload, stamp)
        self._count += 1
        self._generations.append(generation)
        self.opening[opening.index] = opening
        self._on_keys()
        return generation

    def _least_needed(self) -> _Generation:
        """Return the generation to give up for another one.

        Both sides only ever move on to newer keys, so what came before the newest confirmed one
        matters to stragglers at most; that one itself may be all that the peer has.
        """
        confirmed = [each for each in self._generations if each.opening.confirmed]
        unused = [each for each in self._generations if not each.opening.confirmed]
        return [*confirmed[:-1], *unused][0]

    def _drop(self, generation: _Generation) -> None:
        self._generations.remove(generation)
        del self.opening[generation.opening.index]

    def _seal_with(self, generation: _Generation) -> None:
        self.sealing = generation.sealing
        self._sealing_number = generation.number
        self.peer_payload = generation.payload

    def _expire(self, now: float) -> None:
        key = self.sealing
        if key and (now >= key.born + REJECT_AFTER or key.counter >= REJECT_AFTER_RECORDS):
            self.sealing = None
            self._move(Event.EXPIRED)
        old = [each for each in self._generations if now >= each.opening.born + REJECT_AFTER]
        for generation in old:
            self._drop(generation)
        if old:
            self._on_keys()
            if self.state is State.RESPONSE_SENT and not self._generations:
                self._move(Event.FORGOTTEN)
        if not self._initiator and self.state is State.CLOSED:
            self._stamp = -1  # nothing is left to disturb; the peer's clock may have been set back

    def _rekey_is_due(self, now: float) -> bool:
        key = self.sealing
        if key is None:
            return True
        used = max(key.counter, self._generations[-1].opening.window.top + 1)
        return now >= key.born + REKEY_AFTER or used >= REKEY_AFTER_RECORDS

    def _move(self, event: Event) -> None:
        self.state = self._table[self.state, event]

    def _schedule(self) -> None:
        times = [each.opening.born + REJECT_AFTER for each in self._generations]
        if self.sealing is not None:
            times.append(self.sealing.born + REJECT_AFTER)
            if self._started and self._init is None:
                times.append(self.sealing.born + REKEY_AFTER)
        if self._init is not None:
            times.append(self._init.repeat_at)
        self.deadline = min(times, default=math.inf)
