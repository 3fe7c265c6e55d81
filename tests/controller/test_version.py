"""The version is one word, and that of the installed distribution."""

from importlib.metadata import version as installed

from controller.version import version


def test_is_the_distributions() -> None:
    assert version() == installed("switchmode")
