"""A simulated device behind a socket: its queue stays short, and it never runs dry for that."""

import pytest

from tincan.link.backlog import FLOOR, TARGET, WINDOW, Backlog

RECORD = 64 << 10
STEP = 0.001


def offer(rate: float, offered: float, seconds: float) -> tuple[float, list[float]]:
    """Offer ``offered`` bytes/s to a device that sends ``rate`` bytes/s; return what it sent of
    what it could have, and how many seconds each millisecond's queue was worth."""
    backlog = Backlog(0.0)
    queue = served = wanted = 0.0
    sent = 0
    delays = []
    for step in range(int(seconds / STEP)):
        wanted += offered * STEP
        while wanted >= RECORD:
            wanted -= RECORD
            if backlog.has_room(sent, int(queue), step * STEP):
                queue += RECORD
                sent += RECORD
        sending = min(queue, rate * STEP)
        queue -= sending
        served += sending
        delays.append(queue / rate)
    return served / (rate * seconds), delays


@pytest.mark.parametrize("rate", [1.25e6, 12.5e6, 125e6])
def test_a_queue_that_stands_is_cut(rate: float) -> None:
    served, delays = offer(rate, 3 * rate, 3)
    assert served > 0.95
    settled = delays[1500:]
    assert max(settled) < max(2 * TARGET, (FLOOR + 3 * RECORD) / rate)


def test_who_is_slower_than_the_device_is_never_refused() -> None:
    backlog = Backlog(0.0)
    for step in range(1000):
        assert backlog.has_room(step * RECORD, RECORD, step * 0.01)


def test_a_burst_passes() -> None:
    """16 MiB at once for a device of 10 Gbit/s: gone within 14 ms."""
    backlog = Backlog(0.0)
    now, queue = 1.0, 0
    assert backlog.has_room(0, queue, now)
    for _ in range(256):
        queue += RECORD
        now += WINDOW / 600
        assert backlog.has_room(queue, queue, now)
