"""Links made on demand: not before there is something to make them of."""

from collections import Counter
from typing import Any, cast

import pytest

from tincan.crypto.primitives import PrivateKey
from tincan.errors import LinkError
from tincan.link.link import Link
from tincan.link.links import Identity, Links
from tincan.record.keys import OpeningKey
from tincan.record.pages import Pool
from tincan.switching.policy import Policy

PEER = "ab" * 32


class Silent:
    """Keeps keys, and reads nothing."""

    def __init__(self) -> None:
        self.keys: dict[int, OpeningKey] = {}


async def test_a_link_is_made_once_and_forgotten_when_removed() -> None:
    counters: Counter[str] = Counter()
    policy: Policy[Link] = Policy(counters, lambda *_: None)
    links = Links(policy, counters, cast(Any, None), Pool())
    with pytest.raises(LinkError, match="come first"):
        links.to(PEER)
    links.identity = Identity(PrivateKey.generate(), bytes(32), bytes(16))
    links.ports = cast(Any, Silent())
    link = links.to(PEER)
    assert links.to(PEER) is links.find(PEER) is link
    assert policy.links == [link]
    await links.remove(PEER)
    assert links.find(PEER) is None
    assert not policy.links


async def test_addresses_of_the_overlay_are_refused() -> None:
    counters: Counter[str] = Counter()
    links = Links(Policy(counters, lambda *_: None), counters, cast(Any, None), Pool())
    assert not links.refuses("192.0.2.1")
    assert links.refuses("no address")
