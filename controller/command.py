"""Arguments, exit statuses and the log of the commands ``controller`` and ``rendezvous``."""

import argparse
import logging
import os
import signal
import sys
from typing import Final, NoReturn

from controller.errors import one_line

REFUSED: Final = 1
"""Exit status: the system or the controller refused."""
WRONG: Final = 2
"""Exit status: the command line or the configuration is wrong."""
INTERRUPTED: Final = 128 + signal.SIGINT
"""Exit status: Ctrl-C, as a shell would report it."""


class Parser(argparse.ArgumentParser):
    """An argument parser that complains in one line on stderr."""

    def error(self, message: str) -> NoReturn:
        """Print ``message`` as one line and exit with status WRONG."""
        print(one_line(f"{self.prog}: {message}; see {self.prog} --help"), file=sys.stderr)
        sys.exit(WRONG)


class Format(logging.Formatter):
    """A log format of one line for each record, with control characters escaped.

    Names in a record may come from other nodes. A traceback follows on lines of its own.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line for ``record``."""
        record.message = one_line(record.message)
        return super().formatMessage(record)


def log_to_stderr(level: str) -> None:
    """Send the log of this process to stderr, with the time unless the journal adds one."""
    stamp = "" if "JOURNAL_STREAM" in os.environ else "%(asctime)s "
    handler = logging.StreamHandler()
    handler.setFormatter(Format(f"{stamp}%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for verbose in ("pyroute2", "websockets"):  # at DEBUG they log every message
        logging.getLogger(verbose).setLevel(max(logging.INFO, logging.getLogger().level))
