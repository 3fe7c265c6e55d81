"""Verdicts of a firewall's rules about frames that a bridge forwards. Pure.

A rule is judged for a new connection with the bridge as both interfaces. One with any other
condition is taken not to match.
"""

from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any, TypeAlias


class Verdict(Enum):
    """The decision of a rule or a chain; RETURN leaves it to the caller of the chain."""

    ACCEPT = "accept"
    DROP = "drop"
    RETURN = "return"


@dataclass(frozen=True, slots=True)
class Jump:
    """A rule that goes on in another chain."""

    chain: str
    comes_back: bool
    """True if the rules after this one count when that chain decides nothing."""


Rule: TypeAlias = Verdict | Jump


def nft_rule(expressions: list[dict[str, Any]], bridge: str) -> Rule | None:
    """Return what a rule, as ``nft -j`` prints it, does with every bridged packet, or None."""
    for expression in expressions:
        if not isinstance(expression, dict) or not expression:
            return None
        kind, value = next(iter(expression.items()))
        name = value.get("name") if isinstance(value, dict) else None
        if kind in ("accept", "return"):
            return Verdict(kind)
        if kind in ("drop", "reject") or (kind == "xt" and name in ("DROP", "REJECT")):
            return Verdict.DROP
        if kind in ("jump", "goto", "match") and not isinstance(value, dict):
            return None
        if kind in ("jump", "goto"):
            return Jump(value["target"], kind == "jump")
        holds = kind in ("counter", "log") or (kind == "xt" and name in ("comment", "physdev"))
        if not holds and not (kind == "match" and _nft_matches(value, bridge)):
            return None
    return None


def _nft_matches(match: dict[str, Any], bridge: str) -> bool:
    """Return whether a condition holds for every new connection across ``bridge``."""
    left, right = match.get("left"), match.get("right")
    values = right.get("set") if isinstance(right, dict) else right
    values = values if isinstance(values, list) else [values]
    if left in ({"meta": {"key": "iifname"}}, {"meta": {"key": "oifname"}}):
        equal = any(isinstance(v, str) and fnmatchcase(bridge, v) for v in values)
        return equal != (match.get("op") == "!=")
    return left == {"ct": {"key": "state"}} and "new" in values and match.get("op") != "!="


def iptables_rule(words: list[str], bridge: str) -> Rule | None:
    """Return the same for the words after ``-A CHAIN`` in the output of ``iptables -S``."""
    rest = iter(words)
    negated = False
    for word in rest:
        if word == "!":
            negated = True
            continue
        if word == "--physdev-is-bridged":
            holds = not negated
        else:
            value = next(rest, "")
            if word == "-j" and value in ("ACCEPT", "DROP", "RETURN", "REJECT"):
                return Verdict.DROP if value == "REJECT" else Verdict(value.lower())
            if word in ("-j", "-g"):
                return Jump(value, word == "-j")  # to LOG and the like: an empty chain
            holds = _iptables_matches(word, value, bridge) != negated
        if not holds:
            return None
        negated = False
    return None


def _iptables_matches(option: str, value: str, bridge: str) -> bool:
    """Return whether a condition holds for every new connection across ``bridge``."""
    if option in ("-i", "-o"):
        return fnmatchcase(bridge, value[:-1] + "*" if value.endswith("+") else value)
    if option in ("--ctstate", "--state"):
        return "NEW" in value.split(",")
    return option in ("-m", "--comment") and value not in ("set", "addrtype")
