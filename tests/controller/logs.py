"""The log's set-up, put back after a test that replaces it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def log_restored() -> Iterator[None]:
    """Give the root logger back its level and its handlers at the end."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
