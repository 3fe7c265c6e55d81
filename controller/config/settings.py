"""The user's configuration: a JSON or YAML file, refused at start or right for good.

``load`` returns a ``Config``, frozen and typed, or raises ConfigError with the file, the place
in it, what is wrong there and what would be right, as one line. ``Config`` documents every key;
a key that is not there is refused, because a setting that is silently ignored is worse than a
program that does not start.
"""

import dataclasses
import ipaddress
import os
import socket
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, cast
from urllib.parse import urlsplit

from controller.config import values as checks
from controller.config.endpoint import Endpoint
from controller.config.text import MAX_FILE, parse, read
from controller.config.values import Check, HostPort, Place
from controller.errors import ConfigError

MAX_SECRET: Final = 1024
"""Bytes."""
MIN_SECRET: Final = 8
"""Characters."""
MAX_SERVERS: Final = 16
"""In each of signal, stun and turn."""
MAX_ENTRIES: Final = 10_000
"""In static, in allow, and in the list of one peer there."""
MAX_SOCKET_PATH: Final = 107
"""Sun_path of AF_UNIX, less its terminating zero."""
STUN_PORT: Final = 3478
EXAMPLES: Final = {"network": '"NAME"', "signal": '"ws://HOST:8765"'}
"""Of what is always required."""
MAKE_SECRET: Final = "make one with: openssl rand -base64 24"

LEVELS: Final = ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG")
# IPOP's set_logging: 0 nothing, 1 LS_ERROR, 2 LS_INFO, 3 LS_SENSITIVE (ipop-tincan's
# controlleraccess.cc)
IPOP_LEVELS: Final = ("CRITICAL", "ERROR", "INFO", "DEBUG")

