"""A link against a peer that misbehaves, a path that loses, and its own removal."""

from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

from tincan.crypto.primitives import Aead
from tincan.device.tap import Offloads
from tincan.link.link import CLOSE_BURST, ICC_BURST, MAX_ICC, Link
from tincan.link.listener import LinkState
from tincan.path.attempt import Negotiation
from tincan.path.path import Path
from tincan.pump.ingress import MAX_CONTROL, Ingress, Source
from tincan.record.keys import OpeningKey, SealingKey
from tincan.record.layout import ECHO, HEADER_SIZE, SIZE, TAG_SIZE, ZERO_NONCE, Item, item
from tincan.switching.policy import Policy

KEY = bytes(32)
THERE = ("192.0.2.1", 4000)


class FakeSession:
    """Established for good."""

    deadline = float("inf")

    def __init__(self) -> None:
        self.sealing: SealingKey | None = SealingKey(Aead(KEY), 7, 0.0)
        self.opening: dict[int, OpeningKey] = {}

    def tick(self, now: float) -> list[bytes]:
        return []


class Heard:
    """What the daemon hears."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *_: self.events.append(name)


class FakeSource:
    def __init__(self, negotiation: Negotiation) -> None:
        self.negotiation = negotiation


class Setting:
    """A link whose path is a stream relay that keeps what it is given."""

    def __init__(self, *, elected: bool = True, running: bool = True) -> None:
        self.now = 100.0
        self.heard = Heard()
        self.counters: Counter[str] = Counter()
        self.sent: list[bytes] = []
        self.link = Link(
            "ab" * 32,
            elected=elected,
            events=cast(Any, self.heard),
            counters=self.counters,
            attached=lambda: True,
            refuse=lambda host: host.startswith("10.0.3."),
            mtu_probing=False,
            clock=lambda: self.now,
        )
        self.link.session = cast(Any, FakeSession())
        self.negotiation = Negotiation(1, self.link, cast(Any, None), cast(Any, None))
        self.path = Path(None, THERE, 0x4000, "relay", "relay", THERE, self.sent.append)
        self.source = cast(Source, FakeSource(self.negotiation))
        self.link.begin(self.negotiation)
        if running:
            self.negotiation.path = self.path
            self.link._move(self.negotiation, self.now)

    def control(self, kind: int, payload: bytes) -> None:
        self.link.control(kind, payload, self.source, self.now)

    def items(self) -> list[bytes]:
        """What was sent, opened: each is one datagram here."""
        return [
            Aead(KEY).decrypt(ZERO_NONCE + each[8:HEADER_SIZE], each[HEADER_SIZE:], each[:16])
            for each in self.sent
        ]


async def test_items_of_any_length_raise_a_counter_only() -> None:
    setting = Setting()
    for kind in (*Item, 8, 15):
        for size in range(12):
            setting.control(kind, bytes(size))
    assert setting.counters["items_dropped.malformed"]
    assert all(len(each) >= TAG_SIZE for each in setting.sent)
    await setting.link.close()


async def test_a_peers_controller_cannot_flood_ours() -> None:
    setting = Setting()
    for _ in range(5000):
        setting.control(Item.ICC, SIZE.pack(1) + b"x")
    assert setting.heard.events.count("icc") == ICC_BURST
    assert setting.counters["icc_dropped.policed"] == 5000 - ICC_BURST
    setting.now += 10
    setting.control(Item.ICC, SIZE.pack(1) + bytes(MAX_ICC + 1))
    assert setting.heard.events.count("icc") == ICC_BURST
    assert setting.counters["icc_dropped.oversized"] == 1
    await setting.link.close()


async def test_a_peer_that_keeps_saying_goodbye_is_left_to_liveness() -> None:
    setting = Setting()
    key = cast(Any, type("Key", (), {"confirmed": True, "last_address": None}))
    for _ in range(50):
        setting.link.authenticated(key, setting.source, None, setting.now)
        setting.control(Item.CLOSE, b"")
    assert setting.heard.events.count("link_disconnected") == CLOSE_BURST
    assert setting.link.state is LinkState.CONNECTED
    await setting.link.close()


async def test_one_record_costs_few_answers() -> None:
    setting = Setting()
    policy: Policy[Link] = Policy(setting.counters, lambda *_: None)
    tap = cast(Any, type("Tap", (), {"write": len, "offloads": Offloads()}))
    ingress = Ingress(tap, policy, setting.counters)
    setting.sent.clear()
    body = item(Item.MTU_PROBE, SIZE.pack(1300)) * 1000
    ingress._items(setting.link, setting.source, memoryview(body), 0, len(body), setting.now)
    assert len(setting.sent) == MAX_CONTROL
    assert setting.counters["items_dropped.too_many"] == 1000 - MAX_CONTROL
    await setting.link.close()


async def test_a_new_path_is_probed_until_an_answer_comes() -> None:
    setting = Setting(running=False)

    class Agent:
        async def connect(self, _: object) -> Path:
            return setting.path

        async def close(self) -> None: ...

        def stop_consent(self) -> None: ...

    setting.negotiation.agent = cast(Any, Agent())
    setting.link.session.start = lambda now: []  # type: ignore[method-assign]
    await setting.link.connect(setting.negotiation, cast(Any, None))
    for step in range(4):
        assert len(setting.sent) == 1 + step, "one probe, and another each time"
        setting.now += 0.51
        setting.link.tick()
    setting.control(Item.PROBE_REPLY, ECHO.pack(0, 1, 0))
    assert setting.link.state is LinkState.CONNECTED
    await setting.link.close()


async def test_a_link_revived_by_a_frame_probes_again() -> None:
    setting = Setting()
    setting.link.tick()  # the first probe, never answered
    for _ in range(20):
        setting.now += 0.5
        setting.link.tick()
    assert not setting.link.up
    key = cast(Any, type("Key", (), {"confirmed": True, "last_address": None}))
    setting.link.authenticated(key, setting.source, None, setting.now)
    assert setting.link.state is LinkState.CONNECTED
    assert setting.link._armed <= setting.now  # else only the next rekey would wake it
    await setting.link.close()


async def test_a_path_does_not_roam_into_the_overlay() -> None:
    setting = Setting()
    sock = cast(Any, SimpleNamespace(address=("192.0.2.77", 9)))
    setting.negotiation.path = Path(sock, THERE, None, "host", "host", THERE)
    cast(Any, setting.source).sock = sock
    key = cast(Any, type("Key", (), {"confirmed": True, "last_address": None}))
    for host, port in (("192.0.2.9", 5000), ("10.0.3.7", 5000)):
        setting.link.authenticated(key, setting.source, (host, port), setting.now)
        assert setting.link.path is not None
        assert setting.link.path.address == ("192.0.2.9", 5000)
    assert setting.counters["paths_roamed.refused"] == 1
    setting.negotiation.path = setting.path
    await setting.link.close()


async def test_frames_for_a_link_that_is_gone_wake_nothing() -> None:
    setting = Setting()
    await setting.link.close()
    setting.link.hold(bytes(64), setting.now)
    assert setting.link._timer is None or setting.link._timer.cancelled()
    assert setting.counters["frames_dropped.link_removed"] == 1
