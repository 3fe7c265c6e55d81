"""Records onto a path: with segmentation offload, without it, or through a relay's stream."""

import errno
import struct
from collections import Counter

from tincan.device.udp import Address, UdpSocket, is_refusal_of_offload
from tincan.path.path import Path
from tincan.record.outgoing import OpenRecord

CHANNEL = struct.Struct(">HH")  # ChannelData: channel, length (RFC 8656 section 12.4)


class PathTooSmall(Exception):
    """EMSGSIZE: the device or the route takes no packet of this size."""


def transmit(path: Path, record: OpenRecord, counters: Counter[str]) -> bool:
    """Send a sealed record; return whether all of it left. Raise PathTooSmall.

    Full calls come first: at 1500 bytes 44 datagrams, so that a full super-frame (45) takes two,
    and three of them in one record (135) take four.
    """
    slots, count, sock = record.slots, record.count, path.socket
    if sock is None:
        if path.relay_send is None:
            return False
        for datagram in record.datagrams():
            path.relay_send(datagram)
        return True
    send, address = sock.send, path.address
    sent = size = 0
    slots.shorten(count - 1, record.last)
    try:
        for place, size in slots.calls(count, sock.segment_offload):
            send(place, size, address)
            sent += 1
    except OSError as error:
        # Or, in older kernels, that the segments are larger than the device's MTU: then the
        # datagrams are refused one by one, too, and it is not to blame.
        if size and is_refusal_of_offload(error):
            return _one_by_one(sock, record, sent * slots.batch, address, counters)
        return _refused(error, record, counters)
    finally:
        slots.shorten(count - 1, slots.size)
    return True


def _one_by_one(
    sock: UdpSocket, record: OpenRecord, first: int, address: Address, counters: Counter[str]
) -> bool:
    """Send the slots from ``first`` on without the offload; if that goes, give it up."""
    try:
        for place, size in record.slots.calls(record.count, segmented=False)[first:]:
            sock.send(place, size, address)
            if sock.segment_offload:
                sock.segment_offload = False
                counters["offload_fallbacks.udp_segment"] += 1
    except OSError as error:
        return _refused(error, record, counters)
    return True


def _refused(error: OSError, record: OpenRecord, counters: Counter[str]) -> bool:
    """Say why the kernel has not taken all of what was sealed: it counts as if none had left."""
    if error.errno == errno.EMSGSIZE:
        raise PathTooSmall from None
    reason = "socket_full" if isinstance(error, BlockingIOError) else "send_error"
    counters[f"records_dropped.{reason}"] += record.records
    return False


def send_plain(path: Path, datagrams: list[bytes], counters: Counter[str]) -> None:
    """Send handshake datagrams, which are no records. What cannot be sent is counted."""
    for datagram in datagrams:
        if path.socket is None:
            if path.relay_send is not None:
                path.relay_send(datagram)
            continue
        if path.channel is not None:
            datagram = CHANNEL.pack(path.channel, len(datagram)) + datagram
        try:
            path.socket.sendto(datagram, path.address)
        except OSError:
            counters["handshakes_dropped.send_error"] += 1
