"""Labs as fixtures: see the lab package for what one can do with them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lab import Lab
from lab.layouts import Hosts, build


@pytest.fixture
def two_hosts_lan(lab: Lab) -> Hosts:
    """Two stock hosts and a server (for the rendezvous) on one LAN."""
    return build(lab, ["lan", "lan"])


@pytest.fixture
def two_hosts_easy_nat(lab: Lab) -> Hosts:
    """Two stock hosts, each behind an easy NAT with the same private subnet; a public server."""
    return build(lab, ["easy", "easy"])


@pytest.fixture
def hosts(lab: Lab) -> Callable[..., Hosts]:
    """Builds other layouts: `hosts("easy", "hard", profile="docker")`; see lab.layouts."""
    return lambda *places, **options: build(lab, places, **options)
