"""The command ``rendezvous``: introduces nodes to each other, and carries nothing else."""

import argparse
import asyncio
import contextlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from controller.command import REFUSED, Parser, log_to_stderr
from controller.config.endpoint import STUN_PORT, Endpoint
from controller.errors import SystemRefusal, one_line
from controller.signal.keys import NetworkKeys
from controller.signal.rendezvous.server import Rendezvous
from controller.signal.websocket.messages import MAX_NETWORK_NAME
from controller.stopping import stop_requested

DEFAULT_PORT: Final = 8765
"""TCP port of the signalling."""

log = logging.getLogger(__name__)


def _listen(text: str) -> Endpoint:
    """Return the value of ``--listen``."""
    try:
        return Endpoint.parse(text, DEFAULT_PORT)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _stun(text: str) -> Endpoint | None:
    """Return the value of ``--stun``, None for ``off``."""
    try:
        return None if text == "off" else Endpoint.parse(text, STUN_PORT)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _pin(text: str) -> tuple[str, bytes]:
    """Return the value of ``--network``: a name and its membership key."""
    name, equals, key = text.rpartition("=")
    if not equals or not 1 <= len(name) <= MAX_NETWORK_NAME:
        raise argparse.ArgumentTypeError(f"{text!r}: write NAME=KEY")
    digits = set("0123456789abcdefABCDEF")
    if len(key) != 64 or not digits.issuperset(key):
        raise argparse.ArgumentTypeError(
            f"{text!r}: the key has 64 hexadecimal digits; see `rendezvous membership-key --help`"
        )
    return name, bytes.fromhex(key)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="rendezvous",
        description=(
            "Introduce the nodes of Switchmode networks to each other (websockets), and tell "
            "them their public addresses (STUN). It cannot read what they say."
        ),
    )
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        type=_listen,
        default=Endpoint("", DEFAULT_PORT),
        help=f"signalling, TCP (default *:{DEFAULT_PORT}: all addresses, IPv4 and IPv6)",
    )
    parser.add_argument(
        "--stun",
        metavar="HOST:PORT",
        type=_stun,
        default=argparse.SUPPRESS,
        help=f"STUN, UDP (default: the host of --listen, port {STUN_PORT}); off: none",
    )
    parser.add_argument(
        "--network",
        metavar="NAME=KEY",
        type=_pin,
        action="append",
        default=[],
        help="serve this network, and only those given so; KEY is its membership key",
    )
    parser.set_defaults(run=_run)
    commands = parser.add_subparsers(metavar="COMMAND", title="commands", parser_class=Parser)
    told = "Print the membership key of a network, for rendezvous --network NAME=KEY."
    key = commands.add_parser("membership-key", help=told, description=told)
    key.add_argument("--network", dest="name", metavar="NAME", required=True)
    key.add_argument(
        "--secret-file",
        metavar="FILE",
        type=Path,
        help="the network's secret (default: standard input)",
    )
    key.set_defaults(run=_membership_key)
    return parser


def _membership_key(options: argparse.Namespace) -> int:
    """Print the membership key of a network as 64 hexadecimal digits."""
    file: Path | None = options.secret_file
    try:
        text = file.read_text() if file is not None else sys.stdin.read()
    except (OSError, UnicodeError) as error:
        return _refuse(f"{file or 'standard input'}: {error}")
    secret = text.strip()
    if not secret:
        return _refuse("the secret is empty")
    print(NetworkKeys.derive(options.name, secret).membership_key.hex())
    return 0


def _run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    listen: Endpoint = options.listen
    stun: Endpoint | None = getattr(options, "stun", Endpoint(listen.host, STUN_PORT))
    log_to_stderr("INFO")
    try:
        with contextlib.suppress(KeyboardInterrupt):  # before the handlers are in place
            asyncio.run(_serve(Rendezvous(listen, stun, networks=dict(options.network))))
    except SystemRefusal as error:
        return _refuse(str(error))
    return 0


async def _serve(rendezvous: Rendezvous) -> None:
    stop = stop_requested()
    async with rendezvous:
        log.info("%s", rendezvous.describe())
        await stop.wait()
    log.info("stopped")


def _refuse(text: str) -> int:
    """Print ``text`` on stderr as one line; return the exit status."""
    print(one_line(f"rendezvous: {text}"), file=sys.stderr)
    return REFUSED


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    0: done, or ended by SIGTERM or SIGINT; 1: the system refuses; 2: the arguments are wrong.
    """
    options = _parser().parse_args(arguments)
    status: int = options.run(options)
    return status


if __name__ == "__main__":
    sys.exit(main())
