"""For all tests: root, labs, and that nothing is left behind."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from lab import Lab
from lab.topology import processes

HERE = Path(__file__).parent
# Tests in these directories make namespaces and bridges.
KERNEL = {HERE / "netns", HERE / "lxc"}
LOG_TAIL = 6000


def pytest_configure(config: pytest.Config) -> None:
    """Register our markers."""
    config.addinivalue_line("markers", "root: needs root, and is skipped without")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without root, skip what needs it, and say so."""
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(reason="needs root: run `sudo tests/run`")
    for item in items:
        if not KERNEL.isdisjoint(item.path.parents) or item.get_closest_marker("root"):
            item.add_marker(skip)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """When a test with a lab fails, show the end of what the lab's processes have written."""
    report = yield
    lab = getattr(item, "funcargs", {}).get("lab")
    if report.failed and report.when != "teardown" and isinstance(lab, Lab):
        for name, text in lab.output().items():
            report.sections.append((name, text[-LOG_TAIL:]))
    return report


@pytest.fixture
def lab() -> Iterator[Lab]:
    """An empty lab, gone at the end."""
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Labs of test runs that were killed are removed first; at the end none of ours is left."""
    if os.geteuid():
        yield
        return
    Lab.reap()
    others = set(Lab.names())
    yield
    ours = f"lab{os.getpid()}-"
    left = {name: processes(name) for name in set(Lab.names()) - others if name.startswith(ours)}
    assert not left, f"labs left behind, with their processes: {left}"
