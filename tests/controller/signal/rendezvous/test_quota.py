"""The limits of one address: buckets and admission."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.node.rates import Buckets
from controller.signal.rendezvous.quota import Admission, Gate, Limits, source_of


@pytest.mark.parametrize(
    ("host", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("nonsense", "nonsense"),
    ],
)
def test_source(host: str, source: str) -> None:
    assert source_of(host) == source


def test_bucket_refills_to_its_burst() -> None:
    buckets = Buckets[str](rate=2, burst=3, limit=4096)
    assert [buckets.take("a", 0.0) for _ in range(4)] == [True, True, True, False]
    assert buckets.take("b", 0.0)
    assert [buckets.take("a", 0.5), buckets.take("a", 0.5)] == [True, False]
    assert [buckets.take("a", 100.0) for _ in range(4)] == [True, True, True, False]


def test_debt_is_paid_in_time() -> None:
    buckets = Buckets[str](rate=10, burst=5, limit=4096)
    assert buckets.charge("a", 5, 0.0) == 0.0
    assert buckets.charge("a", 20, 0.0) == 2.0
    assert buckets.charge("a", 0, 1.0) == 1.0
    assert buckets.charge("a", 0, 2.0) == 0.0


@given(st.lists(st.tuples(st.text(max_size=3), st.floats(0, 1e6))))
def test_table_is_bounded(uses: list[tuple[str, float]]) -> None:
    buckets = Buckets[str](rate=1, burst=1, limit=4)
    for source, now in uses:
        buckets.take(source, now)
        assert len(buckets) <= 4


def test_gate_by_address_and_in_all() -> None:
    gate = Gate(Limits(connections=5, connections_per_address=2))
    assert [gate.enter("a", 0.0) for _ in range(5)] == [
        Admission.WELCOME,
        Admission.WELCOME,
        Admission.REFUSE,
        Admission.REFUSE,
        Admission.DROP,
    ]
    assert gate.enter("b", 0.0) is Admission.WELCOME
    assert gate.enter("c", 0.0) is Admission.DROP
    assert gate.connections == 5
    for _ in range(4):
        gate.leave("a")
    gate.leave("b")
    assert gate.connections == 0
    assert gate.enter("a", 0.0) is Admission.WELCOME


def test_gate_limits_how_often() -> None:
    gate = Gate(Limits(connects_per_second=1, connects_burst=2))
    seen = []
    for now in (0.0, 0.0, 0.0, 1.0):
        seen.append(gate.enter("a", now))
        gate.leave("a")
    assert seen == [Admission.WELCOME, Admission.WELCOME, Admission.REFUSE, Admission.WELCOME]
