"""A socket of ours as ICE's transport."""

import asyncio
import errno
from collections import Counter
from typing import cast

from tincan.device.udp import Address, UdpSocket
from tincan.ice.sockets import SocketTransport

PEER = ("192.0.2.1", 5000)


class Unreachable:
    address = ("192.0.2.9", 1)

    def sendto(self, _data: bytes, _address: Address) -> None:
        raise OSError(errno.ENETUNREACH, "unreachable")


def test_what_the_kernel_refuses_to_send_is_lost() -> None:
    class Protocol(asyncio.DatagramProtocol):
        lost = False

        def connection_lost(self, exc: Exception | None) -> None:
            assert not self.lost
            self.lost = True

    counters: Counter[str] = Counter()
    protocol = Protocol()
    transport = SocketTransport(cast(UdpSocket, Unreachable()), protocol, counters)
    transport.sendto(b"x", PEER)
    assert counters == {"stun_send_failed": 1}
    assert transport.get_extra_info("sockname") == ("192.0.2.9", 1)
    transport.close()
    transport.close()
    assert transport.is_closing()
    assert protocol.lost
