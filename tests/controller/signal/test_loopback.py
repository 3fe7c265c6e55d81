"""Rendezvous and nodes over real websockets on the loopback."""

import asyncio
import datetime
import ipaddress
import json
import logging
import socket
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from controller.config.endpoint import Endpoint
from controller.errors import SystemRefusal
from controller.signal.events import Absent, Refused, SignalConnected, SignalLost
from controller.signal.rendezvous import server as rendezvous_module
from controller.signal.rendezvous.quota import Limits
from controller.signal.rendezvous.registry import Registry
from controller.signal.rendezvous.server import Rendezvous
from controller.signal.sealing import MAX_PAYLOAD_BYTES
from controller.signal.websocket import client, transport
from controller.signal.websocket.messages import (
    Challenge,
    decode_from_rendezvous,
    encode,
)
from controller.signal.websocket.proof import join
from tests.controller.signal.loopback import LiveNode, Wire, eventually, rendezvous, running
from tests.controller.signal.memory import KEYS, OTHER_SECRET
from tincan.crypto.primitives import PrivateKey


async def raw(url: str) -> ClientConnection:
    return await connect(url, proxy=None, compression=None, ping_interval=None)


async def end_of(connection: ClientConnection) -> int | None:
    """Read to the end of the connection; return the code with which the server closed it."""
    try:
        while True:
            await connection.recv()
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd is not None else None


async def raw_member(url: str, private: PrivateKey | None = None) -> ClientConnection:
    """A member that follows the protocol by hand, with no card that anybody would open."""
    connection = await raw(url)
    challenge = decode_from_rendezvous(await connection.recv(decode=False))
    assert isinstance(challenge, Challenge)
    answer = join(challenge, KEYS, private or PrivateKey.generate(), b"s" * 16, b"")
    await connection.send(encode(answer), text=True)
    assert json.loads(await connection.recv())["m"] == "members"
    return connection


# What it is for


@pytest.mark.parametrize(
    ("listen", "clients"),
    [("127.0.0.1", ["127.0.0.1"]), ("::1", ["[::1]"]), ("", ["127.0.0.1", "[::1]", "localhost"])],
)
async def test_presence_and_messages(listen: str, clients: list[str]) -> None:
    async with rendezvous(host=listen) as server:
        nodes = [LiveNode(f"ws://{host}:{server.port}", host) for host in [*clients, clients[-1]]]
        async with running(*nodes):
            a, *_, b = nodes
            await eventually(lambda: all(len(n.client.peers) == len(nodes) - 1 for n in nodes))
            assert a.events[0] == SignalConnected()
            assert a.client.peers[b.id] == clients[-1]
            assert a.client.send(b.id, b"offer")
            assert b.client.send(a.id, bytes(MAX_PAYLOAD_BYTES))
            await eventually(lambda: a.payloads == [bytes(MAX_PAYLOAD_BYTES)])
            await eventually(lambda: b.payloads == [b"offer"])
            assert server.members == {"lab": len(nodes)}
            assert a.client.state.error is None
        await eventually(lambda: not server.members)
        assert a.events[-1] == SignalLost()
        assert not a.client.send(b.id, b"too late")


async def test_a_member_that_leaves_is_absent() -> None:
    async with rendezvous() as server:
        a, b = LiveNode(server.url, "a"), LiveNode(server.url, "b")
        async with running(a):
            async with running(b):
                await eventually(lambda: a.sees(b))
            await eventually(lambda: a.events[-1] == Absent(b.id))


async def test_nothing_is_left_behind() -> None:
    before = asyncio.all_tasks()
    async with (
        rendezvous() as server,
        running(LiveNode(server.url, "a"), LiveNode(server.url, "b")),
    ):
        await eventually(lambda: server.members == {"lab": 2})
    assert asyncio.all_tasks() == before


async def test_a_fault_of_the_application_is_not_swallowed() -> None:
    async with rendezvous() as server:
        node = LiveNode(server.url, "a")

        def fail(event: object) -> None:
            if event == SignalConnected():
                raise KeyError(event)

        node.client._on_event = fail
        with pytest.raises(ExceptionGroup):
            await node.client.run()


