"""The ``controller`` command as its user sees it: one line when refused, and the exit status."""

import asyncio
import json
import re
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from controller import cli
from controller.config.settings import Config
from controller.errors import ConfigError, ControlError, SystemRefusal
from controller.operator.server import ControlServer
from controller.operator.status import NodeStatus, SignalStatus, Status, TapStatus
from tests.controller.logs import log_restored
from tincan.control import codec

STATUS = Status(
    node=NodeStatus("alpha", "a" * 64),
    tap=TapStatus("ipop", "lxcbr0", "forwarding"),
    signal=SignalStatus("ws://a", True),
    peers=[],
    bindings=[],
    fdb=[],
    counters={},
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "switch.json"
    config = {
        "network": "lab",
        "secret": "correct horse battery",
        "signal": "ws://a",
        "run_dir": str(tmp_path / "run"),
        "state_dir": str(tmp_path / "state"),
    }
    path.write_text(json.dumps(config))
    path.chmod(0o600)
    (tmp_path / "run").mkdir(mode=0o700)
    return path


@pytest.fixture
def no_app(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[Config], int]], None]]:
    """Let the test say what running a controller does."""

    def put(run: Callable[[Config], int]) -> None:
        launch = types.ModuleType("controller.start")
        launch.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "controller.start", launch)

    with log_restored():
        yield put


