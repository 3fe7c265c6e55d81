"""Strangers on the network, and members that lie: counters move, nothing else does.

A third host of the LAN sends whatever it likes to the very sockets that carry a link, from its own
address and from the peer's; and a host whose controller is ours to play says what no controller
would.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from lab import Container, Lab, wait_until
from lab.capture import Frame
from lab.layouts import Hosts, build
from tests.netns.overlay import GATEWAY_MAC
from tests.netns.test_recovery import tincan
from tincan.control import messages as api
from tincan.control.codec import Raw, encode
from tincan.record.layout import HANDSHAKE_INIT, HANDSHAKE_RESPONSE, HEADER, RECORD, VERSION
from tincan.switching.table import MAX_LEARNED

GROWTH = 24 << 20  # bytes that a process may grow by: buffers for scattered batches, mostly
COOKIE = 0x2112A442
PRIORITY = 0x0024
LIAR = "02:77:00:00:00:01"
rng = random.Random(7)


class Siege:
    """Two hosts on one LAN, linked; a third to send from."""

    def __init__(self, lab: Lab) -> None:
        self.hosts: Hosts = build(lab, ["lan", "lan"])
        self.a, self.b = self.hosts.hosts
        self.c = self.hosts.server
        self.c5 = self.a.container("c5", "10.0.3.5/24")
        self.c7 = self.b.container("c7", "10.0.3.7/24")
        with self.b.capture("eth0", "udp and dst host 192.168.7.12") as frames:
            self.one, self.two = self.hosts.connect()
            assert self.c5.ping("10.0.3.7", 3).received
        self.recorded = [datagram(frame) for frame in frames.frames if datagram(frame)]
        self.ends()

    def link(self) -> dict[str, Any]:
        """What b says about its link."""
        (peer,) = self.two.ask("status")["peers"]
        found: dict[str, Any] = peer
        return found

    def ends(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """The addresses of the link's two sockets, a's and b's."""
        if self.one.running:
            (one,) = self.one.ask("status")["peers"]
            self._ours = address(one)
        return address(self.link()), self._ours

    def counters(self) -> dict[str, int]:
        """b's, flattened."""
        flat: dict[str, int] = {}
        for name, value in self.two.counters().items():
            if isinstance(value, dict):
                flat |= {f"{name}.{reason}": count for reason, count in value.items()}
            else:
                flat[name] = value
        return flat

    def memory(self) -> int:
        """Resident bytes of b's tincan and controller."""
        return sum(resident(pid) for pid in (tincan(self.b), self.two.pid))


def address(peer: dict[str, Any]) -> tuple[str, int]:
    host, _, port = peer["path"]["address"].rpartition(":")
    return host, int(port)


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def datagram(frame: Frame) -> bytes:
    """The UDP payload of a captured frame."""
    packet = Ether(frame.data)
    return bytes(packet[UDP].payload)[: packet[UDP].len - 8] if UDP in packet else b""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def siege(lab: Lab) -> Siege:
    return Siege(lab)


@contextlib.contextmanager
def unmoved(siege: Siege, *counters: str, logs: int = 0) -> Iterator[Callable[[], None]]:
    """Assert that meanwhile nothing but counters (one that begins with each of `counters`) moved.

    Yields something to call after each burst: it lets b catch up.
    """
    process, link, before = tincan(siege.b), siege.link(), siege.counters()
    ends = siege.ends()
    log, memory = len(siege.two.output().splitlines()), siege.memory()
    own_log = siege.b.path("/run/switchmode/lab/tincan.log").read_text()

    def settle() -> None:
        count = siege.counters()
        while True:
            time.sleep(0.1)
            last, count = count, siege.counters()
            if last == count:
                return

    yield settle
    settle()
    after = siege.counters()
    for name in counters:
        moved = sum(n - before.get(key, 0) for key, n in after.items() if key.startswith(name))
        assert moved > 0, (name, {k: n for k, n in after.items() if n != before.get(k, 0)})
    assert tincan(siege.b) == process
    assert siege.link()["state"] == link["state"] == "connected"
    assert siege.ends() == ends
    assert siege.memory() < memory + GROWTH
    assert len(siege.two.output().splitlines()) <= log + logs, siege.two.output()
    assert "ERROR" not in siege.two.output()
    assert siege.b.path("/run/switchmode/lab/tincan.log").read_text() == own_log
    assert siege.c5.ping("10.0.3.7", 2).received == 2


