"""Records onto a path: with segmentation offload, without it, or through a relay's stream."""

import errno
import struct
from collections import Counter

from tincan.packing import OpenRecord
from tincan.path import Path
from tincan.udp import is_refusal_of_offload

CHANNEL = struct.Struct(">HH")  # ChannelData: channel, length (RFC 8656 section 12.4)


class PathTooSmall(Exception):
    """EMSGSIZE: the device or the route takes no packet of this size."""


def transmit(path: Path, record: OpenRecord, counters: Counter[str]) -> bool:
    """Send a sealed record; return whether all of it left. Raise PathTooSmall.

    Full calls come first: at 1500 bytes 44 datagrams, so that a full super-frame (45) takes two,
    and three of them in one record (135) take four.
    """
    slots, count, last = record.slots, record.count, record.last
    sock = path.socket
    if sock is None:
        if path.relay_send is None:
            return False
        for datagram in record.datagrams():
            path.relay_send(datagram)
        return True
    step = slots.batch if sock.segment_offload else 1
    sent, refused = 0, False
    slots.shorten(count - 1, last)
    try:
        while sent < count:
            number = step if step < count - sent else count - sent
            try:
                sock.send(slots, sent, number, slots.full if number > 1 else 0, path.address)
            except OSError as error:
                if number > 1 and is_refusal_of_offload(error):
                    # Or, in older kernels, that the segments are larger than the device's MTU:
                    # then the datagrams are refused one by one, too, and it is not to blame.
                    step, refused = 1, True
                    continue
                if error.errno == errno.EMSGSIZE:
                    raise PathTooSmall from None
                reason = "socket_full" if isinstance(error, BlockingIOError) else "send_error"
                counters[f"records_dropped.{reason}"] += 1
                return False
            if refused:
                sock.segment_offload = refused = False
                counters["offload_fallbacks.udp_segment"] += 1
            sent += number
    finally:
        slots.shorten(count - 1, slots.size)
    return True


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
