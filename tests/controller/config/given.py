"""A smallest configuration, and the form that every refusal has."""

from pathlib import Path
from typing import Any

import pytest

from controller.config.load import check
from controller.config.settings import Config
from controller.errors import ConfigError

FILE = Path("switch.json")
MINIMAL: dict[str, Any] = {
    "network": "lab",
    "secret": "correct horse battery",
    "signal": "ws://rendezvous.example:8765",
}


def repr_start(value: object) -> str:
    return repr(value)[:40]


def config(**more: Any) -> Config:
    return check({**MINIMAL, **more}, FILE)


def refusal(value: object) -> str:
    with pytest.raises(ConfigError) as caught:
        check(value, FILE)
    return one_line_of(caught.value)


def one_line_of(error: ConfigError) -> str:
    """Check the form that every refusal has, and return its text."""
    text = str(error)
    assert text.isprintable(), text  # so it is one line, and disturbs no terminal
    assert text == text.strip()
    assert error.path
    assert error.problem
    assert error.cure
    assert text.count("; ") >= 1
    return text
