"""Looks whether the host's firewall drops what its bridges forward, as Docker leaves it.

With br_netfilter and bridge-nf-call-iptables=1, frames between two ports of one bridge pass the
IP firewall's forward hook, with the bridge as both interfaces. The rules are read with the host's
own tools; ``firewall_rules`` says what they do.
"""

import asyncio
import json
import shlex
import shutil
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeAlias

from controller.host.firewall_rules import Rule, Verdict, iptables_rule, nft_rule

_SYSCTL: Final = Path("/proc/sys/net/bridge")
"""The settings of br_netfilter in the network namespace of whoever reads them."""
_LEGACY_TABLES: Final = Path("/proc/net/ip_tables_names")
"""The tables of the old iptables that are in use."""
_TOOL_TIMEOUT_S: Final = 5.0
"""Time for one run of a tool."""
MAX_DEPTH: Final = 8
"""Jumps followed from one hook."""
_DOCKER: Final = "DOCKER-USER"
"""The chain that Docker leaves to the user; it rewrites FORWARD itself."""

Rules: TypeAlias = Callable[[str], Awaitable[list[Rule]]]
"""Returns the rules of a chain that match, in order."""


async def drops_bridged(bridge: str) -> str | None:
    """Return one line that names what drops frames between ports of ``bridge``, and its cure.

    Returns None if nothing does, or if the rules cannot be read.
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
    """Return whether this setting of br_netfilter is 1."""
    with suppress(OSError):
        return (_SYSCTL / sysctl).read_text().strip() == "1"
    return False


async def _output(*command: str) -> str:
    """Return what a tool prints; "" if it is not there, fails or takes too long."""
    try:
        tool = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
    except OSError:
        return ""
    try:
        async with asyncio.timeout(_TOOL_TIMEOUT_S):
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
    """Follow ``chain`` and return its verdict; RETURN if it has none."""
    for rule in await rules(chain) if depth else ():
        if isinstance(rule, Verdict):
            return rule
        verdict = await _verdict(rules, rule.chain, depth - 1)
        if verdict is not Verdict.RETURN or not rule.comes_back:
            return verdict
    return Verdict.RETURN


# --- nftables, and iptables on top of it


async def _dropping_nft_chain(family: str, bridge: str) -> tuple[str, str] | None:
    """Return the first chain of nftables that drops, as people name it, and the cure."""
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
        docker = any((c["family"], c["table"], c["name"]) == (*where, _DOCKER) for c in chains)
        name = _DOCKER if docker else chain["name"]
        table = " ".join(where)
        cure = f"nft insert rule {table} {name} iifname {bridge} oifname {bridge} accept"
        return f"chain {chain['name']} of table {table}", cure
    return None


async def _nft(*arguments: str) -> list[dict[str, Any]]:
    """Return the objects that ``nft -j`` prints."""
    with suppress(ValueError):
        found = json.loads(await _output("nft", "-j", *arguments) or "{}").get("nftables")
        return [item for item in found or () if isinstance(item, dict)]
    return []


# --- iptables with its old tables, or without the nft tool


async def _dropping_iptables_chain(bridge: str) -> tuple[str, str] | None:
    """Return ``chain FORWARD of iptables`` and the cure, if that chain drops."""
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
    """Return the command to ask, None if nft has told all. Asking loads an unused old table."""
    with suppress(OSError):
        if "filter" in _LEGACY_TABLES.read_text().split():
            return "iptables-legacy" if shutil.which("iptables-legacy") else "iptables"
    return None if shutil.which("nft") else "iptables"
