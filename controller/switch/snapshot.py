"""What the switch knows, for people: plain containers, as ``status`` and ``bindings`` show it."""

from typing import Any

from controller.packets.addresses import NodeId
from controller.switch.conflicts import Duplicates
from controller.switch.gateways import Gateways
from controller.switch.policy import Policy
from controller.switch.segment import Segment
from controller.switch.table import Binding, Origin


def take(
    segment: Segment,
    policy: Policy,
    gateways: Gateways,
    duplicates: Duplicates,
    refusals: dict[tuple[NodeId, str], tuple[int, float]],
    now: float,
) -> dict[str, Any]:
    """Return bindings, conflicts, gateways, blocked and warnings; ``at`` is ``local`` or an id.

    A binding's ``state``: ``alive``; ``static``; ``host`` (a bridge's own address);
    ``unreachable`` (its node is not connected); ``conflict`` (another uses it, too); ``frozen``.
    """
    frozen = set(duplicates.frozen(now))
    contested = {conflict.key for conflict in duplicates}

    def at(node: NodeId) -> str:
        return "local" if node == segment.id else node

    def state(binding: Binding) -> str:
        if binding.key in contested:
            return "conflict"
        if binding.key in frozen:
            return "frozen"
        if not segment.reachable(binding):
            return "unreachable"
        if policy.is_static(binding.key):
            return "static"
        return "host" if binding.origin is Origin.BRIDGE else "alive"

    def age(binding: Binding) -> float:
        # A remote owner's node vouches for it all the time while it is connected.
        remote = binding.node in segment.peers
        return 0.0 if remote else round(max(0.0, now - binding.confirmed), 1)

    return {
        "bindings": [
            {
                "ip": b.ip,
                "mac": b.mac,
                "vlan": b.vlan,
                "at": at(b.node),
                "state": state(b),
                "age_s": age(b),
                "since_s": round(max(0.0, now - b.changed), 1),
            }
            for b in segment.table
        ],
        "conflicts": [
            {
                "ip": c.key[1],
                "vlan": c.key[0],
                "mac": c.mac,
                "at": at(c.node),
                "other_mac": c.contender_mac,
                "other_at": at(c.contender_node),
                "state": "frozen" if c.key in frozen else "conflict",
                "age_s": round(now - c.since, 1),
            }
            for c in duplicates
        ],
        "gateways": gateways.shared(),
        "blocked": [
            {"kind": "claim", "peer": at(node), "why": why, "count": count, "age_s": now - last}
            for (node, why), (count, last) in refusals.items()
        ],
        "warnings": [
            *(f"{key[1]} moved too often and is frozen where it is" for key in sorted(frozen)),
            *(
                [
                    "this host cannot reach containers on other hosts while its bridge address is "
                    "another host's, too: give the bridges different addresses and MACs"
                ]
                if segment.counters["host_packets_refused"] and gateways.own_macs & gateways.macs
                else []
            ),
        ],
    }
