"""This overlay, as it is shipped: `controller` with its defaults on each host, one `rendezvous`."""

import contextlib
from typing import TYPE_CHECKING, Any, cast

from lab.bench.contenders.contender import Contender
from lab.bench.topology import ADDRESSES, Site
from lab.errors import LabError
from lab.processes import Controller, Rendezvous, wait_until

if TYPE_CHECKING:
    from lab.host import Host

TAP = "ipop"
IFF_VNET_HDR = 0x4000
OFFLOADS = ("tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-udp-segmentation")

# Counters that may move under a work, by the beginning of their names. Every other one that tells
# of something dropped, and any of a fallback, makes the figure invalid.
BAD = ("dropped", "fallback")
OVERLOAD = ("frames_dropped.queue_full", "frames_dropped.tap_full", "records_dropped.socket_full")
EXPLAINED = {
    "udp64": OVERLOAD,
    "udp1400": OVERLOAD,
    # A record of which the wire lost a datagram; the wire's queue overflows too.
    "loss": (*OVERLOAD, "records_dropped.incomplete"),
}


class Ours(Contender):
    name = "ours"
    settings = (
        "`controller` with its defaults and `rendezvous`: AES-256-GCM, replay protection, ICE, "
        "rekeying; containers at MTU 1500"
    )

    def start(self) -> None:
        left, right = self.pair.sites
        # On the right host, so that nothing but a node is on the left one.
        Rendezvous(_host(right), ADDRESSES["right"], 8765, 3478)
        self._controllers = [
            Controller(
                _host(site),
                {
                    "network": "bench",
                    "secret": "a secret for the bench only",
                    "signal": f"ws://{ADDRESSES['right']}:8765",
                    "bridge": self.segment.bridge,
                    "node": site.name,
                    "state_dir": "/run/bench/state",
                    "run_dir": "/run/bench/run",
                },
            )
            for site in (left, right)
        ]
        for controller, peer in zip(self._controllers, ("right", "left"), strict=True):
            controller.wait_connected([peer], timeout=20)
        # Path MTU discovery begins with the link and is part of what is shipped, not of a load.
        with contextlib.suppress(LabError):
            wait_until(self._full_size, 10, "the link's path MTU")

    def observe(self) -> dict[str, Any]:
        """For each site: the status that `controller status --json` tells, and what the kernel
        says of the TAP."""
        return {
            site.name: {"status": controller.status(), "tap": _tap(site)}
            for site, controller in zip(self.pair.sites, self._controllers, strict=True)
        }

    def judge(
        self, work: str, before: dict[str, Any], after: dict[str, Any]
    ) -> tuple[dict[str, Any], list[str]]:
        detail: dict[str, Any] = {}
        problems: list[str] = []
        for site, now in after.items():
            earlier, status = before[site]["status"], now["status"]
            moved = _moved(_flat(earlier["counters"]), _flat(status["counters"]))
            peer, was = status["peers"][0], earlier["peers"][0]
            noted = {
                "tap": now["tap"],
                "path": peer["path"],
                "pmtu": peer["pmtu"],
                "counters": moved,
            }
            if "tx_records" in peer:
                records = peer["tx_records"] - was["tx_records"]
                datagrams = peer["tx_datagrams"] - was["tx_datagrams"]
                noted["frames_per_record"] = _share(peer["tx_frames"] - was["tx_frames"], records)
                noted["records_per_datagram"] = _share(records, datagrams)
            detail[site] = noted
            problems += [f"{site}: {name} moved by {by}" for name, by in _bad(work, moved).items()]
            if peer["state"] != "connected":
                problems.append(f"{site}: the link is {peer['state']}")
            problems += [
                f"{site}: the TAP has fallen back from {name}"
                for name, on in now["tap"].items()
                if not on
            ]
        return detail, problems

    def _full_size(self) -> bool:
        peers = [peer for c in self._controllers for peer in c.status()["peers"]]
        return all((peer["pmtu"] or 0) >= 1500 for peer in peers)


def _host(site: Site) -> "Host":
    """A site has all of a host that a process needs: path, popen, run, log_file, name."""
    return cast("Host", site)


def _tap(site: Site) -> dict[str, bool]:
    """What the kernel does for the TAP: virtio header, segmentation. tun_flags, ethtool(8)."""
    flags = int(site.run(f"cat /sys/class/net/{TAP}/tun_flags").stdout, 16)
    features = dict(
        line.strip().split(": ", 1)
        for line in site.run(f"ethtool -k {TAP}").stdout.splitlines()
        if ": " in line
    )
    has = {name: features.get(name, "").startswith("on") for name in OFFLOADS}
    return {"vnet_hdr": bool(flags & IFF_VNET_HDR), **has}


def _flat(counters: dict[str, Any]) -> dict[str, int]:
    """Counters by name; those of a group as group.reason."""
    flat: dict[str, int] = {}
    for name, count in counters.items():
        if isinstance(count, dict):
            flat |= {f"{name}.{reason}": number for reason, number in count.items()}
        else:
            flat[name] = count
    return flat


def _moved(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {
        name: count - before.get(name, 0)
        for name, count in after.items()
        if count != before.get(name, 0)
    }


def _bad(work: str, moved: dict[str, int]) -> dict[str, int]:
    explained = EXPLAINED.get(work, ())
    return {
        name: by
        for name, by in moved.items()
        if any(word in name for word in BAD) and not name.startswith(explained)
    }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 3) if whole else None
