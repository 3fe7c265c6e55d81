"""The figures for Prometheus."""

import re

from controller.routes.messages import subscribe
from controller.routes.metrics import as_text
from tests.controller.routes.world import A1, NET1, VNI, Stranger, add, speaker


def test_every_line_is_of_the_format_and_says_what_is() -> None:
    node = speaker()
    a, b = (Stranger.established(node, name) for name in ("a", 'b "\\\n'))
    b.say(subscribe(VNI))
    a.say(add(NET1, A1) * 2)
    text = as_text(node).decode()
    line = re.compile(r'(# (HELP|TYPE) .*|[a-z_]+(\{[a-z]+="([^"\\\n]|\\.)*"\})? \d+)')
    assert [each for each in text.splitlines() if not line.fullmatch(each)] == []
    for wanted in (
        'metalbond_peers{state="ESTABLISHED"} 2',
        'metalbond_routes{vni="23"} 1',
        "metalbond_updates_in_total 2",
        'metalbond_dropped_total{reason="added_twice"} 1',
        'metalbond_unread_bytes{peer="b \\"\\\\\\n"} ',
    ):
        assert wanted in text
