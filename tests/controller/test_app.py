"""The composition, as far as it goes without a kernel and without tincan."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from controller.app import App, _policy
from controller.config.load import check
from controller.config.settings import Config
from controller.errors import SystemRefusal
from controller.host.netlink import Netlink
from controller.host.node_key import KnownPeers
from tincan.crypto.primitives import PrivateKey

KEY = PrivateKey.from_bytes(bytes(range(32)))
OTHER = "b" * 64


def config(tmp_path: Path, **more: Any) -> Config:
    given: dict[str, Any] = {
        "network": "lab",
        "secret": "correct horse battery",
        "signal": "ws://r",
        "node": "alpha",
        "state_dir": str(tmp_path / "state"),
        "run_dir": str(tmp_path / "run"),
    }
    return check({**given, **more}, tmp_path / "switch.json")


def app(config: Config) -> App:
    """Return an app whose netlink is never opened: nothing here may ask the kernel."""
    return App(config, KEY, Netlink())


async def test_the_tap_never_lends_its_mac_to_a_bridge(tmp_path: Path) -> None:
    """A bridge takes the lowest MAC of its ports."""
    made = app(config(tmp_path))
    assert made._tap_mac() == app(config(tmp_path))._tap_mac()
    assert made._tap_mac().startswith("fe:")
    assert len(made._tap_mac()) == 17


async def test_sources_before_the_start(tmp_path: Path) -> None:
    made = app(config(tmp_path))
    sources = made.sources()
    assert sources.node == KEY.public.hex()
    assert (sources.tap.state, sources.tap.bridge_name) == ("absent", None)
    assert sources.loops.warnings() == []
    assert sources.loops.refusals() == []
    assert sources.peers() == {}
    assert sources.name(OTHER) == OTHER[:8]
    assert list(sources.signals()) == []
    assert (sources.tap_offloads(), sources.capturing()) == ([], False)
    assert sources.snapshot()["bindings"] == []
    for ask in (sources.links, sources.fdb, sources.tincan_counters):
        with pytest.raises(SystemRefusal):
            await ask()


async def test_sources_follow_the_switch(tmp_path: Path) -> None:
    made = app(config(tmp_path))
    sources = made.sources()
    made.proxy.bridge_addresses(frozenset({("10.0.3.1", "02:00:00:00:00:01")}))
    (found,) = sources.snapshot()["bindings"]
    assert (found["ip"], found["at"], found["state"]) == ("10.0.3.1", "local", "host")
    assert sources.counters is made.counters


async def test_an_app_that_never_started_gives_everything_back(tmp_path: Path) -> None:
    made = app(config(tmp_path))
    async with asyncio.timeout(10):
        await made.stop()
    assert not [*os.scandir(tmp_path)]


def test_policy_pins_our_own_name_and_those_of_earlier_runs(tmp_path: Path) -> None:
    static = [{"ip": "10.0.3.7", "mac": "02:00:00:00:00:07", "node": "beta"}]
    known = KnownPeers(tmp_path / "peers.json")
    known.pin("beta", OTHER)
    known.pin("nobody mentions this one", "c" * 64)
    known.pin("alpha", "d" * 64)
    made = _policy(
        config(tmp_path, static=static, allow={"alpha": ["10.0.3.0/25"]}), known, KEY.public.hex()
    )
    assert made.names == {"beta": OTHER, "alpha": KEY.public.hex()}
    assert made.is_static((0, "10.0.3.7"))