async def test_a_fault_of_ours_ends_one_connection_and_is_not_silent(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rendezvous() as server:
        node = LiveNode(server.url, "a")
        async with running(node):
            await eventually(lambda: node.connected)
            with monkeypatch.context() as patch:
                patch.delattr(Registry, "received")
                connection = await raw(server.url)
                await connection.send("anything")
                assert await end_of(connection) == 1000
            assert [r.name for r in caplog.records if r.exc_info] == [rendezvous_module.__name__]
            assert node.connected


async def test_wss(tmp_path: Path) -> None:
    server_context, client_context = certificate(tmp_path)
    async with rendezvous() as server, Wire(server.port, server_context) as wire:
        url = f"wss://127.0.0.1:{wire.port}"
        trusting, default = LiveNode(url, "a", tls=client_context), LiveNode(url, "b")
        async with running(trusting, default):
            await eventually(lambda: trusting.connected)
            await eventually(lambda: default.client.state.error)
            assert str(default.client.state.error).startswith("TLS: self-signed certificate")


async def test_no_proxy_whatever_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "socks_proxy", "ws_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with rendezvous() as server:
        node = LiveNode(server.url, "a")
        async with running(node):
            await eventually(lambda: node.connected)


# Coming and going


async def test_nodes_wait_for_a_late_rendezvous() -> None:
    async with rendezvous() as server:
        port = server.port
    a, b = (LiveNode(f"ws://127.0.0.1:{port}", name) for name in "ab")
    async with running(a, b):
        await eventually(lambda: a.client.state.error == "Connection refused")
        await asyncio.sleep(0.5)
        async with rendezvous(port):
            await eventually(lambda: a.sees(b) and b.sees(a))


async def test_nodes_return_after_a_restart(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with rendezvous() as server:
        port = server.port
        a, b = LiveNode(server.url, "a", pace=0.2), LiveNode(server.url, "b", pace=0.2)
        async with running(a, b):
            await eventually(lambda: a.sees(b) and b.sees(a))
            await server.__aexit__(None, None, None)
            await eventually(lambda: not a.connected and not b.connected)
            assert SignalLost() in a.events
            assert a.sees(b)  # still believed
            await asyncio.sleep(0.3)  # several tries
            async with rendezvous(port):
                await eventually(lambda: a.connected and b.connected)
                await eventually(lambda: a.client.send(b.id, b"again"))
                await eventually(lambda: b"again" in b.payloads)
    refused = [r for r in caplog.records if "Connection refused" in r.getMessage()]
    assert len(refused) == 2  # one line each, however many tries


async def test_a_dead_rendezvous_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "PING_INTERVAL_S", 0.1)
    monkeypatch.setattr(transport, "PING_TIMEOUT_S", 0.3)
    monkeypatch.setattr(transport, "CLOSE_TIMEOUT_S", 0.1)
    async with rendezvous() as server, Wire(server.port) as wire:
        node = LiveNode(f"ws://127.0.0.1:{wire.port}", "a")
        async with running(node):
            await eventually(lambda: node.connected)
            wire.cut()
            await eventually(lambda: not node.connected)
            await eventually(lambda: server.members == {})  # and the dead node likewise
            wire.mend()
            await eventually(lambda: node.connected)


def test_the_dead_are_noticed_within_15_seconds() -> None:
    assert transport.PING_INTERVAL_S + transport.PING_TIMEOUT_S + transport.CLOSE_TIMEOUT_S <= 15


async def test_a_change_of_the_network_checks_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport, "PING_INTERVAL_S", 1000.0)
    monkeypatch.setattr(client, "PROBE_TIMEOUT_S", 0.2)
    monkeypatch.setattr(transport, "CLOSE_TIMEOUT_S", 0.1)
    async with rendezvous() as server, Wire(server.port) as wire:
        node = LiveNode(f"ws://127.0.0.1:{wire.port}", "a")
        async with running(node):
            await eventually(lambda: node.connected)
            node.client.network_changed()  # the connection is well: nothing happens
            await asyncio.sleep(0.1)
            assert node.events == [SignalConnected()]
            wire.cut()
            node.client.network_changed()
            await eventually(lambda: not node.connected)


