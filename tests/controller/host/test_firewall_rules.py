"""Rules as the tools print them; the tools themselves are in tests/netns/test_netlink.py."""

import json
import shlex

import pytest

from controller.host.firewall_rules import Jump, Verdict, iptables_rule, nft_rule


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("-j DROP", Verdict.DROP),
        ("-j REJECT --reject-with icmp-host-prohibited", Verdict.DROP),
        ("-j DOCKER-USER", Jump("DOCKER-USER", True)),
        ("-g DOCKER-USER", Jump("DOCKER-USER", False)),
        ("-i lxcbr0 -j ACCEPT", Verdict.ACCEPT),
        ("-i lxc+ -o lxcbr0 -j ACCEPT", Verdict.ACCEPT),
        ("-i docker0 -j DROP", None),
        ("! -i lxcbr0 -o lxcbr0 -j ACCEPT", None),
        ("! -i docker0 -o lxcbr0 -j ACCEPT", Verdict.ACCEPT),
        ("-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", None),
        ("-m conntrack --ctstate NEW -j ACCEPT", Verdict.ACCEPT),
        ('-m comment --comment "let it be" -j ACCEPT', Verdict.ACCEPT),
        ("-m physdev --physdev-is-bridged -j ACCEPT", Verdict.ACCEPT),
        ("-m physdev ! --physdev-is-bridged -j ACCEPT", None),
        ("-s 10.0.3.0/24 -j ACCEPT", None),
        ("-p tcp -m tcp --dport 22 -j ACCEPT", None),
        ("-m set --match-set blocked src -j DROP", None),
        ("-m comment --comment 'counts only'", None),
    ],
)
def test_iptables_rules(rule: str, expected: object) -> None:
    assert iptables_rule(shlex.split(rule), "lxcbr0") == expected


IIF = '{"match": {"op": "%s", "left": {"meta": {"key": "iifname"}}, "right": %s}}'
STATE = '{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": %s}}'


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ('[{"counter": {"packets": 0, "bytes": 0}}, {"drop": null}]', Verdict.DROP),
        ('[{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}]', Verdict.DROP),
        ('[{"return": null}]', Verdict.RETURN),
        ('[{"jump": {"target": "X"}}]', Jump("X", True)),
        ('[{"goto": {"target": "X"}}]', Jump("X", False)),
        (f'[{IIF % ("==", json.dumps("lxcbr0"))}, {{"accept": null}}]', Verdict.ACCEPT),
        (f'[{IIF % ("==", json.dumps("lxc*"))}, {{"accept": null}}]', Verdict.ACCEPT),
        (f'[{IIF % ("!=", json.dumps("lxcbr0"))}, {{"accept": null}}]', None),
        (f'[{IIF % ("==", json.dumps({"set": ["a", "lxcbr0"]}))}, {{"drop": null}}]', Verdict.DROP),
        (f'[{IIF % ("==", json.dumps("@trusted"))}, {{"accept": null}}]', None),
        (f'[{STATE % json.dumps(["established", "related"])}, {{"accept": null}}]', None),
        (f'[{STATE % json.dumps(["established", "new"])}, {{"accept": null}}]', Verdict.ACCEPT),
        ('[{"xt": {"type": "match", "name": "physdev"}}, {"accept": null}]', Verdict.ACCEPT),
        ('[{"xt": {"type": "match", "name": "conntrack"}}, {"accept": null}]', None),
        ('[{"xt": {"type": "target", "name": "REJECT"}}]', Verdict.DROP),
        ('[{"xt": null}, {"accept": null}]', None),
        ('[{"vmap": {"key": {"meta": {"key": "iifname"}}, "data": {"set": []}}}]', None),
    ],
)
def test_nft_rules(rule: str, expected: object) -> None:
    assert nft_rule(json.loads(rule), "lxcbr0") == expected


def test_what_nft_has_not_printed_yet_is_nothing_certain() -> None:
    """A newer nft must not end the controller."""
    for strange in ({}, {"match": None}, {"jump": None}, "text", None):
        assert nft_rule([strange], "br0") is None  # type: ignore[list-item]
