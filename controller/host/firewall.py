"""Whether the host's firewall drops what its bridges forward, as Docker leaves it.

With br_netfilter and bridge-nf-call-iptables=1, frames between two ports of one bridge pass the
IP firewall's forward hook, with the bridge as both interfaces. The rules are read with the host's
own tools and followed for a new connection, as far as they speak of nothing else: a rule with any
other condition is taken not to match.
"""

import asyncio
import json
import shlex
import shutil
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, TypeAlias

_SYSCTL: Final = Path("/proc/sys/net/bridge")
"""Of the reader's network namespace."""
_LEGACY_TABLES: Final = Path("/proc/net/ip_tables_names")
_TIMEOUT: Final = 5.0
"""In seconds: for one run of a tool."""
MAX_DEPTH: Final = 8
"""Jumps followed from one hook."""


class Verdict(Enum):
    ACCEPT = "accept"
    DROP = "drop"
    RETURN = "return"


@dataclass(frozen=True, slots=True)
class Jump:
    chain: str
    comes_back: bool


Rule: TypeAlias = Verdict | Jump
Rules: TypeAlias = Callable[[str], Awaitable[list[Rule]]]  # of a chain, those that match


async def drops_bridged(bridge: str) -> str | None:
    """One line that names what drops frames between ports of ``bridge``, and its cure, or None.

    None also when the rules cannot be read.
    """
    for family, sysctl in (("ip", "bridge-nf-call-iptables"), ("ip6", "bridge-nf-call-ip6tables")):
        if not _is_on(sysctl):
            continue
        found = await _dropping_nft_chain(family, bridge)
        if found is None and family == "ip":
            found = await _dropping_iptables_chain(bridge)
        if found is not None:
            chain, cure = found
            return (
                f"{sysctl} is 1 and the firewall's {chain} drops what {bridge} forwards between"
                f" its ports: run `{cure}`, or `sysctl -w net.bridge.{sysctl}=0`"
            )
    return None


def _is_on(sysctl: str) -> bool:
    with suppress(OSError):
        return (_SYSCTL / sysctl).read_text().strip() == "1"
    return False


async def _output(*command: str) -> str:
    """What the tool prints; nothing if it is not there, refuses, or takes too long."""
    try:
        tool = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
    except OSError:
        return ""
    try:
        async with asyncio.timeout(_TIMEOUT):
            output, _ = await tool.communicate()
    except TimeoutError:
        return ""
    finally:
        if tool.returncode is None:
            with suppress(ProcessLookupError):
                tool.kill()
            await tool.wait()
    return output.decode(errors="replace") if tool.returncode == 0 else ""


async def _verdict(rules: Rules, chain: str, depth: int = MAX_DEPTH) -> Verdict:
    for rule in await rules(chain) if depth else ():
        if isinstance(rule, Verdict):
            return rule
        verdict = await _verdict(rules, rule.chain, depth - 1)
        if verdict is not Verdict.RETURN or not rule.comes_back:
            return verdict
    return Verdict.RETURN


# --- nftables, and iptables on top of it


async def _dropping_nft_chain(family: str, bridge: str) -> tuple[str, str] | None:
    chains = [item["chain"] for item in await _nft("list", "chains") if "chain" in item]
    for chain in chains:
        if chain.get("hook") != "forward" or chain["family"] not in (family, "inet"):
            continue
        where = (chain["family"], chain["table"])

        async def rules(name: str, where: tuple[str, str] = where) -> list[Rule]:
            listed = await _nft("list", "chain", *where, name)
            found = (nft_rule(i["rule"]["expr"], bridge) for i in listed if "rule" in i)
            return [rule for rule in found if rule is not None]

        verdict = await _verdict(rules, chain["name"])
        if verdict is Verdict.ACCEPT:
            continue
        if verdict is Verdict.RETURN and chain.get("policy") != "drop":
            continue
        # Docker leaves DOCKER-USER to the user, and rewrites FORWARD.
        docker = any((c["family"], c["table"], c["name"]) == (*where, _DOCKER) for c in chains)
        name = _DOCKER if docker else chain["name"]
        table = " ".join(where)
        cure = f"nft insert rule {table} {name} iifname {bridge} oifname {bridge} accept"
        return f"chain {chain['name']} of table {table}", cure
    return None


_DOCKER: Final = "DOCKER-USER"


async def _nft(*arguments: str) -> list[dict[str, Any]]:
    with suppress(ValueError):
        found = json.loads(await _output("nft", "-j", *arguments) or "{}").get("nftables")
        return [item for item in found or () if isinstance(item, dict)]
    return []


def nft_rule(expressions: list[dict[str, Any]], bridge: str) -> Rule | None:
    """What a rule, as ``nft -j`` prints it, does with bridged packets; None if nothing certain."""
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
    left, right = match.get("left"), match.get("right")
    values = right.get("set") if isinstance(right, dict) else right
    values = values if isinstance(values, list) else [values]
    if left in ({"meta": {"key": "iifname"}}, {"meta": {"key": "oifname"}}):
        equal = any(isinstance(v, str) and fnmatchcase(bridge, v) for v in values)
        return equal != (match.get("op") == "!=")
    return left == {"ct": {"key": "state"}} and "new" in values and match.get("op") != "!="


# --- iptables with its old tables, or without the nft tool


async def _dropping_iptables_chain(bridge: str) -> tuple[str, str] | None:
    command = _iptables()
    chains: dict[str, list[Rule]] = {}
    policy = "ACCEPT"
    for line in (await _output(command, "-S")).splitlines() if command else ():
        words = shlex.split(line)
        if words[:2] == ["-P", "FORWARD"]:
            policy = words[2]
        elif words[:1] == ["-N"]:
            chains[words[1]] = []
        elif words[:1] == ["-A"]:
            rule = iptables_rule(words[2:], bridge)
            chains.setdefault(words[1], []).extend([rule] if rule is not None else [])

    async def rules(name: str) -> list[Rule]:
        return chains.get(name, [])

    verdict = await _verdict(rules, "FORWARD")
    if verdict is Verdict.ACCEPT or (verdict is Verdict.RETURN and policy != "DROP"):
        return None
    name = _DOCKER if _DOCKER in chains else "FORWARD"
    return "chain FORWARD of iptables", f"{command} -I {name} -i {bridge} -o {bridge} -j ACCEPT"


def _iptables() -> str | None:
    """The command to ask, if nft has not told all. Asking for an unused old table would load it."""
    with suppress(OSError):
        if "filter" in _LEGACY_TABLES.read_text().split():
            return "iptables-legacy" if shutil.which("iptables-legacy") else "iptables"
    return None if shutil.which("nft") else "iptables"


def iptables_rule(words: list[str], bridge: str) -> Rule | None:
    """The same for the words behind ``-A CHAIN`` in the output of ``iptables -S``."""
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
    if option in ("-i", "-o"):
        return fnmatchcase(bridge, value[:-1] + "*" if value.endswith("+") else value)
    if option in ("--ctstate", "--state"):
        return "NEW" in value.split(",")
    return option in ("-m", "--comment") and value not in ("set", "addrtype")
