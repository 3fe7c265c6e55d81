"""The route reflector at work: beside the Go program, at its full size, and idle.

    python -m lab.bench.routes go [--rounds 3]     ours and the Go reflector in turn, Go clients
    python -m lab.bench.routes many                100,000 routes, 50 subscribers of ours
    python -m lab.bench.routes idle                1,000 peers that only keep alive
    python -m lab.bench.routes cost                the pure core: an update among few and many

All on loopback. ``go`` needs a Go toolchain; it builds the published module (see lab.gobuild).
"""

import argparse
import asyncio
import contextlib
import gc
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from controller.routes import messages
from controller.routes.cli import COLLECTED_EVERY
from controller.routes.messages import Action, Hello, Update
from controller.routes.metalbond import MetalBond
from controller.routes.peer import Peer
from controller.routes.speaker import Config, Speaker
from controller.routes.values import Destination, NextHop, Vni
from lab.bench.accounting import Usage, resident
from lab.gobuild import GoMissing, metalbond

VNI: Final = Vni(23)
HOP: Final = NextHop.parse("2001:db8::a1")
PATIENCE_S: Final = 120.0
SETTLE_S: Final = 1.0
MIB: Final = 1 << 20


def destination(number: int) -> Destination:
    """Return one of 2^24 different prefixes."""
    return Destination((0x0A000000 + number).to_bytes(4, "big"), 32)


def free_port() -> int:
    """Return a TCP port that is free on ::1 now."""
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(there: Callable[[], bool], what: str, every: float = 0.02) -> None:
    """Wait until ``there`` is true. Raises TimeoutError."""
    deadline = time.monotonic() + PATIENCE_S
    while not there():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(every)


def listens(port: int) -> bool:
    """Return whether somebody takes connections."""
    with contextlib.suppress(OSError), socket.create_connection(("::1", port), 1):
        return True
    return False


