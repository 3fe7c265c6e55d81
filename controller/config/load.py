"""Loading a configuration: a JSON or YAML file, refused at start or right for good.

``load`` returns a ``Config``, or raises ConfigError with the file, the place in it, the problem
and the cure, as one line. A key that nobody reads is refused: a setting that is silently ignored
is worse than a program that does not start.
"""

import dataclasses
import ipaddress
import os
import socket
import stat
from pathlib import Path
from typing import Any, Final, NamedTuple, cast
from urllib.parse import urlsplit

from controller.config import values
from controller.config.endpoint import STUN_PORT, Endpoint, listener, server
from controller.config.ipop import IPOP_KEYS, IPOP_LEVELS
from controller.config.settings import Config, Offloads, TurnServer
from controller.config.text import MAX_FILE_BYTES, parse, read
from controller.config.values import Check, IpNetwork, Place
from controller.errors import ConfigError
from controller.packets.addresses import StaticBinding

MAX_SECRET_BYTES: Final = 1024
MIN_SECRET: Final = 8
"""Characters of the shortest secret."""
MAX_SERVERS: Final = 16
"""Entries in each of ``signal``, ``stun`` and ``turn``."""
MAX_ENTRIES: Final = 10_000
"""Entries in ``static``, in ``allow``, and in the list of one peer there."""
MAX_SOCKET_PATH_BYTES: Final = 107
"""The longest path of a unix socket: sun_path (unix(7)) less its terminating zero."""
EXAMPLES: Final = {"network": '"NAME"', "signal": '"ws://HOST:8765"'}
"""The keys that are always required, and what an error shows where one is missing."""
MAKE_SECRET: Final = "make one with: openssl rand -base64 24"
LEVELS: Final = ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG")


class _Signal(NamedTuple):
    """The two attributes that the key ``signal`` becomes."""

    urls: tuple[str, ...]
    listen: Endpoint | None


def load(file: Path) -> Config:
    """Read, check and return the configuration in ``file``; raise ConfigError."""
    return check(parse(read(file, Place(str(file)), MAX_FILE_BYTES), str(file)), file)


def check(value: object, file: Path) -> Config:
    """Return the plain ``value`` of the parsed ``file`` as a Config; raise ConfigError.

    Reads the file that ``secret_file`` names, and asks for the host's name if ``node`` is not
    given. Relative paths in the file are relative to its directory.
    """
    place = Place(str(file))
    if isinstance(value, dict):
        for key in value:
            if isinstance(key, str) and key not in KEYS and key.lower() in IPOP_KEYS:
                raise (place / key).wrong("is a key of IPOP", IPOP_KEYS[key.lower()])
    given = values.fields(value, place, KEYS, EXAMPLES)
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
    """Refuse values that are right alone but contradict each other, or warn about them."""
    if config.bridge == config.tap:
        cure = "name the bridge that the TAP shall join"
        raise (place / "bridge").wrong(f'"{config.bridge}" is the TAP itself', cure)
    if len(os.fsencode(config.control_socket)) > MAX_SOCKET_PATH_BYTES:
        cure = f"a socket's path may have {MAX_SOCKET_PATH_BYTES} bytes: choose a shorter directory"
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
        text = read(path, place, MAX_SECRET_BYTES).decode()
    except UnicodeDecodeError:
        raise place.wrong(f'"{path}" is not UTF-8 text', MAKE_SECRET) from None
    secret = _secret_text(text.rstrip("\r\n"), Place(f"{place.file}: {place.path}: {path}"))
    if _readable_by_all(path):
        warnings.append(f"{path}: holds the secret and is readable by all; chmod 600 {path}")
    return secret


def _secret_text(value: object, place: Place) -> str:
    """Check for a secret of acceptable length."""
    secret = values.text(value, place)
    if len(secret) < MIN_SECRET:
        cure = f"use at least {MIN_SECRET}, better 32 at random; {MAKE_SECRET}"
        raise place.wrong(f"has only {len(secret)} characters", cure)
    if len(secret.encode()) > MAX_SECRET_BYTES:
        raise place.wrong("is too long", f"use at most {MAX_SECRET_BYTES} bytes")
    return secret


