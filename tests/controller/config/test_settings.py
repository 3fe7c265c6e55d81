"""The settings: a key for each attribute, and secrets that are not shown."""

from dataclasses import fields

from controller.config.load import KEYS
from controller.config.settings import Config
from tests.controller.config.given import config


def test_every_key_ends_in_an_attribute() -> None:
    joined = {"secret_file", "ip4_mask"}
    assert set(KEYS) - joined <= {entry.name for entry in fields(Config)}


def test_secrets_are_not_shown() -> None:
    c = config(turn=[{"server": "t.example:3478", "user": "u", "pass": "hidden-pass"}])
    assert "correct horse" not in repr(c)
    assert "hidden-pass" not in repr(c)