def controller(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "controller.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def refused(done: subprocess.CompletedProcess[str], status: int) -> str:
    assert done.returncode == status, done
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.removesuffix("\n")


async def ask(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a subcommand against a controller that only answers."""
    methods: dict[str, Callable[[dict[str, Any]], object]] = {
        "status": lambda _: STATUS,
        "bindings": lambda _: {"bindings": []},
        "clear": lambda params: {"cleared": int(params["ip"] == "10.0.3.5")},
    }
    async with ControlServer(path.parent / "run" / "controller.sock", methods):
        return await asyncio.to_thread(controller, *arguments, "--config", path)


class TestAsAProcess:
    @pytest.mark.parametrize(
        ("content", "told"),
        [
            (None, "FILE: cannot be read: No such file or directory; check the path"),
            (b"", 'FILE: is empty; write at least "network", "secret" and "signal"'),
            (b"\xff\x00", "FILE: has NUL bytes; "),
            (b'{"network": "lab"', "FILE: line 1, column "),
            (b'{"network": "lab", "signal": "ws://a"}', "FILE: secret: is missing; "),
            (b'{"netwrk": "lab"}', 'FILE: netwrk: unknown key; did you mean "network"?'),
        ],
        ids=lambda x: repr(x)[:20],
    )
    def test_wrong_configuration(self, tmp_path: Path, content: bytes | None, told: str) -> None:
        path = tmp_path / "switch.json"
        if content is not None:
            path.write_bytes(content)
        text = refused(controller("--config", path), 2)
        assert text.startswith(told.replace("FILE", str(path)))

    def test_wrong_command_line(self) -> None:
        text = refused(controller("--confg", "x"), 2)
        assert text.startswith("controller: ")
        assert text.endswith("; see controller --help")

    def test_no_controller(self, file: Path) -> None:
        text = refused(controller("status", "--config", file), 1)
        assert f'no controller is running on "{file.parent}/run"' in text

    async def test_status(self, file: Path) -> None:
        done = await ask(file, "status", "--json")
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["node"] == {"name": "alpha", "id": "a" * 64}
        done = await ask(file, "status")
        assert (done.returncode, done.stderr) == (0, "")
        assert "in lxcbr0, forwarding" in done.stdout

    def test_what_it_does_not_load(self, file: Path) -> None:
        """``status`` is fast because it loads nothing that only a running controller needs."""
        code = (
            "import sys; from controller import cli\n"
            f"status = cli.main(['status', '--config', {str(file)!r}])\n"
            "print(status, *sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
        )
        status, *loaded = done.stdout.split()
        assert status == "1"
        heavy = {"scapy", "pyroute2", "aioice", "websockets", "cryptography", "asyncio", "rich"}
        assert not heavy & set(loaded)

    @pytest.mark.parametrize("form", [["--json"], []])
    async def test_reader_that_goes_away(self, file: Path, form: list[str]) -> None:
        """As in ``controller status | head -1``."""
        long = {**codec.to_builtins(STATUS), "warnings": ["x" * 90] * 9000}
        async with ControlServer(
            file.parent / "run" / "controller.sock", {"status": lambda _: long}
        ):
            done = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "controller.cli", "status", "--config", str(file), *form),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            assert done.stdout is not None
            assert done.stderr is not None
            await done.stdout.readline()
            done._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
            assert await done.stderr.read() == b""
            await done.wait()


class TestCommands:
    """The same without a process for each."""

    def run(
        self, capsys: pytest.CaptureFixture[str], *arguments: str | Path
    ) -> tuple[int | str | None, str, str]:
        status: int | str | None
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as error:
            status = error.code
        out, err = capsys.readouterr()
        return status, out, err

    @pytest.mark.parametrize(
        "arguments",
        [
            ("frobnicate",),
            ("--config",),
            ("status", "--watch"),
            ("status", "--config", "a", "b"),
            ("clear", "--config", "a"),
            ("--config", "a", "--jso\nn"),
        ],
    )
    def test_wrong_usage(
        self, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
    ) -> None:
        status, out, err = self.run(capsys, *arguments)
        assert (status, out) == (2, "")
        assert re.fullmatch(r"controller.*; see controller.* --help\n", err)

    @pytest.mark.parametrize("arguments", [(), ("status",), ("bindings",)])
    def test_no_file(self, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
        status, _, err = self.run(capsys, *arguments)
        assert status == 2
        assert err == "controller: --config: is missing; write: controller --config FILE\n"

    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        status, out, _ = self.run(capsys, "--version")
        assert status == 0
        assert re.fullmatch(r"controller \S+\n", out)

    def test_file_before_the_command(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, file: Path
    ) -> None:
        monkeypatch.setattr("controller.operator.protocol.call", lambda *_: {"bindings": []})
        for arguments in (("--config", file, "bindings"), ("bindings", "--config", file)):
            status, out, _ = self.run(capsys, *arguments)
            assert (status, out.strip()) == (0, "no address is known yet")

    def test_bindings_for_programs(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, file: Path
    ) -> None:
        monkeypatch.setattr("controller.operator.protocol.call", lambda *_: {"bindings": []})
        status, out, _ = self.run(capsys, "bindings", "--config", file, "--json")
        assert (status, json.loads(out)) == (0, {"bindings": []})

    def test_watch_until_interrupted(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, file: Path
    ) -> None:
        answers = iter([{"bindings": []}, {"bindings": [1]}])
        monkeypatch.setattr("time.sleep", lambda _: None)

        def call(*_: object) -> object:
            for answer in answers:
                return answer
            raise KeyboardInterrupt

        monkeypatch.setattr("controller.operator.protocol.call", call)
        status, out, err = self.run(capsys, "bindings", "--config", file, "--json", "--watch")
        assert (status, err) == (130, "")
        assert [json.loads(line) for line in out.splitlines()] == [
            {"bindings": []},
            {"bindings": [1]},
        ]

    def test_clear(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, file: Path
    ) -> None:
        def call(path: Path, method: str, params: dict[str, str]) -> object:
            assert (path, method) == (file.parent / "run" / "controller.sock", "clear")
            return {"cleared": int(params["ip"] == "fd00::5")}

        monkeypatch.setattr("controller.operator.protocol.call", call)
        assert self.run(capsys, "clear", "FD00:0::5", "--config", file)[:2] == (
            0,
            "fd00::5: cleared\n",
        )
        assert self.run(capsys, "clear", "10.0.3.5", "--config", file)[:2] == (
            0,
            "10.0.3.5: nothing was known about it\n",
        )
        status, _, err = self.run(capsys, "clear", "10.0.3", "--config", file)
        assert status == 2
        assert err.startswith('controller: IP: "10.0.3" is not an IP address; ')

    def test_refused_by_the_controller(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, file: Path
    ) -> None:
        def call(*_: object) -> object:
            raise ControlError("not\nnow")

        monkeypatch.setattr("controller.operator.protocol.call", call)
        assert self.run(capsys, "status", "--config", file) == (1, "", "controller: not\\nnow\n")


class TestRun:
    def test_returns_what_the_application_returns(
        self, no_app: Callable[[Callable[[Config], int]], None], file: Path
    ) -> None:
        seen: list[Config] = []
        no_app(lambda config: seen.append(config) or 7)  # type: ignore[func-returns-value]
        assert cli.main(["--config", str(file)]) == 7
        assert seen[0].network == "lab"

    @pytest.mark.parametrize(
        ("error", "status", "told"),
        [
            (SystemRefusal("no tun", "sudo modprobe tun"), 1, "controller: no tun; sudo modprobe"),
            (ConfigError("f: tap", "is taken", "choose"), 2, "f: tap: is taken; choose"),
            (
                ExceptionGroup("a", [ExceptionGroup("b", [SystemRefusal("deep")])]),
                1,
                "controller: deep",
            ),
            (
                ExceptionGroup("a", [ValueError("first"), SystemRefusal("second")]),
                1,
                "controller: second",
            ),
            (OSError(28, "No space left\non device"), 1, "controller: the system refused: "),
            (ValueError("a\nb"), 1, "controller: internal error: ValueError: a\\nb; please"),
            (RecursionError(), 1, "controller: internal error: RecursionError"),
            (KeyboardInterrupt(), 130, ""),
            (BaseExceptionGroup("a", [KeyboardInterrupt()]), 130, ""),
        ],
        ids=repr,
    )
    def test_failure_is_one_line(
        self,
        no_app: Callable[[Callable[[Config], int]], None],
        capsys: pytest.CaptureFixture[str],
        file: Path,
        error: BaseException,
        status: int,
        told: str,
    ) -> None:
        def run(_: Config) -> int:
            raise error

        no_app(run)
        assert cli.main(["--config", str(file)]) == status
        err = capsys.readouterr().err
        assert err.startswith(told)
        assert err.count("\n") == (1 if told else 0)

    def test_warnings_of_the_configuration_are_logged(
        self,
        no_app: Callable[[Callable[[Config], int]], None],
        capsys: pytest.CaptureFixture[str],
        file: Path,
    ) -> None:
        no_app(lambda _: 0)
        file.chmod(0o644)
        assert cli.main(["--config", str(file)]) == 0
        err = capsys.readouterr().err
        assert re.search(rf"WARNING controller.cli: {file}: .* chmod 600 {file}\n", err)
