"""The command ``rendezvous``: introduces nodes to each other, and carries nothing else."""

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

from controller.config.endpoint import Endpoint
from controller.errors import SystemRefusal, one_line
from controller.signal.rendezvous.server import Rendezvous
from controller.signal.websocket.messages import MAX_NETWORK_NAME

DEFAULT_PORT: Final = 8765
DEFAULT_STUN_PORT: Final = 3478
"""RFC 8489 section 8.1."""

log = logging.getLogger(__name__)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(one_line(f"{self.prog}: {message}"), file=sys.stderr)
        sys.exit(2)


def _listen(text: str) -> Endpoint:
    try:
        return Endpoint.parse(text, DEFAULT_PORT)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _stun(text: str) -> Endpoint | None:
    try:
        return None if text == "off" else Endpoint.parse(text, DEFAULT_STUN_PORT)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _pin(text: str) -> tuple[str, bytes]:
    name, equals, key = text.rpartition("=")
    if not equals or not 1 <= len(name) <= MAX_NETWORK_NAME:
        raise argparse.ArgumentTypeError(f"{text!r}: write NAME=KEY")
    digits = set("0123456789abcdefABCDEF")
    if len(key) != 64 or not digits.issuperset(key):
        raise argparse.ArgumentTypeError(
            f"{text!r}: the key has 64 hexadecimal digits; see `python -m controller.signal.keys`"
        )
    return name, bytes.fromhex(key)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
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
        help=f"STUN, UDP (default: the host of --listen, port {DEFAULT_STUN_PORT}); off: none",
    )
    parser.add_argument(
        "--network",
        metavar="NAME=KEY",
        type=_pin,
        action="append",
        default=[],
        help="serve this network, and only those given so; KEY is its membership key",
    )
    return parser


async def _serve(rendezvous: Rendezvous) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with rendezvous:
        log.info("%s", rendezvous.describe())
        await stop.wait()
    log.info("stopped")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT. Exit status 0; 1 if the system refuses, 2 for bad arguments."""
    options = _parser().parse_args(arguments)
    listen: Endpoint = options.listen
    stun: Endpoint | None = getattr(options, "stun", Endpoint(listen.host, DEFAULT_STUN_PORT))
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    pins = dict(options.network)
    try:
        with contextlib.suppress(KeyboardInterrupt):  # before the handlers are in place
            asyncio.run(_serve(Rendezvous(listen, stun, networks=pins)))
    except SystemRefusal as error:
        print(f"rendezvous: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
