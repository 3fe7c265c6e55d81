"""What status tells of a link: its state as a message."""

from tincan.control import messages as api
from tincan.device.device import Address
from tincan.link.link import Link
from tincan.path.path import Path
from tincan.switching.policy import Refused


def describe(link: Link, refused: dict[str, Refused], now: float) -> api.LinkInfo:
    """Return what status tells of a link, and of what its peer was refused."""
    path, sent = link.path, link.outgoing
    return api.LinkInfo(
        peer=link.peer,
        state=link.state.value,
        relayed=path is not None and path.relayed,
        path=None if path is None else _path(path),
        rtt_ms=None if link.rtt is None else round(link.rtt * 1000, 3),
        pmtu=sent.mtu,
        tx_bytes=sent.tx_bytes,
        rx_bytes=link.rx.bytes,
        tx_frames=sent.tx_frames,
        rx_frames=link.rx.frames,
        tx_records=sent.tx_records,
        tx_datagrams=sent.tx_datagrams,
        attended=link.attended,
        negotiating=bool(link.pending),
        offloads=[] if path is None else path.carrier.offloads,
        refused=[
            api.RefusedFrames(kind, frames.count, round(now - frames.last, 1))
            for kind, frames in refused.items()
        ],
    )


def _path(path: Path) -> api.PathInfo:
    host, port = path.peer_address
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    relay = _relay(path.carrier.address) if path.local == "relay" else None
    return api.PathInfo(
        path.local, path.remote, address, relay, path.behind_nat, path.peer_behind_nat
    )


def _relay(address: Address) -> str:
    return f"{address[0]}:{address[1]}"
