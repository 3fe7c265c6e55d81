"""For all tests: what they may need of the machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# Tests in these directories make namespaces and bridges.
KERNEL = {HERE / "netns", HERE / "lxc"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without root, skip what needs it, and say so."""
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(reason="needs root: run `sudo tests/run`")
    for item in items:
        if not KERNEL.isdisjoint(item.path.parents) or item.get_closest_marker("root"):
            item.add_marker(skip)


def pytest_configure(config: pytest.Config) -> None:
    """Register our markers."""
    config.addinivalue_line("markers", "root: needs root, and is skipped without")


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Labs of test runs that were killed are removed first; at the end none of ours is left."""
    if os.geteuid():
        yield
        return
    from lab.topology import Lab, processes

    Lab.reap()
    others = set(Lab.names())
    yield
    left = {name: processes(name) for name in set(Lab.names()) - others}
    assert not left, f"labs left behind, with their processes: {left}"
