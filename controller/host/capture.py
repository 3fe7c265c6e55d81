"""What the bridge sends into the TAP, captured: opened at once, read when scapy is loaded.

Loading scapy takes long, and happens in a thread. What the bridge sends meanwhile waits in the
socket: a question that is missed would be repeated only after a second. So a capture counts as
present from the beginning, and no frame is both flooded by tincan and relayed by the controller.

A storm is thinned in three steps: ``capture_police`` refuses frames before their dissection; a
sender that goes on is left to the kernel, which passes one frame in 64 of it (``_sample``); and a
storm of invented senders is treated so as a whole, except for senders known before it.
"""

import asyncio
import errno
import socket
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from controller.errors import MalformedFrame, SystemRefusal
from controller.host.capture_police import Police
from controller.host.packet_socket import attach_filter, open_packet_socket, overrun, vlan_of
from controller.packets.addresses import Mac, Vlan
from controller.packets.encode import ETH_ARP, ETH_IP4, ETH_IP6
from controller.packets.filters import frames_from, resolution
from controller.packets.packets import Captured

SNAPLEN_BYTES: Final = 2048
"""The most of a frame that the kernel hands over."""
RECEIVE_BUFFER_BYTES: Final = 4 << 20
"""A small frame is accounted with about 800 bytes: this holds 50 ms of a storm."""
READ_BUDGET: Final = 64
"""Frames read in one wake-up."""
DISSECT_BUDGET: Final = 8
"""Dissections in one wake-up: about 1 ms."""
PAUSE_S: Final = 0.004
"""Time without reading after a wake-up in which every frame was refused."""
BACKLOG: Final = RECEIVE_BUFFER_BYTES // 800
"""Small frames that the queue holds at most."""
SAMPLE_S: Final = 1.0
"""Time for which the kernel drops most frames of a sender over its rate, or of unknown senders."""
STILL_OVER_RATE: Final = 16
"""Refusals in SAMPLE_S, out of a sample of 1 in 64, with which sampling goes on: 1000 frames/s."""
MAX_SAMPLED: Final = 16
"""Senders that the kernel samples at a time."""
MAX_KNOWN: Final = 128
"""Senders of each kind of frame that pass while the kernel samples all unknown ones."""
MAX_GATEWAYS: Final = 32
"""Gateways whose packets are captured; each costs the kernel four instructions a frame."""

Parse = Callable[[bytes, Vlan | None], Captured | None]
"""The dissector, ``packets.decode.parse``."""


