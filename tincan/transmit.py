"""Datagrams onto a path: with segmentation offload, without it, or through a relay's stream."""

import errno
from collections import Counter

from tincan.packing import Datagrams
from tincan.path import Path
from tincan.udp import MAX_BATCH, MAX_SEGMENTS, is_refusal_of_offload


class PathTooSmall(Exception):
    """EMSGSIZE: the device or the route takes no packet of this size."""


def transmit(path: Path, datagrams: Datagrams, counters: Counter[str]) -> bool:
    """Send a record; return whether all of it left. Raise PathTooSmall.

    A record over MAX_BATCH or MAX_SEGMENTS takes several calls of about the same size: at 1500
    bytes a full super-frame is 45 datagrams, sent as 23 and 22.
    """
    sock = path.socket
    if sock is None:
        if path.relay_send is None:
            return False
        for datagram in datagrams.joined():
            path.relay_send(datagram)
        return True
    cut, count, size, _ = datagrams
    vector = cut.vector
    try:
        if count == 1:
            sock.send(vector, 0, 2, 0, path.address)
        elif sock.segment_offload:
            calls = -(-count // min(MAX_SEGMENTS, MAX_BATCH // size))
            step = -(-count // calls)
            for i in range(0, count, step):
                sock.send(vector, 2 * i, 2 * min(step, count - i), size, path.address)
        else:
            for i in range(count):
                sock.send(vector, 2 * i, 2, 0, path.address)
    except BlockingIOError:
        counters["records_dropped.socket_full"] += 1
        return False
    except OSError as error:
        if error.errno == errno.EMSGSIZE:
            raise PathTooSmall from None
        if count > 1 and sock.segment_offload and is_refusal_of_offload(error):
            # Or, in older kernels, that the segments are larger than the device's MTU (EINVAL):
            # then the datagrams are refused one by one, too, and the offload is not to blame.
            sock.segment_offload = sent = False
            try:
                sent = transmit(path, datagrams, counters)
            finally:
                sock.segment_offload = not sent
            if sent:
                counters["offload_fallbacks.udp_segment"] += 1
            return sent
        counters["records_dropped.send_error"] += 1
        return False
    return True
