"""Private directories and files: made with the right modes, written whole or not at all."""

import os
import stat
from pathlib import Path

import pytest

from controller.errors import SystemRefusal
from controller.host.files import private_directory, write_private


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class TestDirectories:
    def test_made_private(self, tmp_path: Path) -> None:
        path = tmp_path / "a" / "b"
        assert private_directory(path) == [tmp_path / "a", path]
        assert (mode(path), mode(path.parent)) == (0o700, 0o755)
        assert private_directory(path) == []

    def test_others_could_write(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o777)
        with pytest.raises(SystemRefusal, match=f"chmod 700 {tmp_path}"):
            private_directory(tmp_path)

    def test_a_file_is_in_the_way(self, tmp_path: Path) -> None:
        (tmp_path / "x").touch()
        with pytest.raises(SystemRefusal, match="is not a directory"):
            private_directory(tmp_path / "x")
        with pytest.raises(SystemRefusal, match="Not a directory"):
            private_directory(tmp_path / "x" / "y")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
    def test_of_another_user(self, tmp_path: Path) -> None:
        os.chown(tmp_path, 12345, -1)
        with pytest.raises(SystemRefusal, match="uid 12345"):
            private_directory(tmp_path)


class TestFiles:
    def test_replaced_whole(self, tmp_path: Path) -> None:
        path = tmp_path / "f"
        path.write_text("old")
        (tmp_path / "f.new").write_text("of a process that was killed")
        write_private(path, b"new")
        assert path.read_bytes() == b"new"
        assert mode(path) == 0o600
        assert list(tmp_path.iterdir()) == [path]

    def test_refused(self, tmp_path: Path) -> None:
        with pytest.raises(SystemRefusal, match="No such file"):
            write_private(tmp_path / "missing" / "f", b"")