async def test_a_change_of_the_network_ends_the_wait() -> None:
    async with rendezvous() as server:
        good, bad = LiveNode(server.url, "a"), LiveNode(server.url, "b", keys=OTHER_SECRET)
        async with running(good):
            await eventually(lambda: good.connected)
            async with running(bad):
                await eventually(lambda: bad.events == [Refused("wrong secret")])
                bad.client.network_changed()
                await eventually(lambda: bad.events == [Refused("wrong secret")] * 2)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("ws://no-such-host.invalid:1", "cannot resolve the host name"),
        ("ws://127.0.0.1:1", "Connection refused"),
        ("ws://localhost:1", "Connection refused"),
        ("http://127.0.0.1:1", "not a ws:// or wss:// URL"),
        ("ws://" + "x" * 70 + ".invalid", ""),
        ("", "not a ws:// or wss:// URL"),
    ],
)
async def test_what_cannot_be_reached_is_one_line_once(
    url: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    node = LiveNode(url, "a", pace=0.1)
    async with running(node):
        await eventually(lambda: node.client.counters["signal_connection_failures"] >= 2)
    error = node.client.state.error
    assert error is not None
    assert text in error
    assert "\n" not in error
    assert len(caplog.records) == 1


# Refusals


async def test_wrong_secret_is_told_once_and_not_tried_in_a_hurry(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with rendezvous() as server:
        good, bad = LiveNode(server.url, "a"), LiveNode(server.url, "b", keys=OTHER_SECRET)
        async with running(good):
            await eventually(lambda: good.connected)
            async with running(bad):
                await eventually(lambda: bad.client.state.error)
                await asyncio.sleep(0.7)
            assert bad.events == [Refused("wrong secret")]
            assert not bad.connected
            assert "wrong secret" in str(bad.client.state.error)
            assert server.counters["signal_refused.wrong_secret"] == 1
            assert good.sees()
    assert len([r for r in caplog.records if "wrong secret" in r.getMessage()]) == 1


async def test_an_embedded_rendezvous_serves_its_own_network_only() -> None:
    networks = {"lab": KEYS.membership_key}
    async with Rendezvous(
        Endpoint("127.0.0.1", 0), Endpoint("127.0.0.1", 0), networks=networks
    ) as server:
        good, bad = LiveNode(server.url, "a"), LiveNode(server.url, "b", keys=OTHER_SECRET)
        async with running(bad, good):
            await eventually(lambda: good.connected and bad.events)
            assert bad.events == [Refused("wrong secret")]
        assert server.stun_port


async def test_a_copied_key_does_not_make_two_nodes_fight() -> None:
    async with rendezvous() as server:
        first, second = (
            LiveNode(server.url, "a", private=private) for private in [PrivateKey.generate()] * 2
        )
        witness = LiveNode(server.url, "w")
        async with running(witness, first):
            await eventually(lambda: witness.sees(first))
            async with running(second):
                await eventually(lambda: second.connected)
                await eventually(lambda: Refused("replaced") in first.events)
                await asyncio.sleep(0.5)
                assert second.connected
                assert not first.connected
                assert "this node's key" in str(first.client.state.error)
            assert len(set(witness.sessions_of(first))) == 2


async def test_too_many_connections_of_one_address() -> None:
    async with rendezvous(limits=Limits(connections_per_address=2)) as server:
        nodes = [LiveNode(server.url, name) for name in "abc"]
        async with running(*nodes):
            await eventually(lambda: sum(n.connected for n in nodes) == 2)
            (late,) = (n for n in nodes if not n.connected)
            await eventually(lambda: late.client.state.error)
            assert "HTTP 429 too many connections from your address" in str(late.client.state.error)
            assert server.counters["signal_refused.quota"] >= 1


async def test_too_many_connections_in_all_are_cut() -> None:
    async with (
        rendezvous(limits=Limits(connections=1)) as server,
        running(LiveNode(server.url, "a")),
    ):
        await eventually(lambda: server.members)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        assert await reader.read() == b""
        writer.close()
        assert server.counters["signal_dropped.quota"] == 1


async def test_who_sends_too_fast_is_slowed_down_not_dropped() -> None:
    limits = Limits(tokens_per_second=500, tokens_burst=50)
    async with rendezvous(limits=limits) as server:
        a, b = LiveNode(server.url, "a"), LiveNode(server.url, "b")
        async with running(a, b):
            await eventually(lambda: a.sees(b) and b.sees(a))
            began = asyncio.get_running_loop().time()
            payloads = [b"%1000d" % number for number in range(200)]
            for payload in payloads:
                assert a.client.send(b.id, payload)
            await eventually(lambda: len(b.payloads) == len(payloads))
            assert asyncio.get_running_loop().time() - began > 0.4
            assert b.payloads == payloads


async def test_a_slow_reader_is_dropped_and_others_are_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport, "QUEUE_BYTES", 256 * 1024)
    limits = Limits(tokens_per_second=1e6, tokens_burst=1e6)
    async with rendezvous(limits=limits) as server:
        victim = PrivateKey.generate()
        # A reader that pauses: its buffers and the kernel's fill up, then the server's queue.
        slow = await raw_member(server.url, victim)
        slow.transport.pause_reading()
        sender = await raw_member(server.url)
        a, b = LiveNode(server.url, "a"), LiveNode(server.url, "b")
        async with running(a, b):
            await eventually(lambda: a.sees(b) and b.sees(a))
            message = json.dumps({"m": "send", "to": victim.public.hex(), "body": "A" * 40_000})
            for _ in range(500):
                await sender.send(message)
                if server.counters["signal_dropped.slow_reader"]:
                    break
            await eventually(lambda: server.members == {"lab": 3})
            assert server.counters["signal_dropped.slow_reader"] == 1
            assert a.client.send(b.id, b"unharmed")
            await eventually(lambda: b.payloads == [b"unharmed"])
        await sender.close()
        slow.transport.abort()


async def test_pings_of_somebody_who_does_not_read_do_not_pile_up() -> None:
    limits = Limits(tokens_per_second=1e6, tokens_burst=1e6)
    async with rendezvous(limits=limits) as server:
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", server.port))
            await loop.sock_sendall(
                sock,
                b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + b"A" * 22 + b"==\r\n\r\n",
            )
            await eventually(lambda: server._channels)
            ping = b"\x89\xfd" + bytes(4) + bytes(125)
            try:
                async with asyncio.timeout(0.5):
                    for _ in range(100):
                        await loop.sock_sendall(sock, ping * 1000)
            except TimeoutError:
                pass
            else:
                pytest.fail("the server read 13 MB of pings and had nobody to answer")
            (connection,) = server._listener._connections
            assert connection.transport.get_write_buffer_size() < 512 * 1024


# Strangers


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00" * 1000,
        b"\x16\x03\x01\x02\x00\x01\x00",  # a TLS client
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 1000,
        b"GET /" + b"a" * 100_000,
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
    ],
)
async def test_garbage_instead_of_a_websocket(
    garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with rendezvous() as server:
        node = LiveNode(server.url, "a")
        async with running(node):
            await eventually(lambda: node.connected)
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(garbage)
            writer.write_eof()
            try:
                async with asyncio.timeout(5):
                    await reader.read()
            except ConnectionResetError:
                pass
            writer.close()
            assert node.connected
            await eventually(lambda: server._gate.connections == 1)
    assert not [r for r in caplog.records if r.exc_info]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("nonsense", 1000),
        (b"\xff\x00", 1000),
        ("[" * 60_000, 1000),
        ("9" * 5000, 1000),
        ('{"m":"left","id":"' + "0" * 64 + '"}', 1000),
        ("x" * 70_000, 1009),
    ],
)
async def test_garbage_in_a_websocket(message: str | bytes, code: int) -> None:
    async with rendezvous() as server:
        for connection in (await raw(server.url), await raw_member(server.url)):
            await connection.send(message)
            assert await end_of(connection) == code
        await eventually(lambda: not server.members)


