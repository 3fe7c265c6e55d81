"""The ``tincan`` command: the process that carries the frames. The controller starts it.

Exit status: 0 done; 1 the system refused; 2 the command line is wrong. What is refused is said
in one line on stderr.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from tincan.errors import TincanError

REFUSED = 1
WRONG = 2
LEVELS = ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG")

log = logging.getLogger(__name__)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        line = " ".join(f"{self.prog}: {message}; see {self.prog} --help".splitlines())
        print(line, file=sys.stderr)
        sys.exit(WRONG)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = _Parser(
        prog="tincan",
        description="Carry the frames of one overlay, as the controller that starts it says.",
    )
    parser.add_argument(
        "--run-dir",
        metavar="DIR",
        type=Path,
        required=True,
        help="where the socket for the controller and the log are made; it must exist",
    )
    parser.add_argument(
        "--log-level",
        metavar="LEVEL",
        type=str.upper,
        choices=LEVELS,
        default="INFO",
        help=f"one of {', '.join(LEVELS)} (default INFO)",
    )
    options = parser.parse_args(arguments)
    if not options.run_dir.is_dir():
        print(f'tincan: "{options.run_dir}" is not a directory; make it first', file=sys.stderr)
        return REFUSED
    from tincan.daemon import run  # what only a right command line needs

    try:
        return run(options.run_dir, options.log_level)
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # outermost
        cause: BaseException = error
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        if isinstance(cause, (TincanError, OSError)):
            told = f"tincan: {cause}"
        else:
            told = f"tincan: internal error: {type(cause).__name__}: {cause}; please report it"
            log.critical("internal error", exc_info=error)
        print(" ".join(told.splitlines()), file=sys.stderr)
        return REFUSED


if __name__ == "__main__":
    sys.exit(main())
