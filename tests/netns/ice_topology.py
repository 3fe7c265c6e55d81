"""Hosts behind NAT routers on one public segment, in network namespaces.

    ice-hostA, ice-hostC - natA -+- natB - ice-hostB        192.168.7.0/24 behind both
                                 |
                               public (198.51.100.10, 2001:db8::10: coturn, which is STUN too)

The routers let nothing new in from outside. The NAT is easy (nftables' masquerade) for hosts
below .50 and hard (masquerade random) from there on. Over IPv6 there is only the firewall.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PREFIX = f"ice{os.getpid() % 100000}"
PUBLIC, PUBLIC6 = "198.51.100.10", "2001:db8::10"
TURN_PORT, TLS_PORT = 3478, 5349
USER, PASSWORD = "tester", "secret"

needs_netns = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("ip", "nft", "turnserver", "openssl"))),
    reason="needs root, iproute2, nftables, coturn and openssl",
)


def space(name: str) -> str:
    """Return the full name of a namespace."""
    return f"{PREFIX}-{name}"


def run(name: str, script: str) -> str:
    """Run a shell script in a namespace; fails with its output."""
    command = ["ip", "netns", "exec", space(name), "sh", "-ec", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, f"{name}: {script}\n{done.stdout}{done.stderr}"
    return done.stdout


def _namespace(name: str) -> None:
    subprocess.run(["ip", "netns", "add", space(name)], check=True)
    run(name, "ip link set lo up")


def _plug(name: str, interface: str, network: str, *addresses: str) -> None:
    """Give a namespace an interface on the bridge of a network's namespace."""
    run(
        network,
        f"ip link add {name} type veth peer name {interface} netns {space(name)};"
        f"ip link set {name} master br0 up",
    )
    steps = [f"ip link set {interface} up"]
    steps += [f"ip addr add {address} dev {interface} nodad" for address in addresses]
    run(name, ";".join(steps))


def _bridge(name: str, *addresses: str) -> None:
    run(
        name,
        "ip link add br0 type bridge mcast_snooping 0; ip link set br0 up;"
        "for key in /proc/sys/net/bridge/bridge-nf-call-*; do"
        " [ ! -e $key ] || echo 0 > $key; done;"
        + ";".join(f"ip addr add {address} dev br0 nodad" for address in addresses),
    )


def _router(name: str, number: int) -> None:
    """A router at 198.51.100.NUMBER; hosts .50 and above behind it have a hard NAT."""
    _namespace(name)
    _plug(name, "wan", "public", f"198.51.100.{number}/24", f"2001:db8::{number}/64")
    _bridge(name, "192.168.7.1/24", f"2001:db8:{number}::1/64")
    run(
        name,
        textwrap.dedent("""
        echo 1 > /proc/sys/net/ipv4/ip_forward
        echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
        ip route add default via 198.51.100.254
        ip -6 route add default via 2001:db8::fe
        nft -f - <<END
        table ip nat {
            chain post {
                type nat hook postrouting priority srcnat
                oifname wan ip saddr 192.168.7.50-192.168.7.99 masquerade random
                oifname wan masquerade
            }
        }
        table inet firewall {
            chain input { type filter hook input priority 0; iifname wan ct state new drop; }
            chain forward { type filter hook forward priority 0; iifname wan ct state new drop; }
        }
        END
        """),
    )
    run("public", f"ip -6 route add 2001:db8:{number}::/64 via 2001:db8::{number}")


def readdress(name: str, *addresses: str) -> None:
    """Give a host these addresses and no others; gateways are .1 and ::1."""
    steps = ["ip -4 addr flush dev eth0", "ip -6 addr flush dev eth0 scope global"]
    for address in addresses:
        steps.append(f"ip addr add {address} dev eth0 nodad")
        if ":" in address:
            gateway = address.split("::")[0] + "::1"
            steps.append(f"ip -6 route replace default via {gateway}")
        else:
            steps.append("ip route replace default via 192.168.7.1")
    run(name, ";".join(steps))


@contextlib.contextmanager
def topology() -> Iterator[Path]:
    """Build it, with coturn running, and take it away. Yield coturn's certificate."""
    names = ["public", "natA", "natB", "hostA", "hostB", "hostC"]
    coturn: subprocess.Popen[bytes] | None = None
    try:
        _namespace("public")
        # What is for no one on the segment is dropped in silence: coturn closes a whole
        # allocation on ENETUNREACH.
        _bridge("public", "198.51.100.254/24", f"{PUBLIC}/24", "2001:db8::fe/64", f"{PUBLIC6}/64")
        run(
            "public",
            "ip link add void type veth peer name hole; ip link set void up; ip link set hole up;"
            "ip neigh add 198.51.100.253 lladdr 02:00:00:00:00:01 dev void;"
            "ip route add default via 198.51.100.253 dev void onlink;"
            "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding;"
            "ip neigh add fe80::1 lladdr 02:00:00:00:00:01 dev void;"
            "ip -6 route add default via fe80::1 dev void",
        )
        _router("natA", 1)
        _router("natB", 2)
        for name, router in (("hostA", "natA"), ("hostB", "natB"), ("hostC", "natA")):
            _namespace(name)
            _plug(name, "eth0", router)
        with tempfile.TemporaryDirectory() as directory:
            certificate = _certificate(Path(directory))
            coturn = _start_coturn(certificate)
            yield certificate
    finally:
        if coturn is not None:
            coturn.kill()
            coturn.wait()
        for name in names:
            subprocess.run(["ip", "netns", "del", space(name)], capture_output=True, check=False)


def _certificate(directory: Path) -> Path:
    """Return a self-signed certificate for PUBLIC; its key is beside it."""
    certificate = directory / "cert.pem"
    command = (
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
        f" -subj /CN=turn -addext subjectAltName=IP:{PUBLIC} -keyout {directory / 'key.pem'}"
        f" -out {certificate}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    return certificate


def _start_coturn(certificate: Path) -> "subprocess.Popen[bytes]":
    options = (
        f"--listening-port={TURN_PORT} --listening-ip={PUBLIC} --listening-ip={PUBLIC6}"
        f" --relay-ip={PUBLIC} --relay-ip={PUBLIC6} --lt-cred-mech --user={USER}:{PASSWORD}"
        " --realm=test --no-dtls --no-cli --log-file=stdout --no-stdout-log"
        f" --tls-listening-port={TLS_PORT} --cert={certificate}"
        f" --pkey={certificate.with_name('key.pem')}"
        # In real life 300 and 600 s; long enough for all tests but that of the refresh.
        " --permission-lifetime=3 --channel-lifetime=3"
        f" --pidfile=/run/{PREFIX}.pid --userdb=/run/{PREFIX}.db -n --fingerprint"
    )
    command = ["ip", "netns", "exec", space("public"), "turnserver", *options.split()]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    while not run("public", f"ss -Hlun sport = {TURN_PORT}").strip():
        assert process.poll() is None, "turnserver ended"
        assert time.monotonic() < deadline, "turnserver does not listen"
        time.sleep(0.05)
    for leftover in (f"/run/{PREFIX}.pid", f"/run/{PREFIX}.db"):
        Path(leftover).unlink(missing_ok=True)
    return process
