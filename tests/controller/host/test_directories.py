"""One controller per directory."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from controller.errors import SystemRefusal
from controller.host import directories as process
from controller.host.directories import hold

HOLD_AND_WAIT = """
import sys, time
from pathlib import Path
from controller.host.directories import hold
with hold(Path(sys.argv[1]), "run_dir"):
    print("held", flush=True)
    time.sleep(60)
"""


class TestHold:
    def test_keeps_others_out(self, tmp_path: Path) -> None:
        path = tmp_path / "run"
        with hold(path, "run_dir"):
            assert (path / "controller.lock").read_text() == f"{os.getpid()}\n"
            with pytest.raises(SystemRefusal) as caught, hold(path, "run_dir"):
                pass
            assert str(caught.value) == (
                f'"{path}" is in use by another controller (pid {os.getpid()}); '
                'stop that one, or give this one another "run_dir"'
            )
        assert not path.exists()

    def test_leaves_nothing_of_ours_and_nothing_of_others(self, tmp_path: Path) -> None:
        with hold(tmp_path / "a" / "b", "run_dir"):
            pass
        assert list(tmp_path.iterdir()) == []
        with hold(tmp_path, "run_dir"):
            pass
        assert tmp_path.exists()
        with hold(tmp_path / "c", "run_dir"):
            (tmp_path / "c" / "node.key").touch()
        assert [path.name for path in (tmp_path / "c").iterdir()] == ["node.key"]

    def test_the_default_place_goes_even_if_a_killed_process_made_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(process, "DEFAULT_RUN_ROOT", tmp_path / "switchmode")
        (tmp_path / "switchmode" / "lab").mkdir(parents=True, mode=0o700)
        (tmp_path / "switchmode" / "other").mkdir()
        with hold(tmp_path / "switchmode" / "lab", "run_dir"):
            pass
        assert [path.name for path in (tmp_path / "switchmode").iterdir()] == ["other"]
        (tmp_path / "switchmode" / "other").rmdir()
        with hold(tmp_path / "switchmode" / "lab", "run_dir"):
            pass
        assert list(tmp_path.iterdir()) == []

    def test_kill_9_leaves_no_obstacle(self, tmp_path: Path) -> None:
        with subprocess.Popen(
            [sys.executable, "-c", HOLD_AND_WAIT, tmp_path], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "held\n"
            with pytest.raises(SystemRefusal, match=f"pid {child.pid}"), hold(tmp_path, "x"):
                pass
            child.send_signal(signal.SIGKILL)
            child.wait()
        assert (tmp_path / "controller.lock").exists()
        with hold(tmp_path, "x"):
            pass
        assert not (tmp_path / "controller.lock").exists()

    def test_a_directory_in_its_place(self, tmp_path: Path) -> None:
        (tmp_path / "controller.lock").mkdir()
        with pytest.raises(SystemRefusal, match="cannot lock"), hold(tmp_path, "x"):
            pass
