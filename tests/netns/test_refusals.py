"""What is refused at the start: one line that names the object and the cure, no traceback.

Exit status 2 for what the user has written, 1 for what the system says.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from lab import Host, Lab, wait_until
from lab.processes import console_script
from tests.netns.test_cleanup import same, snapshot, wait_settled

GOOD = {"network": "lab", "secret": "a secret for the lab only", "signal": "ws://192.168.7.250:1"}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def host(lab: Lab) -> Host:
    host = lab.host("a", lab.segment("lan", prefix4="192.168.7.0/24"))
    wait_settled(host)
    return host


def refused(
    host: Host, config: dict[str, Any] | str, *before: str, file: str = "/run/c.json"
) -> tuple[int, str]:
    """Run a controller that must not start; return its status and its one line."""
    text = config if isinstance(config, str) else json.dumps(config)
    host.path("/run/c.json").write_text(text)
    host.path("/run/c.json").chmod(0o600)
    was = snapshot(host)
    command = [*before, console_script("controller"), "--config", file]
    result = host.run(command, check=False, timeout=30)
    assert result.stdout == ""
    said = [line for line in result.stderr.splitlines() if " WARNING " not in line]
    assert len(said) == 1, result.stderr
    same(was, host)
    return result.returncode, said[0]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"bridges": "lxcbr0"}, ["bridges", "bridge"]),
        ({"tap": 5}, ["tap"]),
        ({"tap": "a-name-that-is-too-long"}, ["tap", "15"]),
        ({"secret": None}, ["secret"]),
        ({"signal": "http://rendezvous.example"}, ["signal", "ws://"]),
        ({"signal": "ws://"}, ["signal"]),
        ({"switchmode": 0}, ["switchmode"]),
        ("{", ["/run/c.json"]),
    ],
    ids=lambda value: str(value)[:30] if not isinstance(value, list) else "",
)
def test_configuration(host: Host, wrong: dict[str, Any] | str, said: list[str]) -> None:
    config = wrong if isinstance(wrong, str) else {**GOOD, **wrong}
    if isinstance(config, dict):
        config = {key: value for key, value in config.items() if value is not None}
    status, line = refused(host, config)
    assert status == 2, line
    for word in said:
        assert word in line


def test_no_such_file(host: Host) -> None:
    status, line = refused(host, GOOD, file="/run/nothing.json")
    assert status == 2
    assert "/run/nothing.json" in line


def test_unreadable_file(host: Host) -> None:
    """Root reads everything: as somebody else."""
    status, line = refused(host, GOOD, "setpriv", "--reuid=65534", "--clear-groups")
    assert status == 2
    assert "/run/c.json" in line


def test_tap_of_another_program(host: Host) -> None:
    host.run("ip tuntap add kept7 mode tap")
    holder = host.popen(["socat", "TUN,tun-name=held7,tun-type=tap", "PIPE"])
    wait_until(lambda: "held7" in host.interfaces(), 5, "a TAP that is in use")
    try:
        for name in ("kept7", "held7", "eth0", "lxcbr0"):
            status, line = refused(host, {**GOOD, "tap": name})
            assert status == 1, line
            assert name in line
            assert "choose another" in line
    finally:
        holder.kill()
        holder.wait()
        host.run("ip link del kept7")


def test_no_permission(host: Host) -> None:
    status, line = refused(host, GOOD, "setpriv", "--bounding-set=-net_admin", "--inh-caps=-all")
    assert status == 1
    assert "CAP_NET_ADMIN" in line
    assert "sudo" in line


def test_no_device(host: Host) -> None:
    """/dev/net/tun is not there, or must not be opened: a container's usual state."""
    command = ["unshare", "--mount", "sh", "-c"]
    hide = "mkdir -p /run/none; mount --bind /run/none /dev/net; exec "
    program = f"{console_script('controller')} --config /run/c.json"
    host.path("/run/c.json").write_text(json.dumps(GOOD))
    result = host.run([*command, hide + program], check=False, timeout=30)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1, result.stderr
    assert "/dev/net/tun does not exist" in result.stderr
    assert "modprobe" in result.stderr


def test_foreign_run_dir(host: Host) -> None:
    host.run("mkdir -p /run/theirs; chown 65534 /run/theirs")
    status, line = refused(host, {**GOOD, "run_dir": "/run/theirs"})
    assert status == 1
    assert "/run/theirs" in line
    assert "another user" in line


def test_not_a_bridge(host: Host) -> None:
    """Found only later, and may be mended meanwhile: a warning, and in `status`."""
    controller = host.controller({**GOOD, "bridge": "eth0"}, signal=GOOD["signal"])
    try:
        controller.wait_output("eth0 is not a Linux bridge", 20)
        assert any("eth0" in warning for warning in controller.ask("status")["warnings"])
    finally:
        assert controller.terminate() == 0


def test_wrong_secret(host: Host) -> None:
    """The rendezvous refuses; said once; knocked again ever more slowly."""
    server = host.rendezvous()
    right = host.controller()
    wait_until(lambda: "connected" in right.output(), 20, "the right one is in")
    wrong = host.controller(
        network="lab", secret="another secret", node="stranger", tap="ipop2",
        run_dir="/run/switchmode/wrong", state_dir="/var/lib/switchmode/wrong",
    )  # fmt: skip
    try:
        wrong.wait_output("wrong secret", 20)
        time.sleep(8)
        assert wrong.output().count("wrong secret") == 1
        assert wrong.ask("status")["signal"]["connected"] is False
        assert "wrong secret" in wrong.ask("status")["signal"]["error"]
        failures = wrong.counters()["signal_connection_failures"]
        assert 1 <= failures <= 3
        assert right.ask("status")["signal"]["connected"] is True
        assert server.output().count("\n") < 12, server.output()
        assert right.ask("status")["peers"] == []
    finally:
        assert wrong.terminate() == 0
        assert right.terminate() == 0
        server.terminate()
