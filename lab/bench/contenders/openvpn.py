"""OpenVPN 2.6, point to point over UDP, with a TAP in each bridge."""

import hashlib
import ssl

from lab.bench.contenders.contender import Contender
from lab.bench.topology import ADDRESSES

CIPHER = "AES-256-GCM"
SOCKET_BUFFER = 4 << 20


class OpenVpn(Contender):
    """Static keys cannot be used with AES-256-GCM; so TLS, each side pinned by fingerprint."""

    name = "openvpn"
    settings = (
        f"tap, UDP, {CIPHER}, TLS by peer-fingerprint, fast-io, sndbuf and rcvbuf 4 MiB, "
        "txqueuelen 1000, mssfix as by default, no compression, no DCO (not in this kernel)"
    )
    packages = ("openvpn", "openssl")

    def start(self) -> None:
        fingerprints = {}
        for site in self.pair.sites:
            site.run(
                "mkdir /run/openvpn; openssl req -x509 -newkey ec "
                "-pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
                f"-subj /CN={site.name} -keyout /run/openvpn/key -out /run/openvpn/crt"
            )
            der = ssl.PEM_cert_to_DER_cert(site.path("/run/openvpn/crt").read_text())
            fingerprints[site.name] = hashlib.sha256(der).digest().hex(":")
        for site, other in zip(self.pair.sites, reversed(self.pair.sites), strict=True):
            role = "--tls-server --dh none" if site.name == "left" else "--tls-client"
            options = (
                "--dev tap0 --dev-type tap --proto udp4 "
                f"--local {ADDRESSES[site.name]} --port 1194 --remote {ADDRESSES[other.name]} 1194 "
                f"{role} --cert /run/openvpn/crt --key /run/openvpn/key "
                f"--peer-fingerprint {fingerprints[other.name]} "
                f"--cipher {CIPHER} --data-ciphers {CIPHER} --keepalive 10 60 "
                f"--sndbuf {SOCKET_BUFFER} --rcvbuf {SOCKET_BUFFER} "
                "--txqueuelen 1000 --fast-io --verb 3"
            )
            site.start("openvpn", ["openvpn", *options.split()])
        for site in self.pair.sites:
            site.wait_interface("tap0")
            site.run(f"ip link set tap0 master {self.segment.bridge} up")
