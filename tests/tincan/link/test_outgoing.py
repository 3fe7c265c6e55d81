"""What a link sees to before it sends: the device's queue, losses, and that its size is in use."""

import time

import pytest

from lab.bench.ends import End, frame
from tincan.link.outgoing import LOOK_BYTES, LOOK_INTERVAL_S
from tincan.path.stream import Stream


@pytest.fixture
def looks(ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with every look at the queue before the device, which says that it is empty."""
    seen: list[int] = []

    def unsent() -> int:
        seen.append(0)
        return 0

    monkeypatch.setattr(ends[0].sock, "unsent", unsent)
    return seen


def send(one: End, *sizes: int, now: float) -> None:
    one.wake(*map(frame, sizes), now=now)


def test_a_queue_that_does_not_stand_is_seldom_looked_at(
    ends: tuple[End, End], looks: list[int]
) -> None:
    one, _ = ends
    begun = one.link.outgoing.tx_bytes
    for number in range(200):
        send(one, 65226, now=1.0 + number * LOOK_INTERVAL_S / 100)
    assert 2 <= len(looks) <= 4 + (one.link.outgoing.tx_bytes - begun) // LOOK_BYTES


def test_small_frames_do_not_look_in_place_of_large_ones(
    ends: tuple[End, End], looks: list[int]
) -> None:
    """One goes alone after a pause; the large one of that wake-up is looked after all the same."""
    one, _ = ends
    for number in range(10):
        send(one, 66, 65226, now=1.0 + number)
    assert len(looks) == 10


def test_every_large_record_looks_while_a_queue_stands(
    ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = ends
    monkeypatch.setattr(one.sock, "unsent", lambda: 8 << 20)
    begun = time.monotonic()
    for number in range(100):
        send(one, 65226, now=begun + number * LOOK_INTERVAL_S)
    assert one.counters["frames_dropped.device_backlog"] >= 40


@pytest.mark.parametrize("stream", [False, True], ids=["by socket", "by stream"])
def test_path_mtu_discovery_hears_of_traffic(ends: tuple[End, End], stream: bool) -> None:
    one, _ = ends
    sent: list[bytes] = []
    if stream:
        one.go_by(Stream(sent.append, one.sock.address))
    before = one.link.outgoing._traffic_due
    send(one, 9000, now=time.monotonic())
    assert one.link.outgoing._traffic_due > before
    assert bool(sent) is stream


def test_a_lossy_path_has_parities_with_large_records_only(ends: tuple[End, End]) -> None:
    one, _ = ends
    one.link.outgoing.loss.share, one.link.outgoing.loss._at = 0.01, 1.0
    send(one, 66, now=1.0)
    assert (one.link.outgoing.tx_records, one.link.outgoing.tx_datagrams) == (1, 1)
    send(one, 65226, now=1.0)  # not for the kernel to segment, so it stays whole
    assert (one.link.outgoing.tx_records, one.link.outgoing.tx_datagrams) == (2, 1 + 45 + 1)


def test_a_run_that_the_kernel_refuses_counts_with_all_its_records(ends: tuple[End, End]) -> None:
    one, _ = ends
    one.link.outgoing.loss.share, one.link.outgoing.loss._at = 0.01, 1.0
    one.close()
    outgoing, key = one.link.outgoing, one.session.sealing
    assert key is not None
    assert outgoing.carrier is not None
    for number in range(12):
        one.link.record.append(b"")
        one.link.record.seal(key, outgoing.body, None)
        assert one.link.record.records == number + 1
    assert not outgoing._send_sealed(outgoing.carrier, 1.0)
    assert one.counters["records_dropped.send_error"] == 12
    assert not one.link.record.records
