"""The socket on the TAP that sees what the bridge sends: opened at once, read when scapy is loaded.

Loading scapy takes long, and is done in a thread meanwhile. What the bridge sends until then
waits in the socket: a question that is missed would be asked again only after a second. So a
capture counts as there from the beginning, and nothing is both flooded by tincan and relayed.
"""

import asyncio
import errno
import socket
import struct
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from controller.errors import MalformedFrame, SystemRefusal
from controller.host.capture_police import Police
from controller.packets.addresses import Mac, Vlan
from controller.packets.encode import ETH_ARP, ETH_IP4, ETH_IP6
from controller.packets.filters import attach, frames_from, resolution
from controller.packets.packets import Captured

_SOL_PACKET: Final = 263
_PACKET_STATISTICS: Final = 6
_PACKET_AUXDATA: Final = 8
_AUXDATA: Final = struct.Struct("=I12xH2x")
"""Of struct tpacket_auxdata: status, vlan_tci."""
_TP_STATUS_VLAN_VALID: Final = 1 << 4
_ETH_P_ALL: Final = 3
_SO_RCVBUFFORCE: Final = 33

SNAPLEN: Final = 2048
"""Bytes of a frame that the kernel hands over."""
RECEIVE_BUFFER: Final = 4 << 20
"""Bytes; a small frame is accounted with about 800: 50 ms of a storm."""
READ_BUDGET: Final = 64
"""Frames per wake-up."""
DISSECT_BUDGET: Final = 8
"""Dissections per wake-up: about 1 ms."""
PAUSE: Final = 0.004
"""Seconds without reading, after a wake-up in which all frames were refused."""
BACKLOG: Final = RECEIVE_BUFFER // 800
"""Frames: what the queue holds at most of small ones."""
RELIEF: Final = 1.0
"""Seconds for which the kernel drops most frames of a loud sender, or of strangers."""
STILL_LOUD: Final = 16
"""Refusals in a sample of 1 in 64: about 1000 frames/s, and it goes on."""
MAX_MUTED: Final = 16
MAX_REGULARS: Final = 128
"""Of each kind, whose frames get through a storm of strangers."""
MAX_GATEWAYS: Final = 32


