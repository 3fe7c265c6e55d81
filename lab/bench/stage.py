"""One contender in place, and the tools that load it: iperf3, ping, our own senders."""

import contextlib
import json
import socket
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lab.bench.accounting import Usage
from lab.bench.contenders import Contender
from lab.bench.topology import CONTAINERS, ROOT, Pair, Segment
from lab.errors import LabError
from lab.namespace import Namespace
from lab.processes import wait_until

PORT = 5201
ETH_P_ALL = 3
ETH_P_ALL_N = socket.htons(ETH_P_ALL)


class BenchError(LabError):
    """A load did not run, or its result makes no sense."""


@dataclass
class Stage:
    """`contender` between the containers of `segment`; `seconds`: how long a load lasts."""

    pair: Pair
    segment: Segment
    contender: Contender
    seconds: float

    def pids(self) -> list[int]:
        """All processes of the contender, on both hosts."""
        return [pid for site in self.pair.sites for pid in site.pids()]

    def usage(self) -> Usage:
        return Usage.of(self.pids())

    # Loads

    def iperf3(
        self, *options: str, seconds: float | None = None, omit: float = 1
    ) -> dict[str, Any]:
        """One iperf3 run from the left container to the right one; the `end` of its report."""
        seconds = self.seconds if seconds is None else seconds
        words = [*self._iperf3(seconds, omit), *options]
        with self.iperf3_server():
            result = self.segment.left.run(words, check=False, timeout=seconds + omit + 30)
        return _report(result.stdout)

    @contextlib.contextmanager
    def saturated(self, seconds: float) -> Iterator[None]:
        """One TCP flow beside what the caller does, for `seconds` at least."""
        with self.iperf3_server():
            flow = self.segment.left.popen(
                self._iperf3(seconds + 2, 0), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            try:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    flow.wait(1)  # past its slow start
                yield
                if flow.poll() is not None:
                    raise BenchError("the load ended before what it was to load")
            finally:
                flow.terminate()
                flow.communicate()

    @contextlib.contextmanager
    def iperf3_server(self) -> Iterator[None]:
        server = self.segment.right.popen(["iperf3", "-s", "-p", str(PORT)])
        try:
            wait_until(lambda: self._listens(self.segment.right), 5, "iperf3 -s listens")
            yield
        finally:
            server.terminate()
            server.wait()

    def ping(self, count: int, interval: float) -> list[float]:
        """Round-trip times in milliseconds of the echoes that were answered."""
        words = ["ping", "-n", "-c", str(count), "-i", str(interval), CONTAINERS["right"]]
        output = self.segment.left.run(words, check=False, timeout=count * interval + 20).stdout
        times = [
            float(line.partition(" time=")[2].split()[0])
            for line in output.splitlines()
            if " time=" in line
        ]
        if not times:
            raise BenchError(f"no echo was answered: {output}")
        return times

    def readable(self) -> bool:
        """Whether a container's bytes can be read on the path between the hosts."""
        pattern = b"plain as day: "  # at most 16 bytes, repeated by ping
        with self.pair.left.socket(socket.AF_PACKET, socket.SOCK_RAW, ETH_P_ALL_N) as sniffer:
            sniffer.bind(("wan", ETH_P_ALL))
            sniffer.setblocking(False)
            words = ["ping", "-n", "-c", "5", "-i", "0.05", "-s", "400", "-p", pattern.hex()]
            self.segment.left.run([*words, CONTAINERS["right"]], check=False)
            frames = []
            with contextlib.suppress(BlockingIOError):
                while True:
                    frames.append(sniffer.recv(2048))
        if not frames:
            raise BenchError("nothing was seen on the path")
        return any(pattern in frame for frame in frames)

    def both(
        self,
        module: str,
        receive: Sequence[object],
        send: Sequence[object],
        *,
        back: bool = False,
        processors: tuple[int, int] | None = None,
    ) -> tuple[Any, Any]:
        """Run lab.bench.`module` as sender and receiver, left to right or `back`; both results.

        With `processors` each has one, and the sender precedes what else wants its own: what it
        offers must not depend on how busy the contender is.
        """
        source, sink = self.segment.left, self.segment.right
        if back:
            source, sink = sink, source
        programs = []
        for side in (0, 1):
            place = (
                f"nice -n {0 if side else -10} taskset -c {processors[side]}" if processors else ""
            )
            programs.append([*place.split(), sys.executable, "-m", f"lab.bench.{module}"])
        env = {"PYTHONPATH": str(ROOT)}
        receiver = sink.popen(
            [*programs[1], "receive", *map(str, receive)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
        )
        assert receiver.stdout is not None
        try:
            if "ready" not in receiver.stdout.readline():
                raise BenchError(f"{module} receive: {receiver.communicate()[1]}")
            words = [*programs[0], "send", *map(str, send)]
            sent = source.run(words, timeout=60, env=env).stdout
            received, errors = receiver.communicate(timeout=30)
        finally:
            receiver.kill()
            receiver.wait()
        if receiver.returncode:
            raise BenchError(f"{module} receive: {errors}")
        return json.loads(sent), json.loads(received)

    @staticmethod
    def _iperf3(seconds: float, omit: float) -> list[str]:
        words = ["iperf3", "-c", CONTAINERS["right"], "-p", str(PORT), "-J", "-i", "0"]
        words += ["-t", str(round(seconds)), "--connect-timeout", "5000"]
        return [*words, "-O", str(round(omit))] if omit else words

    @staticmethod
    def _listens(place: Namespace) -> bool:
        return bool(place.run(["ss", "-Hltn", f"sport = {PORT}"]).stdout.strip())


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of them lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def _report(text: str) -> dict[str, Any]:
    try:
        report = json.loads(text)
    except ValueError:
        raise BenchError(f"iperf3 said: {text[:500]}") from None
    if "error" in report:
        raise BenchError(f"iperf3: {report['error']}")
    end: dict[str, Any] = report["end"]
    return end
