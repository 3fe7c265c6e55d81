"""The forwarding database against a plain model, and its bounds."""

from hypothesis import given
from hypothesis import strategies as st

from tincan.switching.table import AGE, LOCAL, MAX_LEARNED, Forwarding, Learned

X, Y = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")


def mac(number: int) -> bytes:
    return (0x020000000000 + number).to_bytes(6, "big")


def test_learns_moves_and_tells_what_happened() -> None:
    changes: list[None] = []
    table: Forwarding[str] = Forwarding(lambda: changes.append(None))
    assert table.lookup(X, 0) is None
    assert table.learn(X, 0, "a", 0.0) is Learned.NEW
    assert len(changes) == 1
    assert table.learn(X, 0, "a", 1.0) is Learned.KNOWN
    assert len(changes) == 1
    assert table.learn(X, 0, "b", 2.0) is Learned.MOVED
    assert len(changes) == 2
    entry = table.lookup(X, 0)
    assert entry is not None
    assert (entry.port, entry.seen) == ("b", 2.0)
    assert table.lookup(X, 7) is None  # a VLAN has a table of its own


def test_a_pin_outranks_what_is_learned_and_does_not_age() -> None:
    table: Forwarding[str] = Forwarding()
    table.learn(X, 0, "a", 0.0)
    assert table.pin(X, 0, "b", 0.0)
    assert table.learn(X, 0, "a", 1.0) is Learned.CLAIMED
    table.age(10 * AGE)
    entry = table.lookup(X, 0)
    assert entry is not None
    assert entry.port == "b"
    table.unpin(X, 0)
    assert table.lookup(X, 0) is None


def test_learned_entries_age_unless_the_hot_path_keeps_them_fresh() -> None:
    table: Forwarding[str] = Forwarding()
    table.learn(X, 0, "a", 0.0)
    table.learn(Y, 0, LOCAL, 0.0)
    entry = table.lookup(Y, 0)
    assert entry is not None
    entry.seen = AGE
    table.age(AGE + 1)
    assert table.lookup(X, 0) is None
    assert table.lookup(Y, 0) is entry


def test_a_peer_cannot_exhaust_the_table() -> None:
    table: Forwarding[str] = Forwarding()
    results = [table.learn(mac(i), 0, "flooder", 0.0) for i in range(MAX_LEARNED + 10)]
    assert results.count(Learned.NEW) == MAX_LEARNED
    assert results[-1] is Learned.FULL
    assert table.learn(Y, 3, "other", 0.0) is Learned.NEW
    table.forget("flooder")
    assert len(table) == 1
    assert table.learn(mac(1), 0, "flooder", 0.0) is Learned.NEW


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["learn", "pin", "unpin", "forget", "flush"]),
            st.integers(0, 5),
            st.sampled_from(["a", "b"]),
        ),
        max_size=60,
    )
)
def test_agrees_with_a_model(steps: list[tuple[str, int, str]]) -> None:
    table: Forwarding[str] = Forwarding()
    pins: dict[bytes, str] = {}
    learned: dict[bytes, str] = {}
    for verb, number, port in steps:
        address = mac(number)
        if verb == "learn":
            table.learn(address, 0, port, 0.0)
            if address not in pins:
                learned[address] = port
        elif verb == "pin":
            table.pin(address, 0, port, 0.0)
            pins[address] = port
            learned.pop(address, None)
        elif verb == "unpin":
            table.unpin(address, 0)
            pins.pop(address, None)
        elif verb == "forget":
            table.forget(port)
            learned = {a: p for a, p in learned.items() if p != port}
        else:
            table.flush_pins()
            pins.clear()
        assert {e.mac: e.port for e in table} == {**learned, **pins}
