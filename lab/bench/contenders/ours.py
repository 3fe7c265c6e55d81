"""This overlay, as it is shipped: `controller` with its defaults on each host, one `rendezvous`."""

from typing import TYPE_CHECKING, Any, cast

from lab.bench.contenders.contender import Contender
from lab.bench.topology import ADDRESSES, Site
from lab.processes import Controller, Rendezvous, wait_until

if TYPE_CHECKING:
    from lab.host import Host

TAP = "ipop"
IFF_VNET_HDR = 0x4000
OFFLOADS = ("tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-udp-segmentation")

# Counters that may move under a work, by the beginning of their names. Every other one that tells
# of something dropped, and any of a fallback, makes the figure invalid.
BAD = ("dropped", "fallback")
OVERLOAD = (
    "datagrams_dropped.receive_buffer_full",  # the receiver is the slower of the two
    "frames_dropped.tap_queue_full",
    "frames_dropped.tap_full",
    "records_dropped.socket_full",
)
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

    def settle(self) -> None:
        wait_until(self._full_size, 20, "a path MTU of 1500 on the link")

    def observe(self) -> dict[str, Any]:
        """For each site: the status that `controller status --json` shows, what the kernel says of
        the TAP, and what it has dropped on the way to us."""
        return {
            site.name: {
                "status": controller.ask("status"),
                "tap": _tap(site),
                "kernel_dropped": _kernel_dropped(site),
            }
            for site, controller in zip(self.pair.sites, self._controllers, strict=True)
        }

    def judge(
        self, work: str, before: dict[str, Any], after: dict[str, Any]
    ) -> tuple[dict[str, Any], list[str]]:
        detail: dict[str, Any] = {}
        problems: list[str] = []
        for site, now in after.items():
            detail[site], wrong = _judge_site(work, before[site], now)
            problems += [f"{site}: {problem}" for problem in wrong]
        control = self.segment.left.run("cat /proc/sys/net/ipv4/tcp_congestion_control").stdout
        detail["beside"] = _beside(control.strip(), detail["left"])
        return detail, problems

    def _full_size(self) -> bool:
        peers = [peer for c in self._controllers for peer in c.ask("status")["peers"]]
        return all((peer["pmtu"] or 0) >= 1500 for peer in peers)


def _host(site: Site) -> "Host":
    """A site has all of a host that a process needs: path, popen, run, log_file, name."""
    return cast("Host", site)


def _judge_site(
    work: str, before: dict[str, Any], now: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    status = now["status"]
    peer, was = status["peers"][0], before["status"]["peers"][0]
    moved = _moved(_flat(before["status"]["counters"]), _flat(status["counters"]))
    detail = {
        "tap": now["tap"],
        "path": peer["path"],
        "pmtu": peer["pmtu"],
        "counters": moved,
        "kernel_dropped": _moved(before["kernel_dropped"], now["kernel_dropped"]),
    }
    if "tx_records" in peer:
        frames, records, datagrams = (
            peer[key] - was[key] for key in ("tx_frames", "tx_records", "tx_datagrams")
        )
        detail["frames_per_record"] = round(frames / records, 3) if records else None
        detail["records_per_datagram"] = round(records / datagrams, 4) if datagrams else None
    problems = [f"{name} moved by {by}" for name, by in moved.items() if _bad(work, name)]
    problems += [f"the TAP has no {name}" for name, on in now["tap"].items() if not on]
    if peer["state"] != "connected":
        problems.append(f"the link is {peer['state']}")
    return detail, problems


def _beside(control: str, detail: dict[str, Any]) -> str:
    """What the left site, the sender, used: one line."""
    words = [control, "TAP: " + " ".join(name for name, on in detail["tap"].items() if on)]
    words.append(f"path MTU {detail['pmtu']}")
    words += [
        f"{key.replace('_', ' ')} {detail[key]}"
        for key in ("frames_per_record", "records_per_datagram")
        if detail.get(key) is not None
    ]
    words += [f"{name} +{by}" for name, by in detail["counters"].items()]
    words += [f"kernel dropped: {name} {by}" for name, by in detail["kernel_dropped"].items()]
    return "; ".join(words)


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


def _kernel_dropped(site: Site) -> dict[str, int]:
    """Frames that found the TAP's queue full, datagrams that found a socket's buffer full."""
    tap = site.run(f"cat /sys/class/net/{TAP}/statistics/tx_dropped").stdout
    names, values = (
        line.split()
        for line in site.run("cat /proc/net/snmp").stdout.splitlines()
        if line.startswith("Udp:")
    )
    udp = dict(zip(names, values, strict=True))
    return {"tap queue": int(tap), "socket buffer": int(udp["RcvbufErrors"])}


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


def _bad(work: str, name: str) -> bool:
    """Whether this counter must not move under this work."""
    return any(word in name for word in BAD) and not name.startswith(EXPLAINED.get(work, ()))
