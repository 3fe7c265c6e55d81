"""tincan is started in a session of its own, and says why when that fails."""

import os
import time
from pathlib import Path

import pytest

from controller.dataplane.process import LEFT_BY_TINCAN, start_tincan


def test_tincan_is_started_in_a_session_of_its_own(tmp_path: Path) -> None:
    process = start_tincan(tmp_path, "INFO")
    try:
        assert os.getsid(process.pid) == process.pid != os.getsid(0)
    finally:
        process.kill()
        process.wait()
    assert {path.name for path in tmp_path.iterdir()} <= set(LEFT_BY_TINCAN)


def test_nothing_is_imported_from_where_the_administrator_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stray, run = tmp_path / "stray", tmp_path / "run"
    stray.mkdir()
    run.mkdir()
    for name in ("argparse", "asyncio", "msgspec", "tincan"):
        (stray / f"{name}.py").write_text(
            f"open({str(tmp_path / name)!r}, 'w')\nraise SystemExit(9)"
        )
    monkeypatch.chdir(stray)
    monkeypatch.setenv("PYTHONPATH", str(stray))
    process = start_tincan(run, "INFO")
    try:
        deadline = time.monotonic() + 30
        while not (run / "tincan.sock").exists() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    assert {path.name for path in tmp_path.iterdir()} == {"stray", "run"}