class Capture:
    """What the bridge sends into the TAP: ARP, ND, and on demand what gateways send.

    ``on_packet`` is called from the event loop with each packet that is admitted and sound;
    ``on_closed`` once, with the reason, when the TAP is gone (``close`` does not call it).
    The TAP may go down and up. Counts ``frames_dropped.capture_policed`` (refused before a
    dissection), ``.capture_overrun`` (dropped by the kernel, queue full), ``.REASON`` of each
    malformed frame; and ``capture_muted`` (a loud sender left to the kernel but for a sample),
    ``capture_strangers_sampled`` (the same for most frames of senders not heard before).
    Raises SystemRefusal. Needs CAP_NET_RAW and a running loop.
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
        self._relief: dict[bytes | None, int] = {}  # refused since it began
        self._regulars: set[bytes] = set()
        self._stale = -2 * BACKLOG  # frames still to be read without a pause; below 0: since then
        self._strangers = 0  # refused in this wake-up
        self._police = {
            ETH_ARP: Police(rate=100, burst=500, total=1000, total_burst=1000),
            ETH_IP6: Police(rate=100, burst=500, total=1000, total_burst=1000),
            ETH_IP4: Police(rate=100, burst=200, total=200, total_burst=500),
        }
        self._gateway_police = {ETH_IP4: Police(rate=50, burst=100, total=100, total_burst=200)}
        self._gateways: list[bytes] = []
        self._gateway: socket.socket | None = None
        self._sockets: dict[socket.socket, dict[int, Police]] = {}
        self._parse: Callable[[bytes, Vlan | None], Captured | None] | None = None
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

    def _loaded(
        self, loading: "asyncio.Future[Callable[[bytes, Vlan | None], Captured | None]]"
    ) -> None:
        if loading.cancelled():
            return
        self._parse = loading.result()
        for sock, police in self._sockets.items():
            self._listen(sock, police)

    def watch_gateways(self, macs: frozenset[Mac]) -> None:
        """Capture from now on every unicast IP packet that one of ``macs`` sends, no others'.

        Echo requests come with ARP: dnsmasq takes an unanswered one for a free address. The rest
        has a socket of its own, where a flood harms nobody; only while it is needed, because
        each socket costs the kernel 90 ns for every frame of the TAP.
        """
        self._gateways = [bytes.fromhex(mac.replace(":", "")) for mac in sorted(macs)]
        del self._gateways[MAX_GATEWAYS:]
        self._filter()
        if self._gateway is not None and not self._gateways:
            self._shut(self._gateway)
            self._gateway = None
        elif self._gateway is not None:
            attach(self._gateway, frames_from(self._gateways))
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
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        try:
            attach(sock, program)
            sock.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
            with suppress(PermissionError):
                sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
            # Bound only now: nothing unfiltered ever enters the queue.
            sock.bind((self._tap, _ETH_P_ALL))
        except OSError:
            sock.close()
            raise
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

    def _readable(self, sock: socket.socket, police: dict[int, Police]) -> None:
        """One wake-up: at most READ_BUDGET frames looked at, DISSECT_BUDGET of them dissected."""
        dissected = self._strangers = 0
        for _ in range(READ_BUDGET):
            try:
                frame, ancillary, _, address = sock.recvmsg(SNAPLEN, 64)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._failed(sock, error)
                return
            if address[2] != socket.PACKET_OUTGOING:
                continue
            vlan = _vlan(ancillary)
            if not self._admit(frame, police):
                continue
            dissected += 1
            self._dissect(frame, vlan)
            if sock not in self._sockets:
                return
            if dissected == DISSECT_BUDGET:
                break
        self._count_overrun(sock)
        self._stale -= READ_BUDGET
        if not dissected and self._stale <= 0:
            # Level-triggered, and nothing worth having: leave the rest to the kernel's queue.
            self._loop.remove_reader(sock.fileno())
            self._loop.call_later(PAUSE, self._listen, sock, police)
        if self._strangers > READ_BUDGET // 2:
            self._relieve(None)

    def _admit(self, frame: bytes, police: dict[int, Police]) -> bool:
        kind = int.from_bytes(frame[16:18] if frame[12:14] == b"\x81\x00" else frame[12:14], "big")
        chosen = police.get(kind) or next(iter(police.values()))
        source = frame[6:12]
        if chosen.admit(source, self._loop.time()):
            return True
        self._counters["frames_dropped.capture_policed"] += 1
        if police is self._police:
            if chosen.loud(source):
                self._relieve(source)
            sender = source if source in self._relief else None
            if sender in self._relief:
                self._relief[sender] += 1
            self._strangers += not chosen.knows(source)
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

    def _relieve(self, sender: bytes | None) -> None:
        """Leave a loud sender, or with None all strangers, to the kernel but for a sample."""
        if sender in self._relief or len(self._relief) > MAX_MUTED:
            return
        self._counters["capture_strangers_sampled" if sender is None else "capture_muted"] += 1
        self._relief[sender] = 0
        self._regulars = {m for p in self._police.values() for m in p.regulars(MAX_REGULARS)}
        self._filter()
        self._loop.call_later(RELIEF, self._end_relief, sender)
        if self._stale < -BACKLOG:
            # What is queued already is the storm's: get through it, others wait behind it.
            self._stale = BACKLOG

    def _end_relief(self, sender: bytes | None) -> None:
        if self._relief[sender] >= STILL_LOUD and self._sockets:
            self._relief[sender] = 0
            self._loop.call_later(RELIEF, self._end_relief, sender)
        else:
            del self._relief[sender]
            self._filter()

    def _filter(self) -> None:
        """Install what holds now. Before Linux 6.9 all filters of a socket have 20 KiB
        (net.core.optmem_max), which 48 regulars exceed: as many as there is room for."""
        if not self._sockets:
            return
        loud = [sender for sender in self._relief if sender is not None]
        regulars = self._regulars if None in self._relief else None
        while True:
            try:
                attach(self._resolution, resolution(loud, regulars, self._gateways))
                return
            except OSError as error:
                if error.errno != errno.ENOMEM:
                    raise
            if regulars:
                regulars = set(sorted(regulars)[: len(regulars) // 2])
            elif loud:
                del loud[len(loud) // 2 :]
            else:
                self._counters["capture_filters_refused"] += 1
                return

    def _count_overrun(self, sock: socket.socket) -> None:
        _, dropped = struct.unpack("=II", sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        if dropped:
            self._counters["frames_dropped.capture_overrun"] += dropped

    def _failed(self, sock: socket.socket, error: OSError) -> None:
        # ENETDOWN means down or gone (packet_notifier); only the name tells. A socket whose TAP
        # comes up again is hooked in again by the kernel.
        if sock.getsockname()[0]:
            return
        self.close()
        self._on_closed(f"the TAP {self._tap} is gone: {error.strerror}")


def _load_dissector() -> Callable[[bytes, Vlan | None], Captured | None]:
    from controller.packets.decode import parse  # takes long

    return parse


def _vlan(ancillary: list[tuple[int, int, bytes]]) -> Vlan | None:
    status: int
    tci: int
    for level, kind, data in ancillary:
        if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA) and len(data) >= _AUXDATA.size:
            status, tci = _AUXDATA.unpack_from(data)
            return tci & 0xFFF if status & _TP_STATUS_VLAN_VALID else None
    return None


def _refusal(tap: str, error: OSError) -> SystemRefusal:
    if isinstance(error, PermissionError):
        return SystemRefusal(
            f"capturing on {tap} is not permitted", "run as root or with CAP_NET_RAW"
        )
    return SystemRefusal(f"capturing on {tap} failed: {error.strerror}", "does the TAP exist?")
