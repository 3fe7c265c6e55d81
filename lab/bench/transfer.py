"""A large file of random bytes over TCP, and its SHA-256 at both ends.

    python -m lab.bench.transfer receive PORT
    python -m lab.bench.transfer send ADDRESS PORT MEBIBYTES

Each prints one line of JSON when it ends; the receiver prints `"ready"` first.
"""

import hashlib
import json
import os
import socket
import sys

BLOCK = 1 << 20


def send(address: str, port: int, mebibytes: int) -> tuple[int, str]:
    """Send; (bytes, digest)."""
    digest = hashlib.sha256()
    with socket.create_connection((address, port), timeout=10) as sock:
        for _ in range(mebibytes):
            block = os.urandom(BLOCK)
            digest.update(block)
            sock.sendall(block)
    return mebibytes * BLOCK, digest.hexdigest()


def receive(port: int) -> tuple[int, str]:
    """Receive one file; (bytes, digest)."""
    digest = hashlib.sha256()
    octets = 0
    with socket.create_server(("", port)) as server:
        print(json.dumps("ready"), flush=True)
        server.settimeout(15)
        sock, _ = server.accept()
    with sock:
        sock.settimeout(15)
        while data := sock.recv(BLOCK):
            digest.update(data)
            octets += len(data)
    return octets, digest.hexdigest()


def main() -> None:
    verb, *rest = sys.argv[1:]
    if verb == "send":
        address, port, mebibytes = rest
        result = send(address, int(port), int(mebibytes))
    else:
        result = receive(int(rest[0]))
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
