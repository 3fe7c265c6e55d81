"""The command as a user runs it."""

import asyncio
import io
import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.signal.keys import NetworkKeys
from controller.signal.rendezvous.cli import main
from tests.controller.logs import log_restored


@pytest.fixture(autouse=True)
def log() -> Iterator[None]:
    """Put the log back that ``main`` sets up."""
    with log_restored():
        yield


KEY = NetworkKeys.derive("lab", "x").membership_key.hex()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--listen", "127.0.0.1:port"],
        ["--listen", "::1:8765"],
        ["--stun", "127.0.0.1:99999"],
        ["--network", "lab"],
        ["--network", "lab=abc"],
        ["--network", "=" + KEY],
        ["--network", "n" * 65 + "=" + KEY],
        ["--network", "lab=" + "\N{ARABIC-INDIC DIGIT ONE}" * 64],
        ["--nonsense"],
        ["--listen"],
        ["two\nlines"],
    ],
)
def test_bad_arguments_are_one_line_and_status_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"rendezvous: [^\n]+\n", captured.err)


def test_what_the_system_refuses_is_one_line_and_status_1(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["--listen", f"127.0.0.1:{port}", "--stun", "off"]) == 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert main(["--listen", "127.0.0.1:0", "--stun", f"127.0.0.1:{port}"]) == 1
    error = capsys.readouterr().err
    assert re.fullmatch(r"(rendezvous: [^\n]+in use[^\n]+\n){2}", error)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_serves_and_leaves_cleanly(number: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "controller.signal.rendezvous.cli"),
        *("--listen", "127.0.0.1:0", "--stun", "[::1]:0", "--network", f"lab={KEY}"),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(20):
            line = (await process.stderr.readline()).decode()
            found = re.search(r"tcp 127\.0\.0\.1:(\d+), STUN on udp \[::1\]:\d+", line)
            assert found, line
            # A connection that says nothing must not hold up the end.
            _, writer = await asyncio.open_connection("127.0.0.1", int(found[1]))
            process.send_signal(number)
            began = asyncio.get_running_loop().time()
            rest = (await process.stderr.read()).decode()
            assert await process.wait() == 0
            assert asyncio.get_running_loop().time() - began < 5
            assert "Traceback" not in rest
            writer.close()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def test_prints_the_membership_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = NetworkKeys.derive("lab", "hunter2").membership_key.hex() + "\n"
    file = tmp_path / "secret"
    file.write_text("hunter2\n")
    assert main(["membership-key", "--network", "lab", "--secret-file", str(file)]) == 0
    assert capsys.readouterr().out == wanted
    monkeypatch.setattr("sys.stdin", io.StringIO("hunter2"))
    assert main(["membership-key", "--network", "lab"]) == 0
    assert capsys.readouterr().out == wanted


def test_refuses_a_secret_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n")
    assert main(["membership-key", "--network", "lab", "--secret-file", str(empty)]) == 1
    assert (
        main(["membership-key", "--network", "lab", "--secret-file", str(tmp_path / "none")]) == 1
    )
    assert capsys.readouterr().err.count("\n") == 2