async def test_a_silent_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous_module, "JOIN_TIMEOUT_S", 0.1)
    async with rendezvous() as server:
        assert await end_of(await raw(server.url)) == 1000
        assert server.counters["signal_refused.silent"] == 1


async def test_a_page_in_a_browser_is_refused() -> None:
    async with rendezvous() as server:
        with pytest.raises(Exception, match="403"):
            await connect(server.url, proxy=None, origin="https://example.com")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "speech", [b"HTTP/1.1 200 OK\r\n\r\n", b"\x00" * 2000, b"SSH-2.0-OpenSSH\r\n", b""]
)
async def test_a_server_that_is_no_rendezvous(
    speech: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(speech)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        node = LiveNode(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", "a", pace=0.1)
        async with running(node):
            await eventually(lambda: node.client.counters["signal_connection_failures"] >= 2)
        assert node.client.state.error
        assert "\n" not in node.client.state.error
        assert len(caplog.records) == 1


def certificate(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of a server with a self-signed certificate and of a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, SHA256())
    )
    chain, secret = folder / "cert.pem", folder / "key.pem"
    chain.write_bytes(made.public_bytes(Encoding.PEM))
    secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain, secret)
    return server, ssl.create_default_context(cafile=str(chain))


async def test_a_controller_serves_although_somebody_answers_stun_already() -> None:
    """Two overlays on one host, or coturn beside one: there is one port 3478."""
    anywhere = Endpoint.parse("127.0.0.1:0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        taken = Endpoint("127.0.0.1", other.getsockname()[1])
        async with Rendezvous(anywhere, taken, need_stun=False) as rendezvous:
            assert rendezvous.stun_port is None
            assert "STUN" not in rendezvous.describe()
        with pytest.raises(SystemRefusal):
            async with Rendezvous(anywhere, taken):
                pass
