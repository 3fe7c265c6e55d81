"""The node's key and the peers that it remembers: private, whole, bounded."""

import os
import stat
from pathlib import Path

import pytest

from controller.errors import SystemRefusal
from controller.host import node_key as identity
from controller.host.files import write_private
from controller.host.node_key import KnownPeer, KnownPeers, load_key
from tincan.crypto.primitives import PrivateKey

ALPHA, BETA = "a" * 64, "b" * 64


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def refused(path: Path) -> str:
    with pytest.raises(SystemRefusal) as caught:
        load_key(path)
    assert str(caught.value).isprintable()
    return str(caught.value)


class TestKey:
    def test_made_once(self, tmp_path: Path) -> None:
        state = tmp_path / "state"
        key = load_key(state)
        assert mode(state) == 0o700
        assert mode(state / "node.key") == 0o600
        assert load_key(state).raw == key.raw
        assert (state / "node.key").read_text() == key.raw.hex() + "\n"
        assert list(state.iterdir()) == [state / "node.key"]

    @pytest.mark.parametrize("wrong", [0o644, 0o640, 0o604, 0o660])
    def test_readable_by_others(self, tmp_path: Path, wrong: int) -> None:
        load_key(tmp_path)
        (tmp_path / "node.key").chmod(wrong)
        text = refused(tmp_path)
        assert f"mode {wrong:04o}" in text
        assert f"chmod 600 {tmp_path}/node.key" in text

    @pytest.mark.parametrize(
        "content", [b"", b"\n", b"x" * 64, b"ab" * 31, b"ab" * 33, b"\xff" * 9]
    )
    def test_damaged(self, tmp_path: Path, content: bytes) -> None:
        write_private(tmp_path / "node.key", content)
        assert "is damaged; restore it, or remove it" in refused(tmp_path)
        assert (tmp_path / "node.key").read_bytes() == content

    def test_not_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "node.key").mkdir()
        assert "cannot be read: Is a directory" in refused(tmp_path)

    def test_of_a_past_version_of_us(self, tmp_path: Path) -> None:
        key = PrivateKey.from_bytes(bytes(range(32)))
        write_private(tmp_path / "node.key", bytes(range(32)).hex().encode())
        assert load_key(tmp_path).public == key.public

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
    def test_of_another_user(self, tmp_path: Path) -> None:
        load_key(tmp_path)
        os.chown(tmp_path / "node.key", 12345, -1)
        assert "belongs to another user (uid 12345)" in refused(tmp_path)


class TestKnownPeers:
    def remember(self, known: KnownPeers, node: str, now: float = 1.0) -> None:
        known.remember(node, name="beta", addresses=("192.0.2.1:4711",), source_port=40000, now=now)

    def test_survives_a_restart(self, tmp_path: Path) -> None:
        known = KnownPeers.load(tmp_path)
        assert len(known) == 0
        self.remember(known, BETA)
        assert known.pin("beta", BETA)
        known.save()
        assert mode(tmp_path / "peers.json") == 0o600
        again = KnownPeers.load(tmp_path)
        assert again.get(BETA) == KnownPeer(BETA, "beta", ("192.0.2.1:4711",), 40000, 1.0)
        assert again.get(ALPHA) is None
        assert again.pinned("beta") == BETA

    def test_is_written_only_when_changed(self, tmp_path: Path) -> None:
        known = KnownPeers.load(tmp_path)
        known.save()
        assert not (tmp_path / "peers.json").exists()

    def test_a_name_means_the_first_id_that_had_it(self, tmp_path: Path) -> None:
        known = KnownPeers.load(tmp_path)
        assert known.pin("beta", BETA)
        assert not known.pin("beta", ALPHA)
        assert known.pin("beta", BETA)
        assert known.pin("alpha", ALPHA)
        assert known.pinned("gamma") is None

    def test_bounds(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(identity, "MAX_PEERS", 2)
        monkeypatch.setattr(identity, "MAX_PINS", 1)
        known = KnownPeers.load(tmp_path)
        for i, node in enumerate([ALPHA, BETA, ALPHA, "c" * 64]):
            self.remember(known, node, now=float(i))
        assert len(known) == 2
        assert known.get(BETA) is None  # seen longest ago
        known.remember(
            BETA, name="n" * 1000, addresses=("a" * 1000,) * 100, source_port=None, now=9.0
        )
        peer = known.get(BETA)
        assert peer is not None
        assert len(peer.name) == identity.MAX_TEXT
        assert len(peer.addresses) == identity.MAX_ADDRESSES
        assert known.pin("one", ALPHA)
        assert not known.pin("two", BETA)
        known.save()
        monkeypatch.setattr(identity, "MAX_PEERS", 1)
        assert KnownPeers.load(tmp_path).get(BETA) is not None  # the latest

    @pytest.mark.parametrize(
        "content", [b"", b"{", b"[]", b'{"peers": [{"id": 5}]}', b"\xff", b"[" * 9999]
    )
    def test_damaged_is_started_anew(
        self, tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "peers.json").write_bytes(content)
        known = KnownPeers.load(tmp_path)
        assert len(known) == 0
        assert "learned anew" in caplog.text
        self.remember(known, BETA)
        known.save()
        assert len(KnownPeers.load(tmp_path)) == 1