def sender(siege: Siege, spoofed: bool) -> Callable[[bytes], None]:
    """A function that sends a datagram to b's socket: from c, or as if from a's socket."""
    theirs, ours = siege.ends()
    if not spoofed:
        plain = siege.c.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)

        def send_plain(data: bytes) -> None:
            plain.sendto(data, ours)

        return send_plain
    raw = siege.c.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    numbers = itertools.count(1)

    def send(data: bytes) -> None:
        payload = struct.pack(">HHHH", theirs[1], ours[1], 8 + len(data), 0) + data
        number = next(numbers) & 0xFFFF
        for start in range(0, len(payload), 1480):  # a raw socket does not fragment for us
            more = "MF" if start + 1480 < len(payload) else ""
            head = IP(src=theirs[0], dst=ours[0], proto=17, id=number, flags=more, frag=start // 8)
            raw.sendto(bytes(head / payload[start : start + 1480]), (ours[0], 0))

    return send


def paced(send: Callable[[bytes], None], datagrams: list[bytes]) -> None:
    """Send, a bit at a time: what the kernel's buffer drops proves nothing."""
    for number, data in enumerate(datagrams):
        send(data)
        if number % 64 == 63:
            time.sleep(0.002)


SPOOFED = pytest.mark.parametrize("spoofed", [False, True], ids=["stranger", "spoofed"])


@SPOOFED
def test_garbage(siege: Siege, spoofed: bool) -> None:
    """Every first byte, every length up to some headers, and large ones."""
    datagrams = [bytes([first]) + rng.randbytes(63) for first in range(256)] * 4
    datagrams += [rng.randbytes(size) for size in range(1, 120)] * 4
    datagrams += [bytes([RECORD]) + rng.randbytes(size) for size in (1499, 9000, 60000, 65506)]
    datagrams += [rng.randbytes(65507) for _ in range(20)]
    with unmoved(siege, "datagrams_dropped.unknown_type", "datagrams_dropped.truncated"):
        paced(sender(siege, spoofed), datagrams)


@SPOOFED
def test_replayed(siege: Siege, spoofed: bool) -> None:
    """What really crossed, handshake included: as it was, cut short, longer, bits flipped."""
    genuine = [data for data in siege.recorded if data[0] >= 0x80]
    kinds = {data[0] for data in genuine}
    assert RECORD in kinds
    assert kinds & {HANDSHAKE_INIT, HANDSHAKE_RESPONSE}
    datagrams = genuine * 3
    for data in genuine[:40]:
        datagrams += [data[:size] for size in (1, 15, 16, 17, 31, 32, 33, len(data) - 1)]
        datagrams.append(data + b"\0")
        for _ in range(8):
            at = rng.randrange(len(data))
            datagrams.append(data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :])
    frames = siege.link()["rx_frames"]
    with unmoved(siege, "datagrams_dropped.truncated", "handshakes_dropped"):
        paced(sender(siege, spoofed), datagrams)
        assert siege.link()["rx_frames"] <= frames + 4


def stun(kind: int, attributes: bytes, *, cookie: int = COOKIE, length: int | None = None) -> bytes:
    size = len(attributes) if length is None else length
    return struct.pack(">HHI", kind, size, cookie) + rng.randbytes(12) + attributes


