"""The works: what each contender is made to do, and what is measured of it."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lab.bench.accounting import Usage, pinned, program, resident
from lab.bench.stage import PORT, BenchError, Stage, median, quantile
from lab.bench.topology import CONTAINERS

GIGABIT = 1e9
UDP64_OFFERED = 110_000  # datagrams per second
UDP1400_OFFERED = 2e9 / 8 / 1400  # 2 Gbit/s of payload
INTEGRITY_OFFERED = 10_000
ECHOES = 50  # per second of a load's length


@dataclass
class Outcome:
    """What one work gave: a value for each of its rows, what was seen beside them, and what makes
    them invalid."""

    values: dict[str, float]
    detail: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    name: str
    title: str
    unit: str
    more_is_better: bool


@dataclass(frozen=True)
class Work:
    """`repeat`: how often it is done in each round; `once`: only in the first round, by those
    `contenders` if they are given."""

    name: str
    measure: Callable[[Stage], Outcome]
    rows: tuple[Row, ...]
    repeat: int = 1
    once: bool = False
    contenders: tuple[str, ...] = ()


def tcp1(stage: Stage) -> Outcome:
    return _tcp("tcp1", stage)


def tcp4(stage: Stage) -> Outcome:
    return _tcp("tcp4", stage, "-P", "4")


def _tcp(row: str, stage: Stage, *options: str) -> Outcome:
    end = stage.iperf3(*options)
    return Outcome(
        {row: end["sum_received"]["bits_per_second"] / GIGABIT},
        {"retransmits": end["sum_sent"]["retransmits"]},
    )


def bidir(stage: Stage) -> Outcome:
    """The sum of both directions."""
    end = stage.iperf3("--bidir")
    there = end["sum_received"]["bits_per_second"] / GIGABIT
    back = end["sum_received_bidir_reverse"]["bits_per_second"] / GIGABIT
    return Outcome({"bidir": there + back}, {"there": there, "back": back})


def udp64(stage: Stage) -> Outcome:
    """Delivered datagrams per second."""
    return _udp("udp64", stage, 64, UDP64_OFFERED, 1e-3)


def udp1400(stage: Stage) -> Outcome:
    """Delivered payload; the container's interface does not segment."""
    left = stage.segment.left
    left.run("ethtool -K eth0 tx-udp-segmentation off tso off >/dev/null", check=False)
    try:
        return _udp("udp1400", stage, 1400, UDP1400_OFFERED, 1400 * 8 / GIGABIT)
    finally:
        left.run("ethtool -K eth0 tx-udp-segmentation on tso on >/dev/null", check=False)


def _udp(row: str, stage: Stage, size: int, per_second: float, unit: float) -> Outcome:
    """Everything of the left side (sender and contender) on processor 0, of the right side on 1:
    two hosts with a processor each."""
    processes = [(pid, side) for side, site in enumerate(stage.pair.sites) for pid in site.pids()]
    with pinned(processes):
        sent, received = stage.both(
            "udp",
            (PORT, 5, size),
            (CONTAINERS["right"], PORT, stage.seconds, size, per_second),
            processors=(0, 1),
        )
    offered = (sent["sent"] + sent["refused"]) / sent["seconds"]
    outcome = Outcome(
        {row: received["received"] / sent["seconds"] * unit},
        {"offered_per_s": offered, **received},
        _wrong(received),
    )
    if offered < 0.95 * per_second:
        outcome.detail["short"] = "the sender was kept from offering what it should"
    return outcome


def _wrong(received: dict[str, int]) -> list[str]:
    problems = []
    if received["late"]:
        problems.append(f"{received['late']} datagrams reordered or duplicate")
    if received["damaged"]:
        problems.append(f"{received['damaged']} datagrams damaged")
    return problems


def rtt(stage: Stage) -> Outcome:
    """The median of an idle ping."""
    times = stage.ping(int(stage.seconds * ECHOES), 1 / ECHOES)
    return Outcome({"rtt": median(times)}, {"min": min(times), "p99": quantile(times, 0.99)})


def rtt_loaded(stage: Stage) -> Outcome:
    """The median of a ping beside a saturating TCP flow."""
    with stage.saturated(stage.seconds + 1):
        times = stage.ping(int(stage.seconds * ECHOES), 1 / ECHOES)
    return Outcome({"rtt_loaded": median(times)}, {"min": min(times), "p99": quantile(times, 0.99)})


def cpu_per_gb(stage: Stage) -> Outcome:
    """For a gigabyte (10^9 bytes) of one TCP flow's payload: user and system seconds of the
    contender's processes on both hosts, and the seconds that the machine's processors were busy
    with anything, iperf3 included. What the kernel does in interrupts that happen to fall into the
    processes is theirs; what it does elsewhere (all of VXLAN) is in the machine's figure only."""
    before = stage.usage()
    end = stage.iperf3(omit=0)
    used = stage.usage() - before
    gigabytes = end["sum_received"]["bytes"] / 1e9
    values = {"machine_per_gb": used.machine / gigabytes}
    if stage.pids():
        values["cpu_per_gb"] = used.processor / gigabytes
    return Outcome(values, {"gigabytes": gigabytes, "stolen_s": used.stolen})


