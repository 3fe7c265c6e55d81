"""The pace at which a peer is sent routes, on a model of the Go program's reader."""

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.routes.pacing import BURST_BYTES, RATE, Pacer

BUFFER_BYTES = 65535
"""What the Go program reads at once; this much or more is the end."""


def test_a_burst_and_then_the_rate() -> None:
    pacer = Pacer()
    sent = 0
    now = 1.0
    while now < 3.0:
        room = pacer.room(now, 0, 65536)
        pacer.sent(room)
        sent += room
        now += pacer.wait_s if not room else 0.0
    assert 0.9 * 2 * RATE < sent <= 2 * RATE + 2 * BURST_BYTES


def test_a_few_messages_need_no_look() -> None:
    pacer = Pacer()
    assert pacer.room(0.0, 0, 65536) == BURST_BYTES
    before = pacer.blind
    pacer.sent(4)
    assert 0 < pacer.blind < before


def run(reads: list[tuple[float, bool]], step: int, seconds: float) -> tuple[int, int]:
    """Return what a peer has read after a time, and the most that has waited there.

    It runs and stops as ``reads`` says. Its window is what is free of 64 KiB, in steps; it tells
    of it only with an acknowledgement, and with a message every second while it runs.
    """
    pacer = Pacer()
    now, waiting, read, most = 0.0, 0, 0, 0
    window = BUFFER_BYTES
    told = 0.0
    plan = list(reads)
    until, runs = plan.pop(0)
    while now < seconds:
        if now >= until and plan:
            more, runs = plan.pop(0)
            until = now + more
        elif now >= until:
            runs = True
        if runs:
            read += waiting
            waiting = 0
            if now - told > 1.0:
                told = now
                pacer.heard()
                window = BUFFER_BYTES
        room = pacer.blind or pacer.room(now, 0, window)
        if room:
            pacer.sent(room)
            waiting += room
            most = max(most, waiting)
            window = (BUFFER_BYTES - waiting) // step * step
        now += 0.002 if room else max(pacer.wait_s, 0.002)
    return read + waiting, most


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.01, 3.0), st.booleans()), min_size=1, max_size=8),
    st.sampled_from([1, 128, 1024]),
)
def test_a_stopped_reader_never_has_too_much(reads: list[tuple[float, bool]], step: int) -> None:
    sent, most = run(reads, step, 40.0)
    assert most < BUFFER_BYTES
    assert sent > RATE  # and it goes on when the reader does


def test_one_that_never_reads_gets_less_than_it_could_take() -> None:
    sent, most = run([(1000.0, False)], 1024, 900.0)
    assert sent == most < BUFFER_BYTES


def test_a_window_that_is_smaller_for_good_is_got_used_to() -> None:
    pacer = Pacer()
    assert pacer.room(0.0, 0, 200_000)
    now, sent = 0.0, 0
    while now < 5.0:
        room = pacer.room(now, 0, 60_000)
        pacer.sent(room)
        sent += room
        now += 0.001 if room else pacer.wait_s
    assert sent > RATE
