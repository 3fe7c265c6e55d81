"""A loud sender takes nothing from a quiet one, and invented ones take nothing from known ones."""

from controller.host.capture_police import MAX_KNOWN, MAX_NEWCOMERS, OVER_RATE_AFTER, Police


def mac(number: int) -> bytes:
    return number.to_bytes(6, "big")


def police() -> Police:
    return Police(rate=50, burst=200, total=1000, total_burst=1000)


def test_a_sender_gets_its_burst_and_then_its_rate() -> None:
    subject = police()
    first_second = sum(subject.admit(mac(1), 100.0 + i / 10000) for i in range(10000))
    second_second = sum(subject.admit(mac(1), 101.0 + i / 10000) for i in range(10000))
    assert 200 <= first_second <= 251
    assert 49 <= second_second <= 51


def test_a_loud_sender_takes_nothing_from_a_quiet_one() -> None:
    subject = police()
    heard = 0
    for i in range(100_000):
        now = 100.0 + i / 100_000
        subject.admit(mac(1), now)
        if i % 10_000 == 0:
            heard += subject.admit(mac(2), now)
    assert heard == 10
    assert subject.is_over_rate(mac(1))
    assert not subject.is_over_rate(mac(2))


def test_a_loud_sender_is_heard_again_when_it_calms_down() -> None:
    subject = police()
    for _ in range(200 + OVER_RATE_AFTER + 2):
        subject.admit(mac(1), 100.0)
    assert subject.is_over_rate(mac(1))
    assert subject.admit(mac(1), 101.1)
    assert not subject.is_over_rate(mac(1))


def test_ten_thousand_invented_senders_in_a_second_leave_the_known_alone() -> None:
    subject = police()
    for second in range(2):
        assert subject.admit(mac(1), 90.0 + second)
    admitted = heard = 0
    for i in range(10_000):
        now = 100.0 + i / 10_000
        admitted += subject.admit(mac(1000 + i), now)
        if i % 1000 == 0:
            heard += subject.admit(mac(1), now)
    assert heard == 10
    assert admitted <= 100 + 250 + 1


def test_the_longest_known_are_listed_without_those_over_their_rate() -> None:
    subject = police()
    for number in range(10):
        for _ in range(2):
            subject.admit(mac(number), 100.0 + number)
    for _ in range(200 + OVER_RATE_AFTER + 1):
        subject.admit(mac(0), 120.0)
    assert subject.longest_known(3) == [mac(1), mac(2), mac(3)]


def test_the_tables_are_bounded() -> None:
    subject = Police(rate=1e6, burst=1e6, total=4e6, total_burst=4e6)
    for number in range(3 * MAX_KNOWN):
        subject.admit(mac(number), 100.0)
        subject.admit(mac(number), 100.0)
    for number in range(3 * MAX_NEWCOMERS):
        subject.admit(mac(1 << 40 | number), 100.0)
    assert len(subject._known) == MAX_KNOWN
    assert len(subject._newcomers) == MAX_NEWCOMERS


def test_a_router_that_asks_for_a_thousand_neighbours_is_not_loud() -> None:
    subject = Police(rate=100, burst=500, total=1000, total_burst=1000)
    assert sum(subject.admit(mac(1), 100.0 + i / 100_000) for i in range(1000)) >= 500
    assert not subject.is_over_rate(mac(1))
