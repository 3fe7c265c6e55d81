"""Two ends of a link, joined by sockets on the loopback."""

from collections.abc import Iterator

import pytest

from lab.bench.ends import End, pair


@pytest.fixture
def ends() -> Iterator[tuple[End, End]]:
    one, two = pair(1500)
    yield one, two
    one.close()
    two.close()
