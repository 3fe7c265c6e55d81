"""The STUN server against bytes, against aioice's client, and against strangers."""

import asyncio
import ipaddress
import socket
import struct
from collections import Counter
from typing import cast

import pytest
from aioice import stun
from hypothesis import given
from hypothesis import strategies as st

from controller.config.endpoint import Endpoint
from controller.signal.rendezvous.sockets import bind
from controller.signal.rendezvous.stun import MAX_REQUEST, StunServer, answer
from tests.controller.signal.loopback import eventually

COOKIE = bytes.fromhex("2112a442")
TRANSACTION = bytes.fromhex("b7e7a701bc34d686fa87dfae")  # RFC 5769 section 2
REQUEST = bytes.fromhex("00010000") + COOKIE + TRANSACTION
PEER = ("192.0.2.1", 32853)


def parsed(data: bytes | None) -> stun.Message:
    assert data is not None
    return stun.parse_message(data)


def test_vector_of_rfc_5769_ipv4() -> None:
    """Section 2.2: the address 192.0.2.1 port 32853 as its bytes."""
    assert answer(REQUEST, PEER) == (
        bytes.fromhex("0101000c") + COOKIE + TRANSACTION + bytes.fromhex("002000080001a147e112a643")
    )


def test_vector_of_rfc_5769_ipv6() -> None:
    """Section 2.3."""
    peer = ("2001:db8:1234:5678:11:2233:4455:6677", 32853)
    assert answer(REQUEST, peer) == (
        bytes.fromhex("01010018")
        + COOKIE
        + TRANSACTION
        + bytes.fromhex("002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9")
    )


def test_mapped_ipv4_is_told_as_ipv4() -> None:
    assert answer(REQUEST, ("::ffff:192.0.2.1", 32853)) == answer(REQUEST, PEER)


def test_fingerprint_is_checked_and_returned() -> None:
    request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
    request.add_fingerprint()
    data = bytes(request)
    response = parsed(answer(data, PEER))  # aioice checks the fingerprint
    assert response.attributes["XOR-MAPPED-ADDRESS"] == PEER
    assert "FINGERPRINT" in response.attributes
    assert answer(data[:-1] + bytes([data[-1] ^ 1]), PEER) is None


def test_attributes_that_must_be_understood() -> None:
    for count in (1, 2, 3, 9):
        attributes = b"".join(struct.pack(">HHI", 3 + n, 4, 0) for n in range(count))
        request = struct.pack(">HH", 1, len(attributes)) + COOKIE + TRANSACTION + attributes
        data = answer(request, PEER)
        assert data is not None
        assert data[:2] == b"\x01\x11"
        assert data[24:28] == bytes((0, 0, 4, 20))
        assert len(data) % 4 == 0
        assert len(data) <= 1.5 * len(request)


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        REQUEST[:19],
        REQUEST + b"\0",
        b"\x00\x11" + REQUEST[2:],  # an indication
        b"\x01\x01" + REQUEST[2:],  # a response
        b"\x00\x03" + REQUEST[2:],  # allocate
        REQUEST[:4] + b"\0\0\0\0" + REQUEST[8:],  # RFC 3489, without the cookie
        REQUEST[:2] + b"\x00\x04" + REQUEST[4:],  # too short for its length
        REQUEST[:2] + b"\x00\x04" + REQUEST[4:] + bytes.fromhex("80220004"),  # value missing
        REQUEST[:2] + b"\x00\x02" + REQUEST[4:] + b"\x80\x22",
        REQUEST[:2] + b"\x02\x00" + REQUEST[4:] + bytes.fromhex("802201fc") + bytes(508) + b"\0",
        b"\x80" * 40,
    ],
)
def test_silence(datagram: bytes) -> None:
    assert answer(datagram, PEER) is None


def test_a_source_that_is_no_address() -> None:
    assert answer(REQUEST, ("nonsense", 1)) is None


