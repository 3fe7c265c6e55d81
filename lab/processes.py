"""The programs under test as processes of a host, and coturn: start, look at, kill."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from controller.errors import ControllerError
from controller.operator.protocol import call
from lab.container import Home
from lab.errors import CommandFailed, LabError

POLL = 0.03  # s


def wait_until(condition: Callable[[], bool], timeout: float, what: str) -> float:
    """Poll `condition` until it holds; return the seconds it took. Raises LabError(`what`)."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > timeout:
            raise LabError(f"not within {timeout} s: {what}")
        time.sleep(POLL)
    return time.monotonic() - start


class Process:
    """A program running in `host`; its output goes to the file `log`."""

    program: str

    def __init__(self, host: Home, command: list[str]) -> None:
        self.host = host
        self.command = command
        self.start()

    def start(self) -> None:
        """Start it, again after it has ended."""
        self.log = self.host.log_file(self.program)
        with self.log.open("w") as log:
            self.process = self.host.popen(
                self.command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={"PYTHONUNBUFFERED": "1"},
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def output(self) -> str:
        """What it has written so far."""
        return self.log.read_text(errors="replace")

    def wait_output(self, text: str, timeout: float = 5) -> None:
        """Wait until it has written `text`. Raises LabError."""
        wait_until(lambda: text in self.output(), timeout, f"{text!r} from {self.program}")

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """kill -STOP: it hangs."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """kill -CONT."""
        self.process.send_signal(signal.SIGCONT)

    def terminate(self, timeout: float = 10) -> int:
        """SIGTERM; return the exit status. Raises LabError if it does not leave in time."""
        self.process.terminate()
        return self.wait(timeout)

    def wait(self, timeout: float = 10) -> int:
        """Wait for its end and return the exit status. Raises LabError."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            text = f"{self.program} still runs after {timeout} s:\n{self.output()[-4000:]}"
            raise LabError(text) from None


def console_script(name: str) -> str:
    """The console script `name` of the environment that this interpreter belongs to."""
    return str(Path(sys.executable).parent / name)


class Controller(Process):
    """`controller --config FILE` in a host; `config` is what FILE says."""

    program = "controller"

    def __init__(self, host: Home, config: dict[str, Any]) -> None:
        # A host may run several controllers, for several networks.
        self.file = f"/run/controller-{config.get('network', 'none')}.json"
        self.host = host
        self.write(config)
        super().__init__(host, [console_script("controller"), "--config", self.file])

    def write(self, config: dict[str, Any]) -> None:
        """Write `config` to its file; it takes effect with the next start."""
        self.config = config
        file = self.host.path(self.file)
        file.touch(mode=0o600)
        file.write_text(json.dumps(config, indent=2))

    def status(self) -> dict[str, Any]:
        """What `controller status --json` says. Raises CommandFailed if it cannot say it."""
        command = [console_script("controller"), "status", "--config", self.file, "--json"]
        status: dict[str, Any] = json.loads(self.host.run(command).stdout)
        return status

    def status_text(self) -> str:
        """What `controller status` shows to people."""
        words = [console_script("controller"), "status", "--config", self.file]
        return self.host.run(words).stdout

    def counters(self) -> dict[str, Any]:
        """The `counters` of its status: numbers, and `frames_dropped` by reason."""
        counters: dict[str, Any] = self.ask("status")["counters"]
        return counters

    def ask(self, method: str, **parameters: Any) -> Any:
        """Ask on its control socket, as the subcommands do, without starting a process for it.

        Raises CommandFailed if there is no answer.
        """
        network = self.config.get("network")
        directory = self.config.get("run_dir", f"/run/switchmode/{network}")
        try:
            return call(self.host.path(f"{directory}/controller.sock"), method, parameters)
        except ControllerError as error:
            raise CommandFailed(f"{self.host.name}: {method}", 1, str(error)) from None

    def connected(self) -> set[str]:
        """The names of the peers whose state is `connected`; none while it does not answer."""
        return {peer["name"] for peer in self._peers()}

    def attended(self) -> set[str]:
        """Those of them that ARP and ND are left to the controllers with, at both ends."""
        return {peer["name"] for peer in self._peers(captured=True) if peer["attended"]}

    def _peers(self, captured: bool = False) -> list[dict[str, Any]]:
        try:
            status = self.ask("status")
        except CommandFailed:
            return []
        if captured and not status["tap"]["captured"]:
            return []
        return [peer for peer in status["peers"] if peer["state"] == "connected"]

    def wait_connected(self, names: Iterable[str], timeout: float = 15) -> float:
        """Wait until all peers `names` are connected and attended; return the seconds it took.

        Raises LabError, with the end of its log, after `timeout` seconds or if it ends.
        """
        wanted = set(names)
        missing = wanted

        def done() -> bool:
            nonlocal missing
            if not self.running:
                status = self.process.returncode
                raise LabError(f"controller ended with {status}:\n{self.output()[-4000:]}")
            missing = wanted - self.attended()
            return not missing

        try:
            return wait_until(done, timeout, "connected")
        except LabError as late:
            if not self.running:
                raise
            raise LabError(
                f"{self.host.name}: not connected within {timeout} s: {sorted(missing)}\n"
                f"{self.output()[-4000:]}"
            ) from late


class Rendezvous(Process):
    """`rendezvous` in a host, listening on its address. `url` is for `signal`, `stun` for
    `stun`."""

    program = "rendezvous"

    def __init__(self, host: Home, address: str, port: int, stun_port: int) -> None:
        bracketed = f"[{address}]" if ":" in address else address
        self.url = f"ws://{bracketed}:{port}"
        self.stun = f"{bracketed}:{stun_port}"
        self.port = port
        listen = ["--listen", f"{bracketed}:{port}", "--stun", self.stun]
        super().__init__(host, [console_script("rendezvous"), *listen])

    def start(self) -> None:
        """Start it and wait until it listens."""
        super().start()
        wait_until(self._listens, 10, f"rendezvous listens; it says: {self.output()}")

    def _listens(self) -> bool:
        if not self.running:
            raise LabError(f"rendezvous ended:\n{self.output()}")
        return bool(self.host.run(["ss", "-Hltn", f"sport = {self.port}"]).stdout.strip())


class Coturn(Process):
    """Debian's turnserver in a host, over UDP and TCP, with one user. `config` is its entry for
    `turn`."""

    program = "turnserver"

    def __init__(self, host: Home, address: str, port: int, user: str, password: str) -> None:
        bracketed = f"[{address}]" if ":" in address else address
        self.address = address
        self.port = port
        self.config = {
            "server": f"{bracketed}:{port}",
            "user": user,
            "pass": password,
            "transport": "udp",
        }
        file = "/run/turnserver.conf"
        host.path(file).write_text(
            f"listening-ip={address}\nrelay-ip={address}\nlistening-port={port}\n"
            f"min-port=50000\nmax-port=50999\nfingerprint\nlt-cred-mech\nrealm=lab\n"
            f"user={user}:{password}\nuserdb=/run/turndb\npidfile=/run/turnserver.pid\n"
            "log-file=stdout\nno-tls\nno-dtls\nno-cli\nverbose\n"
        )
        super().__init__(host, ["turnserver", "-c", file])

    def start(self) -> None:
        """Start it and wait until it listens."""
        super().start()
        wait_until(self._listens, 10, "turnserver listens")

    def _listens(self) -> bool:
        if not self.running:
            raise LabError(f"turnserver ended:\n{self.output()}")
        return bool(self.host.run(["ss", "-Hlun", f"sport = {self.port}"]).stdout.strip())

    def relayed(self) -> int:
        """How many relay sessions it reports in its log."""
        return self.output().count("usage: realm=")
