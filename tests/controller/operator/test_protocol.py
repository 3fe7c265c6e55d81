"""The asking side of the control socket."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller.errors import ConfigError, ControlError, SystemRefusal
from controller.operator import protocol as control
from controller.operator.protocol import call


class TestAskingNobody:
    """What the subcommands say when no controller answers as one should."""

    def refused(self, path: Path, deadline: float = 5.0) -> str:
        with pytest.raises((SystemRefusal, ControlError)) as caught:
            call(path, "status", deadline=deadline)
        assert not isinstance(caught.value, ConfigError)
        return str(caught.value)

    @contextmanager
    def listener(self, path: Path, answer: bytes | None) -> Iterator[None]:
        """Answer one request with these bytes, or with silence."""
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            server.listen()
            done = threading.Event()

            def serve() -> None:
                connection, _ = server.accept()
                with connection:
                    connection.recv(100)
                    if answer is None:
                        done.wait(10)
                    else:
                        connection.sendall(answer)

            thread = threading.Thread(target=serve)
            thread.start()
            try:
                yield
            finally:
                done.set()
                thread.join()

    def test_not_running(self, tmp_path: Path) -> None:
        told = f'no controller is running on "{tmp_path}"; start it: controller --config FILE'
        assert self.refused(tmp_path / "s") == told
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(tmp_path / "s"))
        assert self.refused(tmp_path / "s") == told

    def test_hung(self, tmp_path: Path) -> None:
        with self.listener(tmp_path / "s", None):
            assert "does not answer within 0.1 s" in self.refused(tmp_path / "s", 0.1)

    @pytest.mark.parametrize(
        "answer", [b"", b"{", b"[]\n", b"hello\n", b'{"error": 5}\n', b"[" * 100_000]
    )
    def test_nonsense(self, tmp_path: Path, answer: bytes) -> None:
        with self.listener(tmp_path / "s", answer):
            assert "not a controller's answer" in self.refused(tmp_path / "s")

    def test_endless(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(control, "MAX_RESPONSE_BYTES", 1000)
        with self.listener(tmp_path / "s", b"x" * 2000):
            assert "larger than 1000 bytes" in self.refused(tmp_path / "s")

    def test_not_a_socket(self, tmp_path: Path) -> None:
        (tmp_path / "s").touch()
        assert self.refused(tmp_path / "s")

    def test_not_ours(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def connect(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(socket.socket, "connect", connect)
        assert "no permission" in self.refused(tmp_path / "s")
