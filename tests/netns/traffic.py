"""Traffic whose arrival is checked, and programs under test with something of them changed."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from typing import Any

from lab import Container, Host, wait_until
from tincan.control.messages import SOCKET_NAME

TCP_PORT = 7001
UDP_PORT = 7002
RUN_DIR = "/run/switchmode/lab"


def _start(place: Container, *words: str) -> subprocess.Popen[str]:
    return place.popen([sys.executable, "-m", *words], stdout=subprocess.PIPE)


def _line(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"{process.args!r} ended"
    return json.loads(line)


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


class Files:
    """Files of random bytes over TCP, each from one container to another, all at once.

    `with Files([(c5, c7, "10.0.3.7"), ...], mebibytes): ...` starts them; at the end they are
    waited for, and what came must have the digest of what was sent.
    """

    def __init__(self, ways: list[tuple[Container, Container, str]], mebibytes: int) -> None:
        self._ways = ways
        self._mebibytes = mebibytes
        self._stack = ExitStack()
        self._running: list[tuple[subprocess.Popen[str], subprocess.Popen[str]]] = []

    def __enter__(self) -> Files:
        with ExitStack() as stack:
            for number, (sender, receiver, address) in enumerate(self._ways):
                port = str(TCP_PORT + 10 * number)
                receiving = _start(receiver, "lab.bench.transfer", "receive", port)
                stack.callback(_end, receiving)
                assert _line(receiving) == "ready"
                words = ("send", address, port, str(self._mebibytes))
                sending = _start(sender, "lab.bench.transfer", *words)
                stack.callback(_end, sending)
                self._running.append((sending, receiving))
            self._stack = stack.pop_all()
        return self

    @property
    def finished(self) -> bool:
        """Whether all senders have ended."""
        return all(sending.poll() is not None for sending, _ in self._running)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._stack:
            if kind is None:
                for sending, receiving in self._running:
                    sent, received = _line(sending), _line(receiving)
                    assert received == sent
                    assert sent[0] == self._mebibytes << 20


def files_cross(ways: list[tuple[Container, Container, str]], mebibytes: int) -> None:
    """Send them and check what came."""
    with Files(ways, mebibytes):
        pass


class Numbered:
    """Numbered datagrams at a steady rate. After the `with`: `sent` and `received`, as dicts of
    lab.bench.udp's Sent and Received."""

    def __init__(
        self,
        sender: Container,
        receiver: Container,
        address: str,
        *,
        seconds: float,
        size: int,
        rate: int,
        port: int = UDP_PORT,
    ) -> None:
        self._sender, self._receiver = sender, receiver
        self._receive = ("receive", str(port), str(seconds + 10), str(size))
        self._send = ("send", address, str(port), str(seconds), str(size), str(rate))
        self.sent: dict[str, Any] = {}
        self.received: dict[str, Any] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Numbered:
        with ExitStack() as stack:
            self._receiving = _start(self._receiver, "lab.bench.udp", *self._receive)
            stack.callback(_end, self._receiving)
            assert _line(self._receiving) == "ready"
            self._sending = _start(self._sender, "lab.bench.udp", *self._send)
            stack.callback(_end, self._sending)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._stack:
            if kind is None:
                self.sent = _line(self._sending)
                self.received = _line(self._receiving)


def start_tincan(host: Host, changes: str) -> subprocess.Popen[str]:
    """Start tincan on `host` with `changes`, Python statements that are run before it.

    The controller that is started there later finds it running and takes it over.
    """
    host.run(["mkdir", "-p", "-m", "700", RUN_DIR])
    code = f"import sys\n{changes}\nfrom tincan.cli import main\nsys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, "--run-dir", RUN_DIR]
    with host.log_file("tincan").open("w") as log:
        process = host.popen(words, stdout=log)
    socket = host.path(f"{RUN_DIR}/{SOCKET_NAME}")
    wait_until(socket.exists, 10, "tincan listens")  # or the controller would start its own
    return process


def dropped(counters: dict[str, Any], but: frozenset[str] = frozenset()) -> dict[str, int]:
    """What was dropped, by "group.reason"; `but`: reasons that say nothing about a path."""
    return {
        f"{group}.{reason}": count
        for group, reasons in counters.items()
        if group.endswith("_dropped") and isinstance(reasons, dict)
        for reason, count in reasons.items()
        if count and reason not in but
    }