class Capture:
    """What the bridge sends into the TAP: ARP, ND, and on demand what gateways send.

    ``on_packet`` is called from the event loop with each packet that is admitted and sound;
    ``on_closed`` is called once, with the reason, when the TAP is gone (not by ``close``). The
    TAP may go down and up. Construction raises SystemRefusal, and needs CAP_NET_RAW and a running
    loop.

    Counters: ``frames_dropped.capture_policed`` (refused before a dissection),
    ``frames_dropped.capture_overrun`` (dropped by the kernel, queue full),
    ``frames_dropped.REASON`` of each malformed frame, ``capture_muted`` (a sender is sampled by
    the kernel), ``capture_strangers_sampled`` (all unknown senders are), and
    ``capture_filters_refused`` (the kernel has no room for the filter).
    """

    def __init__(
        self,
        tap: str,
        on_packet: Callable[[Captured], None],
        on_closed: Callable[[str], None],
        counters: Counter[str],
    ) -> None:
        self._tap = tap
        self._on_packet = on_packet
        self._on_closed = on_closed
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        self._sampled: dict[bytes | None, int] = {}
        """Frames refused since sampling began, by sender; None is all unknown senders."""
        self._known: set[bytes] = set()
        """The senders that pass while unknown ones are sampled."""
        self._drain_left = 0
        """Frames of the storm that are still to be read from the queue without a pause."""
        self._read_since_drain = 2 * BACKLOG
        """Frames read since such a drain ended; another begins only after BACKLOG of them."""
        self._refused_unknown = 0
        """Frames of unknown senders refused in this wake-up."""
        self._police = {
            ETH_ARP: Police(rate=100, burst=500, total=1000, total_burst=1000),
            ETH_IP6: Police(rate=100, burst=500, total=1000, total_burst=1000),
            ETH_IP4: Police(rate=100, burst=200, total=200, total_burst=500),
        }
        self._gateway_police = {ETH_IP4: Police(rate=50, burst=100, total=100, total_burst=200)}
        self._gateways: list[bytes] = []
        self._gateway: socket.socket | None = None
        self._sockets: dict[socket.socket, dict[int, Police]] = {}
        self._parse: Parse | None = None
        try:
            self._resolution = self._open(resolution(()), self._police)
        except OSError as error:
            raise _refusal(tap, error) from error
        if "controller.packets.decode" in sys.modules:
            self._parse = _load_dissector()
            self._listen(self._resolution, self._police)
        else:
            loading = self._loop.run_in_executor(None, _load_dissector)
            loading.add_done_callback(self._loaded)

    def _loaded(self, loading: "asyncio.Future[Parse]") -> None:
        if loading.cancelled():
            return
        self._parse = loading.result()
        for sock, police in self._sockets.items():
            self._listen(sock, police)

    def watch_gateways(self, macs: frozenset[Mac]) -> None:
        """Capture from now on every unicast IP packet that one of ``macs`` sends, and no others'.

        Echo requests come in the socket of ARP and ND: dnsmasq takes an unanswered one for a free
        address. The rest has a socket of its own, where a flood harms nobody. It is open only
        while it is needed, because each socket costs the kernel 90 ns for every frame of the TAP.
        """
        self._gateways = [bytes.fromhex(mac.replace(":", "")) for mac in sorted(macs)]
        del self._gateways[MAX_GATEWAYS:]
        self._install_filter()
        if self._gateway is not None and not self._gateways:
            self._shut(self._gateway)
            self._gateway = None
        elif self._gateway is not None:
            attach_filter(self._gateway, frames_from(self._gateways))
        elif self._gateways and self._sockets:
            program = frames_from(self._gateways)
            with suppress(OSError):  # the TAP is just going away: the other socket will say so
                self._gateway = self._open(program, self._gateway_police)

    def close(self) -> None:
        """Stop capturing. Idempotent."""
        for sock in tuple(self._sockets):
            self._shut(sock)
        self._gateway = None

    def _open(self, program: bytes, police: dict[int, Police]) -> socket.socket:
        sock = open_packet_socket(self._tap, program, RECEIVE_BUFFER_BYTES, vlans=True)
        self._sockets[sock] = police
        self._listen(sock, police)
        return sock

    def _listen(self, sock: socket.socket, police: dict[int, Police]) -> None:
        if sock in self._sockets and self._parse is not None:
            self._loop.add_reader(sock.fileno(), self._readable, sock, police)

    def _shut(self, sock: socket.socket) -> None:
        self._sockets.pop(sock, None)
        self._loop.remove_reader(sock.fileno())
        sock.close()

    # --- frames in

    def _readable(self, sock: socket.socket, police: dict[int, Police]) -> None:
        """Read up to READ_BUDGET frames and dissect up to DISSECT_BUDGET of them."""
        dissected = self._refused_unknown = 0
        for _ in range(READ_BUDGET):
            try:
                frame, ancillary, _, address = sock.recvmsg(SNAPLEN_BYTES, 64)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._failed(sock, error)
                return
            if address[2] != socket.PACKET_OUTGOING:
                continue
            vlan = vlan_of(ancillary)
            if not self._admit(frame, police):
                continue
            dissected += 1
            self._dissect(frame, vlan)
            if sock not in self._sockets:
                return
            if dissected == DISSECT_BUDGET:
                break
        self._count_overrun(sock)
        self._count_read()
        if not dissected and not self._drain_left:
            # Level-triggered, and nothing worth having: leave the rest to the kernel's queue.
            self._loop.remove_reader(sock.fileno())
            self._loop.call_later(PAUSE_S, self._listen, sock, police)
        if self._refused_unknown > READ_BUDGET // 2:
            self._sample(None)

    def _count_read(self) -> None:
        """Note that READ_BUDGET frames were read."""
        if self._drain_left > READ_BUDGET:
            self._drain_left -= READ_BUDGET
        elif self._drain_left:
            self._read_since_drain = READ_BUDGET - self._drain_left
            self._drain_left = 0
        else:
            self._read_since_drain += READ_BUDGET

    def _admit(self, frame: bytes, police: dict[int, Police]) -> bool:
        """Return whether ``frame`` may be dissected; count and follow up a refusal."""
        kind = int.from_bytes(frame[16:18] if frame[12:14] == b"\x81\x00" else frame[12:14], "big")
        chosen = police.get(kind) or next(iter(police.values()))
        source = frame[6:12]
        if chosen.admit(source, self._loop.time()):
            return True
        self._counters["frames_dropped.capture_policed"] += 1
        if police is self._police:
            if chosen.is_over_rate(source):
                self._sample(source)
            sender = source if source in self._sampled else None
            if sender in self._sampled:
                self._sampled[sender] += 1
            self._refused_unknown += not chosen.knows(source)
        return False

    def _dissect(self, frame: bytes, vlan: int | None) -> None:
        assert self._parse is not None
        try:
            packet = self._parse(frame, vlan)
        except MalformedFrame as fault:
            self._counters[f"frames_dropped.{fault.reason}"] += 1
            return
        if packet is not None:
            self._on_packet(packet)

    def _count_overrun(self, sock: socket.socket) -> None:
        dropped = overrun(sock)
        if dropped:
            self._counters["frames_dropped.capture_overrun"] += dropped

    def _failed(self, sock: socket.socket, error: OSError) -> None:
        # ENETDOWN means down or gone (packet_notifier); only the name tells. A socket whose TAP
        # comes up again is hooked in again by the kernel.
        if sock.getsockname()[0]:
            return
        self.close()
        self._on_closed(f"the TAP {self._tap} is gone: {error.strerror}")

    # --- a storm is left to the kernel

    def _sample(self, sender: bytes | None) -> None:
        """Have the kernel drop most frames of ``sender``, or with None of all unknown senders."""
        if sender in self._sampled or len(self._sampled) > MAX_SAMPLED:
            return
        self._counters["capture_strangers_sampled" if sender is None else "capture_muted"] += 1
        self._sampled[sender] = 0
        self._known = {m for p in self._police.values() for m in p.longest_known(MAX_KNOWN)}
        self._install_filter()
        self._loop.call_later(SAMPLE_S, self._end_sampling, sender)
        if not self._drain_left and self._read_since_drain > BACKLOG:
            # What is queued already is the storm's: get through it, others wait behind it.
            self._drain_left = BACKLOG

    def _end_sampling(self, sender: bytes | None) -> None:
        """Hear ``sender`` in full again, unless it is still over its rate."""
        if self._sampled[sender] >= STILL_OVER_RATE and self._sockets:
            self._sampled[sender] = 0
            self._loop.call_later(SAMPLE_S, self._end_sampling, sender)
        else:
            del self._sampled[sender]
            self._install_filter()

    def _install_filter(self) -> None:
        """Install the filter for the gateways and samples of now.

        Before Linux 6.9 all filters of a socket share 20 KiB (net.core.optmem_max), which 48
        known senders exceed: then as many are named as there is room for.
        """
        if not self._sockets:
            return
        over_rate = [sender for sender in self._sampled if sender is not None]
        known = self._known if None in self._sampled else None
        while True:
            try:
                attach_filter(self._resolution, resolution(over_rate, known, self._gateways))
                return
            except OSError as error:
                if error.errno != errno.ENOMEM:
                    raise
            if known:
                known = set(sorted(known)[: len(known) // 2])
            elif over_rate:
                del over_rate[len(over_rate) // 2 :]
            else:
                self._counters["capture_filters_refused"] += 1
                return


def _load_dissector() -> Parse:
    from controller.packets.decode import parse  # loads scapy: 0.3 s

    return parse


def _refusal(tap: str, error: OSError) -> SystemRefusal:
    if isinstance(error, PermissionError):
        return SystemRefusal(
            f"capturing on {tap} is not permitted", "run as root or with CAP_NET_RAW"
        )
    return SystemRefusal(f"capturing on {tap} failed: {error.strerror}", "does the TAP exist?")
