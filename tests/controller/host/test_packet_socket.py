"""Filters on sockets, and the tag that the kernel took off a frame."""

import socket
import struct

import pytest

from controller.host.packet_socket import attach_filter, open_packet_socket, vlan_of

SOL_PACKET, AUXDATA = 263, 8
DROP = struct.pack("=HBBI", 6, 0, 0, 0)
ACCEPT_4 = struct.pack("=HBBI", 6, 0, 0, 4)


def auxdata(status: int, tci: int) -> bytes:
    return struct.pack("=IIIHHHH", status, 0, 0, 0, 0, tci, 0x8100)


@pytest.mark.parametrize(("program", "arrives"), [(DROP, b""), (ACCEPT_4, b"0123")])
def test_a_filter_is_replaced_at_once(program: bytes, arrives: bytes) -> None:
    send, receive = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with send, receive:
        receive.setblocking(False)
        attach_filter(receive, ACCEPT_4 if program == DROP else DROP)
        attach_filter(receive, program)
        send.send(b"0123456789")
        try:
            assert receive.recv(100) == arrives
        except BlockingIOError:
            assert arrives == b""


def test_vlan_of_a_tagged_frame() -> None:
    assert vlan_of([(SOL_PACKET, AUXDATA, auxdata(0x10, 0x6007))]) == 7
    assert vlan_of([(1, 2, b""), (SOL_PACKET, AUXDATA, auxdata(0x11, 0))]) == 0


def test_no_vlan() -> None:
    assert vlan_of([]) is None
    assert vlan_of([(SOL_PACKET, AUXDATA, auxdata(0x01, 7))]) is None
    assert vlan_of([(SOL_PACKET, AUXDATA, b"short")]) is None


@pytest.mark.root
def test_no_such_interface() -> None:
    with pytest.raises(OSError, match="No such device"):
        open_packet_socket("no-such-tap", DROP, 4096)
