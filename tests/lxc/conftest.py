"""Real LXC containers: the tests are skipped where LXC is not installed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip our tests if there is no LXC."""
    if shutil.which("lxc-start", path="/usr/bin:/usr/sbin:/bin"):
        return
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="LXC is not installed"))