@contextlib.contextmanager
def running(*command: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program with its output in a file; it ends with the block."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


OURS: Final = (sys.executable, "-m", "controller.cli", "metalbond")


# --- beside the Go program


def reflect(server: tuple[str, ...], go: str, routes: int, subscribers: int) -> dict[str, float]:
    """Return the seconds until all Go subscribers have all routes of a Go announcer, and the
    processor seconds and the largest MiB of the reflector."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        at, port = Path(folder), free_port()
        address = f"[::1]:{port}"
        reflector = stack.enter_context(
            running(*server, "server", "--listen", address, log=at / "server")
        )
        wait_for(lambda: listens(port), "the reflector does not listen")
        logs = [at / f"subscriber{n}" for n in range(subscribers)]
        for log in logs:
            stack.enter_context(
                running(go, "client", "--server", address, "--subscribe", str(VNI), log=log)
            )
        wait_for(lambda: all(b"established" in log.read_bytes() for log in logs), "no connections")
        time.sleep(SETTLE_S)
        announced = [f"{VNI}#{destination(n)}#{HOP}" for n in range(routes)]
        before = Usage.of([reflector.pid])
        stack.enter_context(
            running(
                go, "client", "--server", address, "--announce", ",".join(announced), log=at / "a"
            )
        )
        have = [0] * subscribers

        def complete() -> bool:
            for n, log in enumerate(logs):
                if have[n] < routes:
                    have[n] = log.read_bytes().count(b"Received Route")
                    return have[n] >= routes and complete()
            return True

        wait_for(complete, f"only {have} of {routes} arrived")
        used = Usage.of([reflector.pid]) - before
        return {"s": used.at, "cpu": used.processor, "MiB": peak(reflector.pid) / MIB}


def peak(pid: int) -> int:
    """Return the largest resident memory that a process has had, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def beside_go(rounds: int) -> None:
    """Compare both reflectors in turn."""
    go = str(metalbond())
    for routes, subscribers in ((2000, 20), (1000, 50)):
        found: dict[str, list[dict[str, float]]] = {"Go": [], "ours": []}
        for _ in range(rounds):
            found["Go"].append(reflect((go,), go, routes, subscribers))
            found["ours"].append(reflect(OURS, go, routes, subscribers))
        print(f"{routes} routes to {subscribers} Go subscribers, medians of {rounds} rounds")
        middle = {
            who: {key: statistics.median(one[key] for one in all_) for key in all_[0]}
            for who, all_ in found.items()
        }
        for who, figures in middle.items():
            print(f"  {who:5}", "  ".join(f"{key} {value:.2f}" for key, value in figures.items()))
        ratio = {key: middle["ours"][key] / middle["Go"][key] for key in middle["Go"]}
        print("  ratio", "  ".join(f"{key} {value:.2f}" for key, value in ratio.items()))


# --- at its full size


class Counting:
    """A client that counts what it has, and notes when a certain route came."""

    def __init__(self) -> None:
        self.have: set[Destination] = set()
        self.came: dict[Destination, float] = {}

    def add_route(self, vni: Vni, destination: Destination, hop: NextHop) -> None:
        """Count it."""
        self.have.add(destination)
        if destination.length != 32:
            self.came[destination] = time.monotonic()

    def remove_route(self, vni: Vni, destination: Destination, hop: NextHop) -> None:
        """Count it no longer."""
        self.have.discard(destination)


async def subscribe(address: str, count: int) -> None:
    """Run ``count`` subscribers and tell about them in lines of JSON, twice a second."""
    clients = [Counting() for _ in range(count)]
    async with contextlib.AsyncExitStack() as stack:
        for client in clients:
            bond = await stack.enter_async_context(MetalBond(Config(), client))
            bond.subscribe(VNI)
            bond.add_peer(address)
        while True:
            await asyncio.sleep(0.25)
            came = [max(c.came.values(), default=0) for c in clients]
            told = {"have": [len(c.have) for c in clients], "came": came}
            print(json.dumps(told), flush=True)


async def announce(address: str, count: int) -> None:
    """Announce ``count`` routes, then one more prefix for each line on stdin."""
    async with MetalBond() as bond:
        for number in range(count):
            bond.announce_route(VNI, destination(number), HOP)
        bond.add_peer(address)
        number = 0
        while await asyncio.to_thread(sys.stdin.readline):
            number += 1
            network = Destination(bytes([192, number, 0, 0]), 24)
            told = time.monotonic()
            bond.announce_route(VNI, network, HOP)
            print(told, flush=True)


def last(log: Path) -> dict[str, Any]:
    """Return the last whole line of JSON of a file."""
    lines = log.read_bytes().split(b"\n")[:-1]
    found: dict[str, Any] = json.loads(lines[-1]) if lines else {"have": [0], "came": [0]}
    return found


def many(routes: int, subscribers: int, processes: int = 2) -> None:
    """Print how long everything takes, and what the reflector needs for it."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        at, port = Path(folder), free_port()
        address = f"[::1]:{port}"
        here = (sys.executable, "-m", "lab.bench.routes")
        reflector = stack.enter_context(
            running(*OURS, "server", "--listen", address, log=at / "server")
        )
        wait_for(lambda: listens(port), "the reflector does not listen")
        log = (at / "announcer").open("wb")
        announcer = subprocess.Popen(
            (*here, "--announce", address, "--routes", str(routes)),
            stdin=subprocess.PIPE,
            stdout=log,
        )
        stack.callback(announcer.wait)
        stack.callback(announcer.kill)
        time.sleep(SETTLE_S + routes / 10_000)
        start = Usage.of([reflector.pid])
        each = subscribers // processes
        logs = [at / f"subscribers{n}" for n in range(processes)]
        for one in logs:
            stack.enter_context(
                running(*here, "--subscribe", address, "--count", str(each), log=one)
            )
        probe = at / "probe"  # not busy with others' routes: shows when an update leaves
        stack.enter_context(running(*here, "--subscribe", address, "--count", "1", log=probe))
        assert announcer.stdin is not None
        slowest = 0.0
        asked = 0

        def replayed() -> bool:
            told = [last(one) for one in logs]
            if asked == 0 and all(min(t["have"]) > routes // 10 for t in told):
                ask()
            return all(min(t["have"]) >= routes + asked for t in told)

        def ask() -> None:
            nonlocal asked
            asked += 1
            assert announcer.stdin is not None
            announcer.stdin.write(b"\n")
            announcer.stdin.flush()

        try:
            wait_for(replayed, "not all routes", 0.25)
        except TimeoutError:
            print([last(one) for one in logs])
            raise
        used = Usage.of([reflector.pid]) - start
        sent = float((at / "announcer").read_bytes().split(b"\n")[0]) if asked else 0.0
        slowest = max(max(last(one)["came"]) for one in logs) - sent
        first = last(probe)["came"][0] - sent
        print(f"{routes} routes, {each * processes} subscribers of ours in {processes} processes")
        print(f"  all have all after {used.at:.1f} s, {used.processor:.1f} s of processor")
        print(f"  reflector: {peak(reflector.pid) / MIB:.0f} MiB at most")
        if asked:
            print(f"  an update during the replay: out after {first * 1e3:.0f} ms", end="")
            print(f", at the slowest of the busy subscribers after {slowest * 1e3:.0f} ms")
        start = Usage.of([reflector.pid])
        announcer.kill()
        gone = lambda: all(max(last(one)["have"]) == 0 for one in logs)  # noqa: E731
        wait_for(gone, "not withdrawn", 0.25)
        used = Usage.of([reflector.pid]) - start
        print(f"  the announcer killed: all withdrawn after {used.at:.1f} s", end="")
        print(f", {used.processor:.1f} s of processor")
        print(
            f"  reflector: {peak(reflector.pid) / MIB:.0f} MiB at most, now "
            f"{resident(reflector.pid) / MIB:.0f}"
        )


# --- idle


def idle(peers: int, seconds: float, keepalive: int = 5) -> None:
    """Print what peers cost that only keep alive."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        port = free_port()
        reflector = stack.enter_context(
            running(*OURS, "server", "--listen", f"[::1]:{port}", log=Path(folder) / "server")
        )
        wait_for(lambda: listens(port), "the reflector does not listen")
        sockets = [
            stack.enter_context(socket.create_connection(("::1", port))) for _ in range(peers)
        ]
        for one in sockets:
            one.sendall(messages.hello(Hello(keepalive)))
        for one in sockets:
            one.recv(64)
            one.sendall(messages.KEEPALIVE)
        end = time.monotonic() + seconds
        before = Usage.of([reflector.pid])
        answered = 0
        due = time.monotonic()
        while due < end:
            for one in sockets:
                due += keepalive / peers
                time.sleep(max(0.0, due - time.monotonic()))
                one.sendall(messages.KEEPALIVE)
                answered += len(one.recv(4096)) // len(messages.KEEPALIVE)
        used = Usage.of([reflector.pid]) - before
        print(
            f"{peers} idle peers, a KEEPALIVE every {keepalive} s each: "
            f"{100 * used.processor / used.at:.1f} % of a core, {answered} answers, "
            f"{resident(reflector.pid) / MIB:.0f} MiB"
        )


# --- the pure core


def cost(sizes: tuple[int, ...], subscribers: int = 50, sample: int = 5000) -> None:
    """Print the time of one update, received and sent to all, in tables of these sizes."""
    for size in sizes:
        speaker = Speaker(Config(), lambda: 0.5, installs=False)
        announcer, *others = (joined(speaker, f"peer {n}") for n in range(1 + subscribers))
        for peer in others:
            speaker.received(peer, messages.subscribe(VNI), 0.0)
        feed(speaker, announcer, others, Action.ADD, range(size))
        more = range(size, size + sample)
        added = feed(speaker, announcer, others, Action.ADD, more)
        removed = feed(speaker, announcer, others, Action.REMOVE, more)
        print(
            f"{size} routes, {subscribers} subscribers: an ADD {added * 1e6:.1f} us, "
            f"a REMOVE {removed * 1e6:.1f} us"
        )


def joined(speaker: Speaker, name: str) -> Peer:
    """Return an established peer."""
    peer = speaker.accept(name, 0.0)
    speaker.received(peer, messages.hello(Hello(5)) + messages.KEEPALIVE, 0.0)
    return peer


def feed(
    speaker: Speaker, announcer: Peer, others: list[Peer], action: Action, numbers: range
) -> float:
    """Return the processor seconds of one update, sent to all others."""
    frames = [messages.update(Update(action, VNI, destination(n), HOP)) for n in numbers]
    start = time.process_time()
    for frame in frames:
        speaker.received(announcer, frame, 0.0)
    for peer in others:
        while peer.pull(speaker.reflector, 8192):
            pass
    return (time.process_time() - start) / len(frames)


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("work", nargs="?", choices=("go", "many", "idle", "cost"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--routes", type=int, default=100_000)
    parser.add_argument("--subscribers", type=int, default=50)
    parser.add_argument("--announce", help=argparse.SUPPRESS)
    parser.add_argument("--subscribe", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.announce:
        gc.set_threshold(*COLLECTED_EVERY)
        asyncio.run(announce(options.announce, options.routes))
        return 0
    if options.subscribe:
        gc.set_threshold(*COLLECTED_EVERY)
        asyncio.run(subscribe(options.subscribe, options.count))
        return 0
    if options.work is None:
        parser.error("say what: go, many, idle or cost")
    print("load:", " ".join(f"{each:.2f}" for each in os.getloadavg()))
    try:
        if options.work == "go":
            beside_go(options.rounds)
        elif options.work == "many":
            many(options.routes, options.subscribers)
        elif options.work == "idle":
            idle(1000, 15.0)
        else:
            cost((1000, 100_000))
    except GoMissing as missing:
        print(missing, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sys.exit(main())
