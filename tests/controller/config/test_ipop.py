"""IPOP's keys and levels."""

from controller.config.ipop import IPOP_KEYS, IPOP_LEVELS
from controller.config.load import KEYS, LEVELS


def test_keys_are_written_in_lower_case_and_are_none_of_ours() -> None:
    """``load`` looks a key up in lower case."""
    assert all(key == key.lower() for key in IPOP_KEYS)
    assert not IPOP_KEYS.keys() & KEYS.keys()


def test_levels_are_ours_from_quiet_to_verbose() -> None:
    assert len(IPOP_LEVELS) == 4
    assert [LEVELS.index(level) for level in IPOP_LEVELS] == [0, 1, 3, 4]