_JID: Final = 'Switchmode has no XMPP: remove it, and name a rendezvous in "signal"'
_IMPLIED: Final = "remove it: this is done by itself"
_ON_DEMAND: Final = "remove it: links are made at once and cost little when idle"
_MULTIHOP: Final = "remove it: every node has a direct or a relayed link to every other"
_SOCKETS: Final = 'remove it: controller and tincan meet in "run_dir"'
IPOP_KEYS: Final = {  # of the flat configuration of IPOP 14.07: what to do with each now
    "xmpp_username": _JID,
    "xmpp_password": 'Switchmode has no XMPP: use "secret" or "secret_file"',
    "xmpp_host": 'Switchmode has no XMPP: name a rendezvous in "signal" ("ws://HOST:8765")',
    "nick": 'use "node" instead',
    "ip6_prefix": 'use "ip6" instead, with a whole address',
    "ip6_mask": 'write it into "ip6" ("fd00::5/64")',
    "subnet_mask": 'use "ip4_mask" instead',
    "sec": "remove it: every link is encrypted",
    "wait_time": _IMPLIED,
    "buf_size": _IMPLIED,
    "local_uid": 'remove it: the id is the key in "state_dir"',
    "uid_size": 'remove it: the id is the key in "state_dir"',
    "router_mode": 'remove it: "switchmode" is the only mode',
    "on-demand_connection": _ON_DEMAND,
    "on-demand_inactive_timeout": _ON_DEMAND,
    "trim_enabled": _ON_DEMAND,
    "multihop": _MULTIHOP,
    "multihop_cl": _MULTIHOP,
    "multihop_ihc": _MULTIHOP,
    "multihop_hl": _MULTIHOP,
    "multihop_tl": _MULTIHOP,
    "multihop_sr": _MULTIHOP,
    "svpn_port": _SOCKETS,
    "contr_port": _SOCKETS,
    "localhost": _SOCKETS,
    "localhost6": _SOCKETS,
    "stat_report": "remove it: nothing is reported to anybody; see controller status",
    "stat_server": "remove it: nothing is reported to anybody; see controller status",
    "stat_server_port": "remove it: nothing is reported to anybody; see controller status",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnServer:
    """A relay for pairs of nodes that find no direct path (RFC 8656)."""

    server: HostPort
    user: str
    password: str = field(repr=False)
    transport: Literal["udp", "tcp", "tls"] = "udp"


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticBinding:
    """An address that belongs to one node (its name or id), whatever anybody else claims."""

    ip: str
    mac: str
    node: str
    vlan: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Offloads:
    """Kernel offloads that may be used where the kernel has them. Off is for finding faults."""

    gso: bool = True  # UDP_SEGMENT
    gro: bool = True  # UDP_GRO
    vnet_hdr: bool = True  # IFF_VNET_HDR on the TAP; tso and uso need it
    tso: bool = True  # TUN_F_TSO4, TUN_F_TSO6
    uso: bool = True  # TUN_F_USO4, TUN_F_USO6


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything the user has decided. The attributes are the keys of the file."""

    file: Path  # where it came from
    network: str
    secret: str = field(repr=False)  # whichever of secret and secret_file was given
    node: str
    signal: tuple[str, ...]  # URLs; empty when this controller is the rendezvous itself
    listen: Endpoint | None = None  # signal: {"listen": ...}
    stun: tuple[HostPort, ...]
    turn: tuple[TurnServer, ...] = ()
    tap: str = "ipop"
    bridge: str | None = None
    switchmode: int = 1
    icc: bool = True
    icc_port: int = 30000
    ip4: ipaddress.IPv4Interface | None = None  # ip4 and ip4_mask
    ip6: ipaddress.IPv6Interface | None = None
    network_ignore_list: tuple[str, ...] = ()
    tincan_logging: str = "INFO"  # one of LEVELS
    controller_logging: str = "INFO"
    state_dir: Path
    run_dir: Path
    dhcp: Literal["block", "relay"] = "block"  # DHCPv4 and DHCPv6 between hosts
    ra: Literal["block", "relay"] = "block"  # router advertisements between hosts
    link_local_control: bool = False  # frames to 01:80:c2:00:00:0x (spanning tree, LLDP, ...)
    static: tuple[StaticBinding, ...] = ()
    allow: Mapping[str, tuple[checks.IpNetwork, ...]] = field(default_factory=dict)
    offloads: Offloads = Offloads()
    mtu_probing: bool = True
    warnings: tuple[str, ...] = ()  # to log at start: legal, but hardly what was meant

    @property
    def control_socket(self) -> Path:
        """The socket on which a running controller answers the subcommands."""
        return self.run_dir / "controller.sock"


class _Signal(NamedTuple):
    urls: tuple[str, ...]
    listen: Endpoint | None


def load(file: Path) -> Config:
    """Read, check and return the configuration in ``file``; raise ConfigError."""
    return check(parse(read(file, Place(str(file)), MAX_FILE), str(file)), file)


def check(value: object, file: Path) -> Config:
    """Return the plain ``value`` of a parsed file as a Config; raise ConfigError.

    Reads the file that ``secret_file`` names, and asks for the host's name if ``node`` is not
    given. Paths in the file that are relative are relative to its directory.
    """
    place = Place(str(file))
    if isinstance(value, dict):
        for key in value:
            if isinstance(key, str) and key not in KEYS and key.lower() in IPOP_KEYS:
                raise (place / key).wrong("is a key of IPOP", IPOP_KEYS[key.lower()])
    given = checks.fields(value, place, KEYS, EXAMPLES)
    warnings: list[str] = []

    given["secret"] = _secret(given, place, file, warnings)
    given.pop("secret_file", None)
    signal = given.pop("signal")
    given["signal"], given["listen"] = signal.urls, signal.listen
    given.setdefault("node", _host_name(place))
    given.setdefault("stun", _stun_of(signal.urls))
    network = given["network"]
    given.setdefault("state_dir", Path("/var/lib/switchmode", network))
    given.setdefault("run_dir", Path("/run/switchmode", network))
    given["ip4"] = _ip4(given, place)

    config = Config(file=file, **given)
    _check_together(config, place, warnings)
    return dataclasses.replace(config, warnings=tuple(warnings))


def _check_together(config: Config, place: Place, warnings: list[str]) -> None:
    """Refuse or warn about what is right alone and wrong in company."""
    if config.bridge == config.tap:
        cure = "name the bridge that the TAP shall join"
        raise (place / "bridge").wrong(f'"{config.bridge}" is the TAP itself', cure)
    if len(os.fsencode(config.control_socket)) > MAX_SOCKET_PATH:
        cure = f"a socket's path may have {MAX_SOCKET_PATH} bytes: choose a shorter directory"
        raise (place / "run_dir").wrong("is too long", cure)
    if os.path.normpath(config.state_dir) == os.path.normpath(config.run_dir):
        cure = "choose two: one is kept, the other goes with the controller"
        raise (place / "run_dir").wrong('is the same directory as "state_dir"', cure)
    owners: set[tuple[str, int]] = set()
    for i, entry in enumerate(config.static):
        if (entry.ip, entry.vlan) in owners:
            raise (place / "static" / i).wrong(f'"{entry.ip}" is listed twice', "keep one entry")
        owners.add((entry.ip, entry.vlan))
    if config.bridge and (config.ip4 or config.ip6):
        key = "ip4" if config.ip4 else "ip6"
        where = (place / key).wrong(
            f'is not used while the TAP is in "{config.bridge}"', "give the bridge the address"
        )
        warnings.append(str(where))


def _secret(given: dict[str, Any], place: Place, file: Path, warnings: list[str]) -> str:
    """Return the network's secret from whichever key gives it."""
    if "secret" in given:
        if "secret_file" in given:
            raise (place / "secret_file").wrong('is given as well as "secret"', "keep one of them")
        if _readable_by_all(file):
            warnings.append(f"{file}: holds the secret and is readable by all; chmod 600 {file}")
        return cast(str, given["secret"])
    if "secret_file" not in given:
        cure = f'add "secret" or "secret_file", the same on every node; {MAKE_SECRET}'
        raise (place / "secret").wrong("is missing", cure)
    place = place / "secret_file"
    path = file.parent / given["secret_file"]
    try:
        text = read(path, place, MAX_SECRET).decode()
    except UnicodeDecodeError:
        raise place.wrong(f'"{path}" is not UTF-8 text', MAKE_SECRET) from None
    secret = _secret_text(text.rstrip("\r\n"), Place(f"{place.file}: {place.way}: {path}"))
    if _readable_by_all(path):
        warnings.append(f"{path}: holds the secret and is readable by all; chmod 600 {path}")
    return secret


def _secret_text(value: object, place: Place) -> str:
    secret = checks.text(value, place)
    if len(secret) < MIN_SECRET:
        cure = f"use at least {MIN_SECRET}, better 32 at random; {MAKE_SECRET}"
        raise place.wrong(f"has only {len(secret)} characters", cure)
    if len(secret.encode()) > MAX_SECRET:
        raise place.wrong("is too long", f"use at most {MAX_SECRET} bytes")
    return secret


def _readable_by_all(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and bool(mode & stat.S_IROTH)


def _signal(value: object, place: Place) -> _Signal:
    """A URL, a list of them, or {"listen": "HOST:PORT"}."""
    if isinstance(value, dict):
        required = {"listen": '"*:8765"'}
        given = checks.fields(value, place, {"listen": _listen}, required)
        return _Signal((), given["listen"])
    if isinstance(value, list):
        if not value:
            raise place.wrong("is empty", 'name a rendezvous: "ws://HOST:8765"')
        urls = checks.list_of(checks.signal_url, MAX_SERVERS)(value, place)
        return _Signal(tuple(dict.fromkeys(urls)), None)
    return _Signal((checks.signal_url(value, place),), None)


def _listen(value: object, place: Place) -> Endpoint:
    """``HOST:PORT``; ``*:PORT`` is every address of both families."""
    cure = 'write "HOST:PORT", or "*:PORT" for every address of this host'
    try:
        endpoint = Endpoint.parse(checks.text(value, place))
    except ValueError as error:
        raise place.wrong(str(error), cure) from None
    if endpoint.port == 0:
        raise place.wrong("has port 0", cure)
    return endpoint


def _stun_of(urls: tuple[str, ...]) -> tuple[HostPort, ...]:
    """The STUN servers that go with rendezvous: the same hosts, at the standard port."""
    hosts = (urlsplit(url).hostname for url in urls)
    return tuple(HostPort(host, STUN_PORT) for host in dict.fromkeys(hosts) if host)


def _host_name(place: Place) -> str:
    try:
        return checks.node_name(socket.gethostname(), place / "node")
    except ConfigError as error:
        cure = 'give this node a name: "node"'
        raise (place / "node").wrong(f"the host's name {error.problem}", cure) from None


def _switchmode(value: object, place: Place) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise place.wrong(f"is {checks.kind_of(value)}", "write 1, without quotes")
    if value != 1:
        cure = "write 1 or leave it out: switch mode is the only mode"
        raise place.wrong("any other mode than 1 is not supported", cure)
    return value


def _icc(value: object, place: Place) -> bool:
    if not checks.boolean(value, place):
        cure = "write true or leave it out: controllers find each other's containers through it"
        raise place.wrong("false is not supported", cure)
    return True


def _level(value: object, place: Place) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return IPOP_LEVELS[checks.whole(0, 3)(value, place)]
    if isinstance(value, str) and value.upper() in LEVELS:
        return value.upper()
    return checks.one_of(*LEVELS)(value, place)


def _ip4(given: dict[str, Any], place: Place) -> ipaddress.IPv4Interface | None:
    """Join ip4 and ip4_mask; the mask is 24 where none is given, as it was in IPOP."""
    mask = given.pop("ip4_mask", None)
    if "ip4" not in given:
        if mask is not None:
            raise (place / "ip4_mask").wrong('is given without "ip4"', 'add "ip4" or remove it')
        return None
    address = ipaddress.IPv4Interface((given["ip4"], 24 if mask is None else mask))
    network = address.network
    if network.prefixlen < 31 and address.ip in (
        network.network_address,
        network.broadcast_address,
    ):
        problem = f'"{address}" is the network itself or its broadcast address'
        raise (place / "ip4").wrong(problem, "choose another address")
    return address


def _turn_server(value: object, place: Place) -> TurnServer:
    known: dict[str, Check[Any]] = {
        "server": checks.host_port,
        "user": checks.text,
        "pass": checks.text,
        "transport": checks.one_of("udp", "tcp", "tls"),
    }
    given = checks.fields(
        value, place, known, {"server": '"HOST:3478"', "user": '"NAME"', "pass": '"PASSWORD"'}
    )
    return TurnServer(password=given.pop("pass"), **given)


def _static_binding(value: object, place: Place) -> StaticBinding:
    known: dict[str, Check[Any]] = {
        "ip": checks.ip,
        "mac": checks.mac,
        "node": checks.node_name,
        "vlan": checks.whole(0, checks.MAX_VID),
    }
    example = {"ip": '"10.0.3.5"', "mac": '"00:16:3e:01:02:03"', "node": '"NAME"'}
    return StaticBinding(**checks.fields(value, place, known, example))


def _allow(value: object, place: Place) -> dict[str, tuple[checks.IpNetwork, ...]]:
    """Peer's name or id -> the only networks from which it may claim addresses."""
    if not isinstance(value, dict):
        cure = 'write {"PEER": ["10.0.3.128/25"]}'
        raise place.wrong(f"is {checks.kind_of(value)} where an object is expected", cure)
    if len(value) > MAX_ENTRIES:
        raise place.wrong(f"has {len(value)} entries", f"keep it to {MAX_ENTRIES}")
    prefixes = checks.list_of(checks.prefix, MAX_ENTRIES)
    return {
        checks.node_name(peer, place): prefixes(entry, place / str(peer))
        for peer, entry in value.items()
    }


def _offloads(value: object, place: Place) -> Offloads:
    names = [entry.name for entry in dataclasses.fields(Offloads)]
    given = checks.fields(value, place, dict.fromkeys(names, checks.boolean))
    if given.get("vnet_hdr") is False:
        for name in ("tso", "uso"):
            if given.setdefault(name, False):
                raise (place / name).wrong('needs "vnet_hdr", which is false', "make them agree")
    return Offloads(**given)


KEYS: dict[str, Check[Any]] = {
    "network": checks.network_name,
    "secret": _secret_text,
    "secret_file": checks.text,
    "node": checks.node_name,
    "signal": _signal,
    "stun": checks.list_of(checks.host_port, MAX_SERVERS),
    "turn": checks.list_of(_turn_server, MAX_SERVERS),
    "tap": checks.interface,
    "bridge": checks.interface,
    "switchmode": _switchmode,
    "icc": _icc,
    "icc_port": checks.whole(1, 65535),
    "ip4": checks.ip4,
    "ip4_mask": checks.whole(1, 32),
    "ip6": checks.ip6,
    "network_ignore_list": checks.list_of(checks.interface, MAX_ENTRIES),
    "tincan_logging": _level,
    "controller_logging": _level,
    "state_dir": checks.directory,
    "run_dir": checks.directory,
    "dhcp": checks.one_of("block", "relay"),
    "ra": checks.one_of("block", "relay"),
    "link_local_control": checks.boolean,
    "static": checks.list_of(_static_binding, MAX_ENTRIES),
    "allow": _allow,
    "offloads": _offloads,
    "mtu_probing": checks.boolean,
}