def integrity(stage: Stage) -> Outcome:
    """A file of random bytes over TCP, numbered UDP both ways, and nothing to be read on the path
    if the contender is said to encrypt: 1 if all is right."""
    outcome = Outcome({})
    if stage.readable() == stage.contender.encrypted:
        not_ = "" if stage.contender.encrypted else "not "
        outcome.problems.append(f"the containers' bytes can {not_}be read on the path")
    mebibytes = int(stage.seconds * 32)
    sent, received = stage.both("transfer", (PORT,), (CONTAINERS["right"], PORT, mebibytes))
    if sent != received:
        outcome.problems.append(f"the file: sent {sent}, received {received}")
    for back, sink in ((False, "right"), (True, "left")):
        sent, received = stage.both(
            "udp",
            (PORT, 5, 1200),
            (CONTAINERS[sink], PORT, stage.seconds, 1200, INTEGRITY_OFFERED),
            back=back,
        )
        outcome.detail[f"to {sink}"] = received
        outcome.problems += _wrong(received)
        if not received["received"]:
            outcome.problems.append("no numbered datagram arrived")
    outcome.values["integrity"] = 0 if outcome.problems else 1
    return outcome


def idle(stage: Stage) -> Outcome:
    """Some time after the last frame of a container: share of one processor that the contender's
    processes on the left host take; bytes of IP on the link, both directions; their memory."""
    quick = stage.seconds < 3
    settle, window = (5.0, 10.0) if quick else (60.0, 130.0)  # a rekey, every 120 s, falls into it
    time.sleep(settle)
    left = stage.pair.left
    left.run(["nft", "-f", "-"], input=COUNTERS)
    before = Usage.of(left.pids())
    time.sleep(window)
    used = Usage.of(left.pids()) - before
    octets = _counters(left.run(["nft", "list", "counters", "table", "inet", "bench"]).stdout)
    left.run("nft delete table inet bench")
    memory: dict[str, float] = {}
    for pid in left.pids():
        with contextlib.suppress(OSError):
            memory[program(pid)] = resident(pid) / (1 << 20)
    return Outcome(
        {
            "idle_cpu": 100 * used.processor / used.at,
            "idle_bytes": octets["link"] / used.at,
            "idle_memory": sum(memory.values()),
        },
        {
            "settled_s": settle,
            "measured_s": used.at,
            "signalling_bytes_per_s": octets["other"] / used.at,
            "resident_mib": memory,
        },
    )


# IP bytes through the left host, both directions: UDP is the link (but for STUN with the
# rendezvous, which is on the right host), the rest is signalling.
COUNTERS = """
table inet bench {
    counter link { }
    counter other { }
    chain in {
        type filter hook input priority 0; iifname != "wan" accept
        udp sport != 3478 counter name link accept
        counter name other
    }
    chain out {
        type filter hook output priority 0; oifname != "wan" accept
        udp dport != 3478 counter name link accept
        counter name other
    }
}
"""


def _counters(text: str) -> dict[str, int]:
    found = {}
    name = ""
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["counter"]:
            name = words[1]
        elif words[:1] == ["packets"]:
            found[name] = int(words[3])
    if not {"link", "other"} <= set(found):
        raise BenchError(f"nft said: {text}")
    return found


def _one(
    name: str,
    measure: Callable[[Stage], Outcome],
    title: str,
    unit: str,
    *,
    more_is_better: bool = False,
    repeat: int = 1,
    once: bool = False,
) -> Work:
    return Work(name, measure, (Row(name, title, unit, more_is_better),), repeat, once)


ALL = {
    work.name: work
    for work in (
        _one("tcp1", tcp1, "one TCP flow", "Gbit/s", more_is_better=True),
        _one("tcp4", tcp4, "four TCP flows", "Gbit/s", more_is_better=True),
        _one("bidir", bidir, "TCP both ways, sum", "Gbit/s", more_is_better=True),
        _one("udp64", udp64, "64-byte UDP, of 110 kpps", "kpps", more_is_better=True, repeat=2),
        _one("udp1400", udp1400, "1400-byte UDP, no GSO", "Gbit/s", more_is_better=True),
        _one("rtt", rtt, "ping, idle", "ms"),
        _one("rtt_loaded", rtt_loaded, "ping beside TCP", "ms"),
        Work(
            "cpu_per_gb",
            cpu_per_gb,
            (
                Row("cpu_per_gb", "processes' CPU per GB", "s", False),
                Row("machine_per_gb", "machine's CPU per GB", "s", False),
            ),
        ),
        _one("integrity", integrity, "all bytes right", "", more_is_better=True, once=True),
        Work(
            "idle",
            idle,
            (
                Row("idle_cpu", "idle: CPU", "%", False),
                Row("idle_bytes", "idle: IP bytes on the link", "B/s", False),
                Row("idle_memory", "idle: memory on a host", "MiB", False),
            ),
            once=True,
            contenders=("openvpn", "ours"),  # it takes three minutes
        ),
    )
}
