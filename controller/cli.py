"""The ``controller`` command: run one, or ask a running one.

Exit status: 0 done; 1 the system or the controller refused; 2 the command line or the
configuration is wrong; 130 interrupted. A refusal is one line on stderr.
Heavy modules are imported where they are used: ``status`` does not load what ``run`` needs.
"""

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from controller.command import INTERRUPTED, REFUSED, WRONG, Parser, log_to_stderr
from controller.errors import ConfigError, ControllerError, one_line
from controller.version import version

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _options(sys.argv[1:] if arguments is None else arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # controller status | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return INTERRUPTED
    except (ControllerError, BaseExceptionGroup) as error:
        return _complain(error)
    except Exception as error:  # outermost
        return _complain(error)


def _complain(error: BaseException) -> int:
    """Print in one line what ended the program, and return its exit status.

    A TaskGroup wraps what its tasks raised, perhaps several levels deep: the first
    ControllerError found in it counts. Any other exception is a fault of this program; its
    traceback is logged at DEBUG.
    """
    causes = _leaves(error)
    expected = next((cause for cause in causes if isinstance(cause, ControllerError)), None)
    if isinstance(expected, ConfigError):
        print(expected, file=sys.stderr)
        return WRONG
    if expected is not None:
        print(one_line(f"controller: {expected}"), file=sys.stderr)
        return REFUSED
    cause = causes[0]
    if isinstance(cause, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(cause, OSError):
        print(one_line(f"controller: the system refused: {cause}"), file=sys.stderr)
    else:
        told = f"controller: internal error: {type(cause).__name__}: {cause}"
        print(one_line(f"{told}; please report it"), file=sys.stderr)
    log.debug("the traceback of that", exc_info=error)
    return REFUSED


def _leaves(error: BaseException) -> list[BaseException]:
    """Return the exceptions that are no groups, in order."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    """Return what is to be run, in ``run``. MetalBond has a command line of its own."""
    if arguments and arguments[0] == "metalbond":
        return argparse.Namespace(run=_metalbond, arguments=arguments[1:])
    return _parser().parse_args(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="controller",
        description="Join this host's containers to an overlay, or ask a running controller.",
        epilog="Without a command it runs in the foreground, until SIGTERM or Ctrl-C.",
    )
    parser.add_argument("--version", action=_Version)
    parser.add_argument("--config", metavar="FILE", type=Path, help="JSON or YAML")
    parser.set_defaults(run=_run)
    commands = parser.add_subparsers(metavar="COMMAND", title="commands", parser_class=Parser)

    def command(
        name: str, run: Callable[[argparse.Namespace], int], told: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=told, description=told)
        # SUPPRESS: "controller --config FILE status" is right, too.
        sub.add_argument(
            "--config", metavar="FILE", type=Path, default=argparse.SUPPRESS, help="JSON or YAML"
        )
        sub.set_defaults(run=run)
        return sub

    status = command("status", _status, "Show who is connected, by which path and why.")
    bindings = command("bindings", _bindings, "Show who has which address, since when.")
    clear = command("clear", _clear, "Forget what is known about an address, and its conflict.")
    command("metalbond", _metalbond, "Reflect and install MetalBond routes: metalbond --help.")
    for sub in (status, bindings):
        sub.add_argument("--json", action="store_true", help="for programs")
    bindings.add_argument("--watch", action="store_true", help="show it again every second")
    clear.add_argument("ip", metavar="IP")
    return parser


class _Version(argparse.Action):
    """The option ``--version``; it looks the version up only when the option is given."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help="show it and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        print(f"{parser.prog} {version()}")
        parser.exit()


def _config(options: argparse.Namespace) -> Any:
    from controller.config.load import load

    if options.config is None:
        raise ConfigError("controller: --config", "is missing", "write: controller --config FILE")
    return load(options.config)


def _metalbond(options: argparse.Namespace) -> int:
    from controller.routes.cli import run

    return run(options.arguments, log_to_stderr)


def _run(options: argparse.Namespace) -> int:
    config = _config(options)
    log_to_stderr(config.controller_logging)
    for warning in config.warnings:
        log.warning("%s", warning)
    from controller.start import run

    status: int = run(config)
    return status


def _ask(options: argparse.Namespace, method: str, params: dict[str, Any] | None = None) -> Any:
    from controller.operator.protocol import call

    return call(_config(options).control_socket, method, params)


def _status(options: argparse.Namespace) -> int:
    answer = _ask(options, "status")
    if options.json:
        print(json.dumps(answer, indent=2))
        return 0
    from controller.operator.tables import show_status

    show_status(answer)
    return 0


def _bindings(options: argparse.Namespace) -> int:
    from controller.operator.protocol import call

    path = _config(options).control_socket

    def ask() -> Any:
        return call(path, "bindings")

    if options.json and not options.watch:
        print(json.dumps(ask(), indent=2))
        return 0
    if options.json:
        import time

        while True:
            print(json.dumps(ask()), flush=True)
            time.sleep(1)
    from controller.operator.tables import show_bindings, watch_bindings

    if options.watch:
        watch_bindings(ask)
    show_bindings(ask())
    return 0


def _clear(options: argparse.Namespace) -> int:
    from controller.config.values import Place, ip

    address = ip(options.ip, Place("controller: IP"))
    answer = _ask(options, "clear", {"ip": address})
    cleared = answer.get("cleared") if isinstance(answer, dict) else None
    print(f"{address}: nothing was known about it" if cleared == 0 else f"{address}: cleared")
    return 0


if __name__ == "__main__":
    sys.exit(main())
