"""The start: what a controller needs before it makes anything."""

from pathlib import Path

import pytest

from controller.errors import SystemRefusal
from controller.start import check_rights

ALL = "Name:\tpython\nCapEff:\t000001ffffffffff\n"


class TestRights:
    def test_enough(self, tmp_path: Path) -> None:
        (tmp_path / "tun").touch()
        check_rights(tmp_path / "tun", ALL)

    @pytest.mark.parametrize(
        ("effective", "told"),
        [
            ("0000000000000000", "(CAP_NET_ADMIN, CAP_NET_RAW missing); run as root (sudo)"),
            ("0000000000001000", "(CAP_NET_RAW missing)"),
            ("0000000000002000", "(CAP_NET_ADMIN missing)"),
        ],
    )
    def test_capabilities(self, tmp_path: Path, effective: str, told: str) -> None:
        with pytest.raises(SystemRefusal) as caught:
            check_rights(tmp_path, f"CapEff:\t{effective}\n")
        assert told in str(caught.value)

    def test_device(self, tmp_path: Path) -> None:
        with pytest.raises(SystemRefusal, match="does not exist; sudo modprobe tun"):
            check_rights(tmp_path / "tun", ALL)
        with pytest.raises(SystemRefusal, match="cannot be opened: Is a directory"):
            check_rights(tmp_path, ALL)
