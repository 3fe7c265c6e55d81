"""The delays between attempts to join."""

from controller.signal.websocket.backoff import (
    JITTER,
    QUICK_DELAY_S,
    QUICK_TRIES,
    TROUBLE_CAP_S,
    UNWELCOME_CAP_S,
    UNWELCOME_FIRST_S,
    Backoff,
    Failure,
)


def test_backoff_is_quick_at_first_then_slow() -> None:
    backoff = Backoff(uniform=lambda low, high: 1.0)
    delays = [backoff.failed(Failure.TROUBLE) for _ in range(QUICK_TRIES + 12)]
    assert delays[:QUICK_TRIES] == [QUICK_DELAY_S] * QUICK_TRIES
    assert delays == sorted(delays)
    assert delays[-1] == TROUBLE_CAP_S
    # Everything started together is to be up within 2 s: one more try costs little of that.
    assert QUICK_DELAY_S * (1 + JITTER) < 0.5
    assert QUICK_TRIES * QUICK_DELAY_S > 2
    backoff.succeeded()
    assert backoff.failed(Failure.TROUBLE) == QUICK_DELAY_S


def test_backoff_after_a_refusal_is_slow_from_the_start() -> None:
    backoff = Backoff(uniform=lambda low, high: 1.0)
    delays = [backoff.failed(Failure.UNWELCOME) for _ in range(100)]
    assert delays[0] == UNWELCOME_FIRST_S
    assert delays[-1] == UNWELCOME_CAP_S
    assert backoff.failed(Failure.REFUSED) < backoff.failed(Failure.REFUSED) <= TROUBLE_CAP_S


def test_backoff_has_jitter() -> None:
    delays = {Backoff().failed(Failure.TROUBLE) for _ in range(20)}
    assert len(delays) > 1
    assert all(abs(delay / QUICK_DELAY_S - 1) <= JITTER + 1e-9 for delay in delays)