addresses = st.ip_addresses().map(str)


@given(st.binary(max_size=MAX_REQUEST + 10), addresses, st.integers(0, 65535))
def test_fuzz(datagram: bytes, host: str, port: int) -> None:
    answer(datagram, (host, port))


@given(st.binary(max_size=120), addresses, st.integers(1, 65535))
def test_fuzz_with_a_good_header(rest: bytes, host: str, port: int) -> None:
    request = struct.pack(">HH", 1, len(rest)) + COOKIE + TRANSACTION + rest
    data = answer(request, (host, port))
    if data is not None:
        assert len(data) <= 2.2 * len(request)


@given(addresses, st.integers(1, 65535), st.binary(min_size=12, max_size=12))
def test_any_address_comes_back(host: str, port: int, transaction: bytes) -> None:
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        host = str(address.ipv4_mapped)
    request = REQUEST[:8] + transaction
    response = parsed(answer(request, (host, port)))
    assert response.transaction_id == transaction
    found, found_port = response.attributes["XOR-MAPPED-ADDRESS"]
    assert (ipaddress.ip_address(found), found_port) == (ipaddress.ip_address(host), port)


class AioiceClient(asyncio.DatagramProtocol):
    """A socket that asks with aioice's transaction, as its gathering does."""

    def __init__(self) -> None:
        self.pending: dict[bytes, stun.Transaction] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        message = stun.parse_message(data)
        self.pending[message.transaction_id].response_received(message, addr)

    def send_stun(self, message: stun.Message, addr: tuple[str, int]) -> None:
        self.transport.sendto(bytes(message), addr)

    async def ask(self, server: tuple[str, int]) -> tuple[str, int]:
        request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
        transaction = stun.Transaction(request, server, self)
        self.pending[request.transaction_id] = transaction
        response, _ = await transaction.run()
        mapped: tuple[str, int] = response.attributes["XOR-MAPPED-ADDRESS"]
        return mapped


@pytest.mark.parametrize("listen", ["", "own"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_aioice_learns_its_address(host: str, listen: str) -> None:
    counters: Counter[str] = Counter()
    sockets = bind(Endpoint(host if listen else "", 0), socket.SOCK_DGRAM, "STUN")
    server = StunServer(sockets, counters=counters)
    loop = asyncio.get_running_loop()
    transport, client = await loop.create_datagram_endpoint(AioiceClient, local_addr=(host, 0))
    try:
        mapped = await client.ask((host, sockets[0].getsockname()[1]))
        assert mapped == transport.get_extra_info("sockname")[:2]
        assert counters["stun_answered"] == 1
    finally:
        transport.close()
        server.close()


async def test_the_answer_comes_from_the_address_that_was_asked() -> None:
    sockets = bind(Endpoint("", 0), socket.SOCK_DGRAM, "STUN")
    server = StunServer(sockets)
    loop = asyncio.get_running_loop()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as client:
            client.bind(("127.0.0.1", 0))
            asked = ("127.0.0.77", sockets[0].getsockname()[1])
            await loop.sock_sendto(client, REQUEST, asked)
            async with asyncio.timeout(5):
                _, source = await loop.sock_recvfrom(client, 100)
            assert source == asked
    finally:
        server.close()


async def test_one_address_gets_so_many_answers_and_garbage_none() -> None:
    counters: Counter[str] = Counter()
    (sock,) = bind(Endpoint("127.0.0.1", 0), socket.SOCK_DGRAM, "STUN")
    server = StunServer([sock], counters=counters, rate=0.001, burst=5)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as client:
            address = sock.getsockname()
            for datagram in [b"garbage", bytes(1500), *[REQUEST] * 6]:
                client.sendto(datagram, address)
            await eventually(lambda: sum(counters.values()) >= 8)
            assert counters == {
                "stun_answered": 3,
                "stun_dropped.malformed": 2,
                "stun_dropped.quota": 3,
            }
    finally:
        server.close()
