"""Records onto a path whose socket takes them, cannot segment them, is full, or is too narrow."""

import errno
import os
import struct
from collections import Counter
from typing import Any, cast

import pytest

from tincan.crypto.primitives import Aead
from tincan.path.direct import PathTooSmall, transmit
from tincan.path.path import Path
from tincan.record.keys import SealingKey
from tincan.record.layout import HEADER_SIZE
from tincan.record.outgoing import OpenRecord
from tincan.record.slots import MAX_BATCH, MAX_SEGMENTS, SLOT_SIZE

HERE = ("192.0.2.1", 7)
IOV = struct.Struct("@PN")


class FakeSocket:
    """Takes what ``refuse`` does not raise an error number for: (datagrams, segmented)."""

    def __init__(self, *refusals: tuple[bool, int, int]) -> None:
        self.segment_offload = True
        self.full = 0  # bytes of a full datagram
        self.sent: list[tuple[int, int]] = []  # datagrams, size of each or 0
        self._begin = 0
        self._refusals = refusals  # (only if segmented, least size of a datagram, error)

    def send(self, place: bytes, size: int, _: object) -> None:
        address, pieces = IOV.unpack(place)
        count = pieces // 2
        for segmented, least, number in self._refusals:
            if (size or not segmented) and self.full >= least:
                raise OSError(number, os.strerror(number))
        if not self.sent:
            self._begin = address
        assert address == self._begin + SLOT_SIZE * sum(count for count, _ in self.sent)
        self.sent.append((count, size))


def sealed(size: int, body: int) -> OpenRecord:
    record = OpenRecord()
    record.append(bytes(size))
    record.seal(SealingKey(Aead(bytes(32)), 7, 0.0), body, None)
    return record


def send(sock: FakeSocket, size: int = 48000, body: int = 1456) -> tuple[bool, Counter[str]]:
    counters: Counter[str] = Counter()
    path = Path(cast(Any, sock), HERE, None, "host", "host", HERE)
    sock.sent.clear()
    sock.full = HEADER_SIZE + body
    return transmit(path, sealed(size, body), counters), counters


@pytest.mark.parametrize("size", [100, 1440, 1441, 48000, 65000, 114000, 262000])
@pytest.mark.parametrize("body", [1156, 1456, 8956, 65491])
def test_few_calls_within_the_kernels_limits(size: int, body: int) -> None:
    sock = FakeSocket()
    sent, counters = send(sock, size, body)
    assert sent
    assert not counters
    assert sum(count for count, _ in sock.sent) == -(-(size + 16) // body)
    for count, each in sock.sent:
        assert count <= MAX_SEGMENTS
        assert count * each <= MAX_BATCH
        assert (count == 1) == (each == 0)


@pytest.mark.parametrize("number", [errno.EIO, errno.EINVAL, errno.ENOPROTOOPT])
def test_a_refused_offload_is_not_used_again(number: int) -> None:
    sock = FakeSocket((True, 0, number))
    assert send(sock) == (True, Counter({"offload_fallbacks.udp_segment": 1}))
    assert not sock.segment_offload
    assert {size for _, size in sock.sent} == {0}
    assert send(sock) == (True, Counter())


@pytest.mark.parametrize("segmented", [errno.EMSGSIZE, errno.EINVAL])
def test_too_large_segments_say_nothing_about_the_offload(segmented: int) -> None:
    """Older kernels say EINVAL for what is EMSGSIZE without the offload."""
    sock = FakeSocket((True, 1400, segmented), (False, 1400, errno.EMSGSIZE))
    with pytest.raises(PathTooSmall):
        send(sock)
    assert sock.segment_offload
    assert send(sock, body=1156) == (True, Counter())


def test_what_is_lost_is_counted() -> None:
    for number, reason in ((errno.EAGAIN, "socket_full"), (errno.ENETUNREACH, "send_error")):
        sock = FakeSocket((False, 0, number))
        assert send(sock) == (False, Counter({f"records_dropped.{reason}": 1}))
        assert sock.segment_offload
