"""The settings of a controller, frozen and typed. ``config.load`` makes them from a file."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from controller.config.endpoint import Endpoint
from controller.config.values import IpNetwork
from controller.packets.addresses import StaticBinding

Crossing = Literal["block", "relay"]
"""The fate of a kind of frame: it stays on its host, or crosses to the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnServer:
    """A relay for pairs of nodes that find no direct path (RFC 8656)."""

    server: Endpoint
    """Where it listens."""
    user: str
    password: str = field(repr=False)
    transport: Literal["udp", "tcp", "tls"] = "udp"
    """How this node reaches the server; what is relayed is UDP in any case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offloads:
    """Kernel offloads that may be used where the kernel has them. Off is for finding faults."""

    gso: bool = True
    """UDP_SEGMENT: one system call sends many datagrams."""
    gro: bool = True
    """UDP_GRO: one system call receives many datagrams."""
    vnet_hdr: bool = True
    """IFF_VNET_HDR on the TAP; ``tso`` and ``uso`` need it."""
    tso: bool = True
    """TUN_F_TSO4 and TUN_F_TSO6: the TAP hands over TCP segments of up to 64 KiB."""
    uso: bool = True
    """TUN_F_USO4 and TUN_F_USO6: the same for UDP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The user's decisions. The attributes are the keys of the file, except where noted."""

    file: Path
    """The file it came from; no key."""
    network: str
    """The overlay's name, part of every key derived from the secret."""
    secret: str = field(repr=False)
    """The network's secret, from whichever of ``secret`` and ``secret_file`` was given."""
    node: str
    """This node's name for people; the host's name if the file has none."""
    signal: tuple[str, ...]
    """URLs of the rendezvous; empty if this controller is the rendezvous itself."""
    listen: Endpoint | None = None
    """Where the rendezvous in this controller listens: ``{"listen": ...}`` in ``signal``."""
    stun: tuple[Endpoint, ...]
    """STUN servers; without the key, the rendezvous' hosts at STUN_PORT."""
    turn: tuple[TurnServer, ...] = ()
    tap: str = "ipop"
    """The TAP's interface name."""
    bridge: str | None = None
    """The bridge that the TAP joins; None leaves its place to the user."""
    switchmode: int = 1
    """Always 1: switch mode is the only mode."""
    icc: bool = True
    """Always true: controllers need the channel between them."""
    icc_port: int = 30000
    """The number of the channel in which controllers talk over a link; no UDP or TCP port."""
    ip4: ipaddress.IPv4Interface | None = None
    """The TAP's own IPv4 address while it is in no bridge: ``ip4`` and ``ip4_mask``."""
    ip6: ipaddress.IPv6Interface | None = None
    """The TAP's own IPv6 address while it is in no bridge."""
    network_ignore_list: tuple[str, ...] = ()
    """Shell patterns of interfaces whose addresses no peer is told."""
    tincan_logging: str = "INFO"
    """A level of the logging module, one of load.LEVELS."""
    controller_logging: str = "INFO"
    """The same for the controller."""
    state_dir: Path
    """The directory of what outlives the process: the node's key, and which node a name means."""
    run_dir: Path
    """The directory of what ends with the process: its lock, its sockets, tincan's log."""
    dhcp: Crossing = "block"
    """DHCPv4 and DHCPv6 between hosts."""
    ra: Crossing = "block"
    """Router advertisements between hosts."""
    link_local_control: bool = False
    """True lets frames to 01:80:c2:00:00:0x (spanning tree, LLDP) cross."""
    static: tuple[StaticBinding, ...] = ()
    """Addresses that are at one place and nowhere else."""
    allow: Mapping[str, tuple[IpNetwork, ...]] = field(default_factory=dict)
    """By a peer's name or id, the only networks whose addresses it may claim."""
    offloads: Offloads = Offloads()
    mtu_probing: bool = True
    """False keeps to packets of 1200 bytes, whatever the path takes."""
    warnings: tuple[str, ...] = ()
    """Lines to log at start about what is legal but hardly meant; no key."""

    @property
    def control_socket(self) -> Path:
        """The socket on which a running controller answers the subcommands."""
        return self.run_dir / "controller.sock"
