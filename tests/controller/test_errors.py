"""The tree of errors: one line each, whatever is in it."""

from hypothesis import given
from hypothesis import strategies as st

from controller import errors

INPUT = (
    errors.MalformedFrame,
    errors.RpcError,
    errors.SignalError,
    errors.BrokenProtocol,
    errors.RouteRefused,
)


@given(st.text(), st.text(), st.text())
def test_fatal_errors_are_one_line(path: str, problem: str, cure: str) -> None:
    assert str(errors.ConfigError(path, problem, cure)).isprintable()
    assert str(errors.SystemRefusal(problem, cure)).isprintable()
    assert str(errors.RouteError(problem)).isprintable()


def test_where_what_and_what_instead() -> None:
    error = errors.ConfigError("f.json: tap", "is empty", "give it a value")
    assert str(error) == "f.json: tap: is empty; give it a value"
    assert (error.path, error.problem, error.cure) == ("f.json: tap", "is empty", "give it a value")
    assert str(errors.SystemRefusal("no")) == "no"
    assert str(errors.SystemRefusal("no", "try")) == "no; try"


def test_input_from_the_network_names_its_counter() -> None:
    for kind in INPUT:
        error = kind("too_short")
        assert isinstance(error, errors.NetworkInputError)
        assert error.reason == str(error) == "too_short"


def test_readable_text_is_left_alone() -> None:
    assert errors.one_line("Grüße, 世界") == "Grüße, 世界"
    assert errors.one_line("a\nb\x1b[2J\ud800") == "a\\nb\\x1b[2J\\ud800"
