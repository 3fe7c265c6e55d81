"""Where datagrams for a peer go."""

from tincan.path.path import Path


def test_a_path_is_relayed_by_either_side() -> None:
    def path(local: str, remote: str) -> Path:
        return Path(None, ("192.0.2.1", 1), None, local, remote, ("192.0.2.1", 1))

    assert path("relay", "srflx").relayed
    assert path("prflx", "relay").relayed
    assert not path("srflx", "prflx").relayed