def _readable_by_all(path: Path) -> bool:
    """Return whether ``path`` is a file that every user of the machine may read."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and bool(mode & stat.S_IROTH)


def _signal(value: object, place: Place) -> _Signal:
    """Check for a URL, a list of them, or {"listen": "HOST:PORT"}."""
    if isinstance(value, dict):
        required = {"listen": '"*:8765"'}
        given = values.fields(value, place, {"listen": listener}, required)
        return _Signal((), given["listen"])
    if isinstance(value, list):
        if not value:
            raise place.wrong("is empty", 'name a rendezvous: "ws://HOST:8765"')
        urls = values.list_of(values.signal_url, MAX_SERVERS)(value, place)
        return _Signal(tuple(dict.fromkeys(urls)), None)
    return _Signal((values.signal_url(value, place),), None)


def _stun_of(urls: tuple[str, ...]) -> tuple[Endpoint, ...]:
    """Return the STUN servers that go with the rendezvous: their hosts, at the standard port."""
    hosts = (urlsplit(url).hostname for url in urls)
    return tuple(Endpoint(host, STUN_PORT) for host in dict.fromkeys(hosts) if host)


def _host_name(place: Place) -> str:
    """Return this host's name as the node's name."""
    try:
        return values.node_name(socket.gethostname(), place / "node")
    except ConfigError as error:
        cure = 'give this node a name: "node"'
        raise (place / "node").wrong(f"the host's name {error.problem}", cure) from None


def _switchmode(value: object, place: Place) -> int:
    """Check for 1."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise place.wrong(f"is {values.kind_of(value)}", "write 1, without quotes")
    if value != 1:
        cure = "write 1 or leave it out: switch mode is the only mode"
        raise place.wrong("any other mode than 1 is not supported", cure)
    return value


def _icc(value: object, place: Place) -> bool:
    """Check for ``true``."""
    if not values.boolean(value, place):
        cure = "write true or leave it out: controllers find each other's containers through it"
        raise place.wrong("false is not supported", cure)
    return True


def _level(value: object, place: Place) -> str:
    """Check for one of LEVELS, in any case, or one of IPOP's numbers."""
    if isinstance(value, int) and not isinstance(value, bool):
        return IPOP_LEVELS[values.whole(0, 3)(value, place)]
    if isinstance(value, str) and value.upper() in LEVELS:
        return value.upper()
    return values.one_of(*LEVELS)(value, place)


def _ip4(given: dict[str, Any], place: Place) -> ipaddress.IPv4Interface | None:
    """Join ``ip4`` and ``ip4_mask``, which is 24 if it is not given, as in IPOP."""
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
    """Check for an entry of ``turn``."""
    known: dict[str, Check[Any]] = {
        "server": server,
        "user": values.text,
        "pass": values.text,
        "transport": values.one_of("udp", "tcp", "tls"),
    }
    given = values.fields(
        value, place, known, {"server": '"HOST:3478"', "user": '"NAME"', "pass": '"PASSWORD"'}
    )
    return TurnServer(password=given.pop("pass"), **given)


def _static_binding(value: object, place: Place) -> StaticBinding:
    """Check for an entry of ``static``."""
    known: dict[str, Check[Any]] = {
        "ip": values.ip,
        "mac": values.mac,
        "node": values.node_name,
        "vlan": values.whole(0, values.MAX_VID),
    }
    example = {"ip": '"10.0.3.5"', "mac": '"00:16:3e:01:02:03"', "node": '"NAME"'}
    return StaticBinding(**values.fields(value, place, known, example))


def _allow(value: object, place: Place) -> dict[str, tuple[IpNetwork, ...]]:
    """Check for an object of lists: by a peer's name or id, the networks it may claim from."""
    if not isinstance(value, dict):
        cure = 'write {"PEER": ["10.0.3.128/25"]}'
        raise place.wrong(f"is {values.kind_of(value)} where an object is expected", cure)
    if len(value) > MAX_ENTRIES:
        raise place.wrong(f"has {len(value)} entries", f"keep it to {MAX_ENTRIES}")
    prefixes = values.list_of(values.prefix, MAX_ENTRIES)
    return {
        values.node_name(peer, place): prefixes(entry, place / str(peer))
        for peer, entry in value.items()
    }


def _offloads(value: object, place: Place) -> Offloads:
    """Check for an object of booleans that agree with each other."""
    names = [entry.name for entry in dataclasses.fields(Offloads)]
    given = values.fields(value, place, dict.fromkeys(names, values.boolean))
    if given.get("vnet_hdr") is False:
        for name in ("tso", "uso"):
            if given.setdefault(name, False):
                raise (place / name).wrong('needs "vnet_hdr", which is false', "make them agree")
    return Offloads(**given)


KEYS: Final[dict[str, Check[Any]]] = {
    "network": values.network_name,
    "secret": _secret_text,
    "secret_file": values.text,
    "node": values.node_name,
    "signal": _signal,
    "stun": values.list_of(server, MAX_SERVERS),
    "turn": values.list_of(_turn_server, MAX_SERVERS),
    "tap": values.interface,
    "bridge": values.interface,
    "switchmode": _switchmode,
    "icc": _icc,
    "icc_port": values.whole(1, 65535),
    "ip4": values.ip4,
    "ip4_mask": values.whole(1, 32),
    "ip6": values.ip6,
    "network_ignore_list": values.list_of(values.interface, MAX_ENTRIES),
    "tincan_logging": _level,
    "controller_logging": _level,
    "state_dir": values.directory,
    "run_dir": values.directory,
    "dhcp": values.one_of("block", "relay"),
    "ra": values.one_of("block", "relay"),
    "link_local_control": values.boolean,
    "static": values.list_of(_static_binding, MAX_ENTRIES),
    "allow": _allow,
    "offloads": _offloads,
    "mtu_probing": values.boolean,
}
"""The keys that a file may have, and the check of each."""
