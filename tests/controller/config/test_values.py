"""Checks of single values, and the errors about them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.config import values
from controller.config.load import KEYS
from controller.config.values import Place, nearest
from controller.errors import ConfigError

PLACE = Place("f")
CHECKS = {
    "text": values.text,
    "boolean": values.boolean,
    "whole": values.whole(1, 9),
    "one_of": values.one_of("a", "b"),
    "list_of": values.list_of(values.mac, 2),
    "host": values.host,
    "signal_url": values.signal_url,
    "interface": values.interface,
    "network_name": values.network_name,
    "node_name": values.node_name,
    "directory": values.directory,
    "ip": values.ip,
    "ip4": values.ip4,
    "ip6": values.ip6,
    "prefix": values.prefix,
    "mac": values.mac,
}


def test_did_you_mean() -> None:
    assert nearest("signl", KEYS) == "signal"
    assert nearest("INF", ["INFO", "DEBUG"]) == "INFO"
    assert nearest("zzz", KEYS) is None


def test_places() -> None:
    place = PLACE / "turn" / 0 / "server"
    assert str(place.wrong("is empty", "give it a value")) == (
        "f: turn[0].server: is empty; give it a value"
    )
    assert str((PLACE / "").wrong("a", "b")) == 'f: "": a; b'


@pytest.mark.parametrize("name", CHECKS)
@given(value=st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just([1]))
def test_a_value_passes_or_is_refused_in_one_line(name: str, value: object) -> None:
    try:
        CHECKS[name](value, PLACE)
    except ConfigError as error:
        told = str(error)
    else:
        told = ""
    assert told.isprintable()


def test_what_is_respelled() -> None:
    assert values.mac("00-16-3E-01-02-03", PLACE) == "00:16:3e:01:02:03"
    assert values.host("FD00:0::5", PLACE) == values.ip("FD00:0::5", PLACE) == "fd00::5"
    assert str(values.ip6("fd00::5", PLACE)) == "fd00::5/64"