@SPOOFED
def test_stun(siege: Siege, spoofed: bool) -> None:
    """The 24 bytes that make aioice raise, what looks like STUN and is not, and what is."""
    empty_priority = struct.pack(">HH", PRIORITY, 0)
    datagrams = [stun(kind, empty_priority) for kind in (0x0001, 0x0101, 0x0111, 0x0011)]
    assert len(datagrams[0]) == 24
    datagrams += [stun(1, b"", cookie=1), stun(1, b"", length=400), stun(1, b"\0" * 3)]
    datagrams += [bytes([n]) + rng.randbytes(700) for n in range(4)]
    datagrams += [
        stun(1, struct.pack(">HH", rng.randrange(0x40), size) + rng.randbytes(12), length=16)
        for size in (0, 1, 3, 4, 8, 12, 13, 0xFFFF)
        for _ in range(8)
    ]
    user = struct.pack(">HH", 6, 8) + b"nobody:a" + struct.pack(">HHI", PRIORITY, 4, 1)
    datagrams += [stun(1, user) for _ in range(500)]
    with unmoved(siege, "datagrams_dropped.not_stun"):
        paced(sender(siege, spoofed), datagrams)


@SPOOFED
def test_handshake_flood(siege: Siege, spoofed: bool) -> None:
    """Inits of strangers, and a member's own one again and again."""
    genuine = [data for data in siege.recorded if data[0] == HANDSHAKE_INIT]
    sized = len(genuine[0]) if genuine else 180
    head = HEADER.pack(HANDSHAKE_INIT, 0, 1, VERSION, 77, 0)
    datagrams = [head + rng.randbytes(sized - 16) for _ in range(6000)]
    datagrams += (genuine * 6000)[:6000]
    with unmoved(siege, "handshakes_dropped"):
        paced(sender(siege, spoofed), datagrams)
        assert siege.c5.ping("10.0.3.7", 3, interval=0.05).received == 3


@SPOOFED
def test_endless_records(siege: Siege, spoofed: bool) -> None:
    """First fragments of many records that never get their rest, under the link's own index."""
    index = next(
        HEADER.unpack_from(data)[4] for data in reversed(siege.recorded) if data[0] == RECORD
    )
    datagrams = [
        HEADER.pack(RECORD, fragment, 255, VERSION, index, (1 << 40) + record) + bytes(1400)
        for record in range(600)
        for fragment in (0, 1, 250)
    ]
    with unmoved(siege, "records_dropped.incomplete"):
        paced(sender(siege, spoofed), datagrams)


def test_no_answer_to_strangers(siege: Siege) -> None:
    """A port that a stranger finds says nothing, to nobody."""
    _, ours = siege.ends()
    with siege.c.socket() as sock:
        for data in (b"\x81" + rng.randbytes(180), rng.randbytes(64), stun(1, b""), b"", b"\x80"):
            sock.sendto(data, ours)
        sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            sock.recv(100)


# --- members that lie


class Puppet:
    """a's tincan with us for its controller."""

    def __init__(self, siege: Siege) -> None:
        self.siege = siege
        siege.one.kill()
        self._peer = siege.two.ask("status")["node"]["id"]
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.connect(str(siege.a.path("/run/switchmode/lab/tincan.sock")))
        self._tell("hello", api.Hello(api.API_VERSION, "0"))

    def _tell(self, method: str, params: Any) -> None:
        self._socket.send(encode(api.Request(method, Raw(encode(params)))))

    def say(self, payload: bytes, channel: int = 30000) -> None:
        """Send `payload` to b's controller."""
        self._tell("icc", api.Icc(self._peer, channel, payload))
        time.sleep(0.0005)

    def close(self) -> None:
        self._socket.close()
        self.siege.one.start()
        self.siege.one.wait_connected(["b"], 30)


@pytest.fixture
def puppet(siege: Siege) -> Iterator[Puppet]:
    puppet = Puppet(siege)
    yield puppet
    puppet.close()
    wait_until(lambda: siege.two.connected() == {"a"}, 20, "connected")


def test_rpc_garbage(siege: Siege, puppet: Puppet) -> None:
    """From a peer that is authenticated: dropped by reason, nothing raised."""
    deep = b'{"m":"announce","entries":' + b"[" * 5000
    number = b'{"m":"probe","id":' + b"9" * 4301 + b',"ip":"10.0.3.7"}'
    with unmoved(siege, "rpc_dropped"):
        for payload in [b"", b"{}", b"\xff" * 100, b'{"m":"no_such"}', deep, number,
                        b'{"m":"announce","entries":[{"ip":"10.0.3.9","mac":"x","sequence":1}]}',
                        b" " * 16385, b"[" * 16000, b'{"m":1}', b"null"]:  # fmt: skip
            puppet.say(payload)
        puppet.say(b"{}", channel=9)
        for _ in range(300):
            puppet.say(rng.randbytes(rng.randrange(200)))


