"""``controller metalbond``: what is wrong is one line, exit status 2."""

import signal
import subprocess
import sys
import time

import pytest

from controller.cli import main
from tests.controller.logs import log_restored

CASES = [
    ("client --announce 23#10.0.0.0/33#::1", "--announce 23#10.0.0.0/33#::1: 10.0.0.0/33 is not"),
    ("client --subscribe x", "--subscribe x: x is not a VNI; write 0 to 16777215"),
    ("client --subscribe 1,1", "--subscribe: 1 is there twice"),
    ("client --server ::1", "write an IPv6 address in brackets"),
    ("client --server host", "--server: 'host' has no port"),
    ("client --install-routes 23#100", "--tun: is missing"),
    ("client --install-routes 23 --tun t", "--install-routes 23: is not VNI#TABLE"),
    ("server --keepalive -3", "--keepalive"),
    ("server --listen nowhere", "--listen: 'nowhere' has no port"),
    ("server --http 1", "--http"),
    ("server --compatible 9", "invalid choice"),
    ("server --lis x", "unrecognized arguments"),
    ("", "required"),
    ("neither", "invalid choice"),
]


@pytest.mark.parametrize(("words", "told"), CASES)
def test_wrong_values(words: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metalbond", *words.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("controller metalbond")
    assert told in err


def test_no_tunnel_device_is_a_refusal(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["client", "--install-routes", "23#100", "--tun", "nosuchtun"]
    with log_restored():
        assert main(["metalbond", *words]) == 1
    assert "there is no tunnel device nosuchtun; ip link add" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order(number: signal.Signals) -> None:
    program = [sys.executable, "-m", "controller.cli", "metalbond", "server"]
    process = subprocess.Popen(
        [*program, "--listen", "[::1]:0", "--http", "[::1]:0", "-v"], stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    while b"showing routes" not in process.stderr.readline():
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(20) == 0
    assert b"Traceback" not in process.stderr.read()


def test_others_do_not_pay_for_it() -> None:
    code = "import sys, controller.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "controller.routes" not in done.stdout
    assert "google" not in done.stdout
