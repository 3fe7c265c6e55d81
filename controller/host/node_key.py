"""Who this node is, and whom it has met: two files in ``state_dir``.

``node.key`` is the node's X25519 private key, 64 hexadecimal digits and a line end, mode 0600.
The public key is the node's id everywhere; who copies the file becomes the node.

``peers.json`` remembers the peers: their names, last addresses and our source port to each, to
redial them first after a restart, and which id a name in ``static`` or ``allow`` was first
pinned to. Losing it costs time and these pins, nothing else, so a damaged one is started anew.
"""

import logging
import os
import stat
from pathlib import Path
from typing import Final

from controller.errors import SystemRefusal
from controller.host.files import private_directory, write_private
from tincan.control.codec import DecodeError, Struct, decode, encode, field
from tincan.crypto.primitives import CryptoError, PrivateKey

KEY_FILE: Final = "node.key"
PEERS_FILE: Final = "peers.json"
MAX_PEERS: Final = 4096
"""Remembered; the one that was seen longest ago makes room."""
MAX_PINS: Final = 4096
"""Names that are pinned to an id."""
MAX_ADDRESSES: Final = 8
"""Remembered of each peer."""
MAX_TEXT: Final = 128
"""Characters of a name or an address that a peer told us."""
MAX_PEERS_FILE: Final = 8 << 20
"""Bytes: 4096 peers with everything at its limit."""

log = logging.getLogger(__name__)


def load_key(state_dir: Path) -> PrivateKey:
    """Return this node's key from ``state_dir``; make one if there is none yet.

    Raises SystemRefusal if the file cannot be read or written, is damaged, belongs to another
    user, or can be read by others.
    """
    private_directory(state_dir)
    path = state_dir / KEY_FILE
    try:
        with path.open("rb") as stream:
            status = os.fstat(stream.fileno())
            text = stream.read(256)
    except FileNotFoundError:
        key = PrivateKey.generate()
        write_private(path, key.raw.hex().encode() + b"\n")
        return key
    except OSError as error:
        raise SystemRefusal(
            f'"{path}" cannot be read: {error.strerror}', "make it readable for this user"
        ) from None
    if not stat.S_ISREG(status.st_mode):
        raise SystemRefusal(f'"{path}" is not a file', "remove it")
    if status.st_uid != os.geteuid():
        raise SystemRefusal(
            f'"{path}" belongs to another user (uid {status.st_uid})', f"sudo chown root {path}"
        )
    if status.st_mode & 0o077:
        raise SystemRefusal(
            f'"{path}" can be read by others (mode {stat.S_IMODE(status.st_mode):04o})',
            f"chmod 600 {path}, or remove it to become a new node if somebody may have read it",
        )
    try:
        return PrivateKey.from_bytes(bytes.fromhex(text.decode("ascii")))
    except (CryptoError, ValueError):
        raise SystemRefusal(
            f'"{path}" is damaged', "restore it, or remove it to become a new node"
        ) from None


class KnownPeer(Struct, frozen=True):
    """A peer as it was when we last had a link to it.

    ``addresses`` are ``host:port``, the best first; ``source_port`` is our own UDP port of that
    link; ``seen`` is in seconds since 1970.
    """

    id: str
    name: str
    addresses: tuple[str, ...] = ()
    source_port: int | None = None
    seen: float = 0.0


class _Memory(Struct):
    peers: list[KnownPeer] = field(default_factory=list)
    pins: dict[str, str] = field(default_factory=dict)  # name -> id


class KnownPeers:
    """The peers that this node remembers, in a file.

    ``remember`` and ``pin`` change the memory only; ``save`` writes it if it has changed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._peers: dict[str, KnownPeer] = {}  # in the order of last being seen
        self._pins: dict[str, str] = {}
        self._changed = False

    @classmethod
    def load(cls, state_dir: Path) -> "KnownPeers":
        """Return what was saved in ``state_dir``; nothing, and a warning, if it is damaged."""
        known = cls(state_dir / PEERS_FILE)
        try:
            with known._path.open("rb") as stream:
                memory = decode(stream.read(MAX_PEERS_FILE), _Memory)
        except FileNotFoundError:
            return known
        except (OSError, DecodeError) as error:
            log.warning("%s cannot be used, peers are learned anew: %s", known._path, error)
            return known
        latest = sorted(memory.peers, key=lambda peer: peer.seen)[-MAX_PEERS:]
        known._peers = {peer.id: peer for peer in latest}
        known._pins = dict(list(memory.pins.items())[:MAX_PINS])
        return known

    def __len__(self) -> int:
        return len(self._peers)

    def get(self, node: str) -> KnownPeer | None:
        """Return what is known of the peer with this id."""
        return self._peers.get(node)

    def remember(
        self,
        node: str,
        *,
        name: str,
        addresses: tuple[str, ...],
        source_port: int | None,
        now: float,
    ) -> None:
        """Note how the peer was reached. ``now`` is in seconds since 1970."""
        kept = tuple(address[:MAX_TEXT] for address in addresses[:MAX_ADDRESSES])
        self._peers.pop(node, None)
        self._peers[node] = KnownPeer(node, name[:MAX_TEXT], kept, source_port, now)
        while len(self._peers) > MAX_PEERS:
            del self._peers[next(iter(self._peers))]
        self._changed = True

    def pin(self, name: str, node: str) -> bool:
        """Whether ``name`` means the node with this id: the first that came with it, for good.

        False for every other id with that name, and when MAX_PINS names are pinned.
        """
        if name not in self._pins and len(self._pins) < MAX_PINS:
            self._pins[name] = node
            self._changed = True
        return self._pins.get(name) == node

    def pinned(self, name: str) -> str | None:
        """Return the id that ``name`` is pinned to."""
        return self._pins.get(name)

    def save(self) -> None:
        """Write the file if anything has changed; raise SystemRefusal if that is refused."""
        if self._changed:
            write_private(self._path, encode(_Memory(list(self._peers.values()), self._pins)))
            self._changed = False