def claims(first: int, count: int) -> list[bytes]:
    """Announcements of `count` addresses, each with a MAC of its own."""
    messages = []
    for start in range(first, first + count, 90):
        entries = ",".join(
            f'{{"ip":"10.64.{n >> 8}.{n & 255}","mac":"02:77:00:00:{n >> 8:02x}:{n & 255:02x}",'
            '"sequence":1}'
            for n in range(start, min(start + 90, first + count))
        )
        messages.append(b'{"m":"announce","entries":[' + entries.encode() + b"]}")
    return messages


def test_too_many_bindings(siege: Siege, puppet: Puppet) -> None:
    """One peer's part of the table is bounded; said once."""
    before = siege.two.output().count("more addresses than there is room for")
    with unmoved(siege, "claims_refused.full", logs=3):  # gateways, too: a has just come back
        for message in claims(1, 12000):
            puppet.say(message)
    ips = {b["ip"] for b in siege.two.ask("bindings")["bindings"] if b["at"] != "local"}
    assert 4000 < len(ips) <= 4096
    assert siege.two.output().count("more addresses than there is room for") == before + 1


def test_others_addresses(siege: Siege, puppet: Puppet) -> None:
    """Claims to the host's own gateway, to a container of b's, to loopback and groups."""
    mine = siege.c7.mac
    with unmoved(siege, "claims_refused", logs=12):
        for ip, mac in (
            ("10.0.3.1", LIAR),
            ("10.0.3.7", LIAR),
            ("127.0.0.1", LIAR),
            ("224.0.0.1", LIAR),
            ("10.0.3.99", mine),
            ("10.0.3.98", GATEWAY_MAC),
        ):
            entry = f'{{"ip":"{ip}","mac":"{mac}","sequence":4294967295}}'
            puppet.say(b'{"m":"announce","entries":[%s]}' % entry.encode())
        time.sleep(1.5)
    bindings = {b["ip"]: b for b in siege.two.ask("bindings")["bindings"]}
    assert bindings["10.0.3.7"]["at"] == "local"
    assert bindings["10.0.3.7"]["mac"] == mine
    assert siege.c7.ping("10.0.3.1").received == 1


def frames_from(container: Container, target: str, macs: int) -> None:
    """Send one frame to `target` (a MAC) from each of `macs` addresses."""
    with container.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("eth0", 0))
        to = bytes.fromhex(target.replace(":", ""))
        packet = IP(src="10.0.3.5", dst="10.0.3.7") / UDP(sport=9, dport=9) / (b"x" * 40)
        body = b"\x08\x00" + bytes(packet)
        for number in range(macs):
            mac = b"\x02\x66" + number.to_bytes(4, "big")
            sock.send(to + mac + body)
            if number % 32 == 31:
                time.sleep(0.005)


def test_too_many_macs(siege: Siege) -> None:
    """Random source MACs behind one peer: learned up to the bound; said once; the rest floods."""
    log = siege.b.path("/run/switchmode/lab/tincan.log")
    frames_from(siege.c5, siege.c7.mac, 1500)
    wait_until(lambda: "macs_not_learned" in siege.counters(), 10, "the bound is met")
    learned = [e for e in siege.two.ask("status")["fdb"] if e["mac"].startswith("02:66")]
    assert 0 < len(learned) <= MAX_LEARNED
    assert all(entry["at"] == "a" for entry in learned)
    wait_until(lambda: "more MACs" in log.read_text(), 3, "said")
    frames_from(siege.c5, siege.c7.mac, 300)
    time.sleep(0.6)
    assert len(re.findall("more MACs", log.read_text())) == 1
    assert siege.c5.ping("10.0.3.7", 2).received == 2
