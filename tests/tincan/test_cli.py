"""The ``tincan`` command: what it refuses in one line, and what it hands to the daemon."""

import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from tincan import cli
from tincan.errors import SystemRefusal


def daemon(monkeypatch: pytest.MonkeyPatch, run: Callable[[Path, str], int]) -> None:
    module = types.ModuleType("tincan.daemon")
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tincan.daemon", module)


def test_hands_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[tuple[Path, str]] = []

    def run(run_dir: Path, level: str) -> int:
        seen.append((run_dir, level))
        return 3

    daemon(monkeypatch, run)
    assert cli.main(["--run-dir", str(tmp_path)]) == 3
    assert cli.main(["--run-dir", str(tmp_path), "--log-level", "debug"]) == 3
    assert seen == [(tmp_path, "INFO"), (tmp_path, "DEBUG")]


@pytest.mark.parametrize(
    "arguments", [[], ["--run-dir"], ["--run-dir", "/", "--log-level", "LOUD"], ["--frob\nnicate"]]
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    err = capsys.readouterr().err
    assert caught.value.code == 2
    assert err.startswith("tincan: ")
    assert err.endswith("; see tincan --help\n")
    assert err.count("\n") == 1


def test_directory_must_be_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--run-dir", str(tmp_path / "x")]) == 1
    assert "is not a directory; make it first\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (SystemRefusal("no tun"), 1, "tincan: no tun\n"),
        (ExceptionGroup("a", [SystemRefusal("no\ntun")]), 1, "tincan: no tun\n"),
        (OSError(28, "No space left on device"), 1, "tincan: [Errno 28] No space left on device\n"),
        (ValueError("x"), 1, "tincan: internal error: ValueError: x; please report it\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
    ids=repr,
)
def test_failure_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    told: str,
) -> None:
    def run(_: Path, __: str) -> int:
        raise error

    daemon(monkeypatch, run)
    assert cli.main(["--run-dir", str(tmp_path)]) == status
    assert capsys.readouterr().err == told
