"""The scenario of IPOP's switch-mode page, shown step by step on this machine.

Container 10.0.3.5 on host A pings 10.0.3.7 on host B. Both hosts are stock Debian with LXC, behind
NATs, with the same private address; their bridges have the same address and the same MAC.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import textwrap
import time
from typing import Any

from lab.capture import Capture
from lab.container import Container, Kind
from lab.errors import LabError
from lab.layouts import build
from lab.processes import Controller
from lab.topology import Lab

PICTURE = """
    10.0.3.5 (c5)                                                  10.0.3.7 (c7)
        |                                                              |
     lxcbr0 10.0.3.1 00:16:3e:00:00:00        lxcbr0 10.0.3.1 00:16:3e:00:00:00
        |                                                              |
     host A 192.168.1.10                              host B 192.168.1.10
        |                                                              |
      NAT 203.0.113.11 ------- public network ------- NAT 203.0.113.12
                                     |
                           rendezvous 203.0.113.10
"""
# For this long after a repeated question, nothing about it may cross.
QUIET = 3.0
IPERF_SECONDS = 5


class Story:
    """Prints the demo, and remembers whether all its claims held."""

    def __init__(self) -> None:
        self.colour = sys.stdout.isatty()
        self.width = min(shutil.get_terminal_size().columns, 96)
        self.failed: list[str] = []
        self.number = 0

    def step(self, title: str) -> None:
        """Begin a step."""
        self.number += 1
        title = f"{self.number}. {title}"
        print(f"\n\033[1m{title}\033[0m" if self.colour else f"\n{title}\n{'-' * len(title)}")

    def tell(self, text: str) -> None:
        """A paragraph."""
        print(textwrap.fill(" ".join(text.split()), self.width))

    def show(self, text: str) -> None:
        """Something to look at, as it is."""
        print(textwrap.indent(text.strip("\n"), "    "), flush=True)

    def claim(self, text: str, holds: bool, seen: object = "") -> None:
        """A claim; the demo fails at its end if one does not hold."""
        mark = "ok    " if holds else "FAILED"
        if self.colour:
            mark = f"\033[{32 if holds else 31}m{mark}\033[0m"
        print(f"  {mark} {text}" + ("" if holds else f": {seen}"), flush=True)
        if not holds:
            self.failed.append(text)


def asked(frames: Capture, address: str) -> list[Any]:
    """The broadcast ARP requests for `address` in `frames`."""
    return [
        packet
        for packet in frames.packets
        if packet.op == 1 and packet.pdst == address and packet.dst == "ff:ff:ff:ff:ff:ff"
    ]


def answered(frames: Capture, address: str) -> list[Any]:
    """The ARP replies about `address` in `frames`."""
    return [packet for packet in frames.packets if packet.op == 2 and packet.psrc == address]


def grown(before: dict[str, Any], after: dict[str, int], name: str) -> int:
    """By how much a counter has grown."""
    return int(after[name]) - int(before[name])


def first_ping(
    story: Story, c5: Container, c7: Container, controllers: tuple[Controller, Controller]
) -> None:
    """The seed's six steps."""
    story.step("10.0.3.5 pings 10.0.3.7, which nobody has heard of yet")
    one, two = controllers
    before = one.counters(), two.counters()
    about = "arp and host 10.0.3.5 and host 10.0.3.7"
    with c5.host.capture("lxcbr0", about) as on_a, c7.host.capture("lxcbr0", about) as on_b:
        ping = c5.ping(c7.ip, 5)
    after = one.counters(), two.counters()
    story.show(ping.output)
    print()
    requests, replies = asked(on_b, c7.ip), answered(on_a, c7.ip)
    story.tell(
        "What the two bridges saw, and the controllers counted, beside the original's steps:"
    )
    story.claim("(1) c5 asks by broadcast on A's bridge", len(asked(on_a, c7.ip)) >= 1)
    relayed = grown(before[0], after[0], "arp_requests_relayed")
    story.claim(f"(2) A's controller tells its peers: arp_request, {relayed} RPC", relayed == 1)
    text = "(3) exactly one request appears on B's bridge"
    story.claim(text, len(requests) == 1, on_b.summary())
    text = "(4) c7 answers with its own MAC"
    story.claim(text, {p.hwsrc for p in answered(on_b, c7.ip)} == {c7.mac})
    relayed = grown(before[1], after[1], "arp_replies_relayed")
    story.claim(f"(5) B's controller tells its peers: arp_reply, {relayed} RPC", relayed >= 1)
    text = "(6) exactly one reply appears on A's bridge, with c7's real MAC"
    macs = [packet.hwsrc for packet in replies]
    story.claim(text, macs == [c7.mac], on_a.summary())
    text = f"{ping.received} of {ping.sent} pings are answered, the very first one included"
    story.claim(text, ping.lost == 0)
    clean = not ping.duplicates and "Redirect" not in ping.output
    story.claim("no DUP!, no ICMP redirect", clean, ping.output)
    story.claim("c5 knows c7 by its real MAC", c5.neighbours().get(c7.ip) == c7.mac)


def repeat(story: Story, c5: Container, c7: Container, controller: Controller) -> None:
    """The repeated question."""
    story.step("c5 forgets and asks again")
    c5.flush_neighbours()
    before = controller.counters()
    about = "arp and host 10.0.3.5 and host 10.0.3.7"
    with c7.host.capture("lxcbr0", about) as on_b:
        macs = c5.arping(c7.ip)
        time.sleep(QUIET)
    after = controller.counters()
    story.show(f"arping -c 1 {c7.ip}: answered by {', '.join(macs) or 'nobody'}")
    story.claim("answered once, with c7's real MAC", macs == [c7.mac], macs)
    text = "A's controller answered: nothing was asked on B's bridge"
    story.claim(text, not asked(on_b, c7.ip), on_b.summary())
    local = grown(before, after, "arp_answered_locally")
    relayed = grown(before, after, "arp_requests_relayed")
    story.claim(f"counted as answered locally ({local}), not relayed", local >= 1 and not relayed)


def tell(story: Story, kind: Kind, seconds: int) -> None:
    """The whole demo."""
    story.step("Two stock hosts behind two NATs")
    story.show(PICTURE)
    with Lab() as lab:
        layout = build(lab, ["easy", "easy"])
        a, b = layout.a, layout.b
        c5 = a.container("c5", "10.0.3.5/24", kind=kind)
        c7 = b.container("c7", "10.0.3.7/24", kind=kind)
        for host in layout.hosts:
            said = host.run(
                "ip -br addr show eth0; ip -br addr show lxcbr0; cat /sys/class/net/lxcbr0/address"
            )
            story.show(
                f"on {host.name.upper()}:  " + said.stdout.strip().replace("\n", "\n       ")
            )
        story.tell(
            f"""The containers are {
                "real LXC, busybox template" if kind == "lxc" else "bare namespaces"
            }: c5 {c5.mac}, c7 {c7.mac}. They cannot reach
            each other."""
        )
        story.claim("no answer from 10.0.3.7 yet", c5.ping(c7.ip, 1, "-W", "0.5").received == 0)
        # The kernel repeats an unanswered question for 3 s: the controllers would hear the last.
        c5.flush_neighbours()

        story.step("A rendezvous, and a controller on each host")
        rendezvous = layout.rendezvous
        start = time.monotonic()
        controllers = (a.controller(), b.controller())
        story.show(f"rendezvous --listen {rendezvous.url.removeprefix('ws://')}")
        story.show("controller --config switch.json    # on A and on B; switch.json:")
        story.show(json.dumps(controllers[0].config, indent=2))
        for controller, other in zip(controllers, "ba", strict=True):
            controller.wait_connected([other], 30)
        story.claim(f"connected after {time.monotonic() - start:.1f} s", True)
        for host in layout.hosts:
            story.claim(
                f"the TAP is a port of {host.name.upper()}'s lxcbr0", "ipop" in host.ports()
            )
        peers = [controller.status()["peers"][0] for controller in controllers]
        for name, peer in zip("AB", peers, strict=True):
            path = peer["path"]
            text = (
                f"{name}'s link is direct: {path['local']} to {path['remote']}, {path['address']}"
            )
            story.claim(text, "relay" not in (path["local"], path["remote"]), path)

        c5.flush_neighbours()
        first_ping(story, c5, c7, controllers)
        repeat(story, c5, c7, controllers[0])

        story.step("What the controllers say: controller status")
        for controller in controllers:
            print(f"  on {controller.host.name.upper()}:")
            story.show(controller.status_text())

        story.step("How fast it is")
        report = c5.iperf3(c7, c7.ip, seconds)
        rate = report["end"]["sum_received"]["bits_per_second"] / 1e9
        algorithm = report["end"].get("sender_tcp_congestion", "?")
        story.show(
            f"iperf3, one TCP flow ({algorithm}) from c5 to c7, {seconds} s, encrypted, both"
            f" NATs crossed: {rate:.2f} Gbit/s"
        )
        story.claim("bytes went across", rate > 0)

        story.step("The end: SIGTERM, and the lab is taken down")
        for controller in controllers:
            start = time.monotonic()
            status = controller.terminate()
            name = controller.host.name.upper()
            text = f"{name}'s controller has left after {time.monotonic() - start:.1f} s"
            story.claim(text, status == 0, f"exit status {status}")
        for host in layout.hosts:
            left = [*host.pids("tincan"), *({"ipop"} & set(host.interfaces()))]
            story.claim(f"no TAP and no tincan is left on {host.name.upper()}", not left, left)
    story.claim("the lab is gone", lab.name not in Lab.names())


def main() -> int:
    """Tell the story; 0 if all of it was true."""
    parser = argparse.ArgumentParser(prog="lab/demo", description=__doc__.split("\n")[0])
    parser.add_argument("--containers", choices=["lxc", "netns"], default="lxc")
    parser.add_argument("--iperf-seconds", type=int, default=IPERF_SECONDS)
    arguments = parser.parse_args()
    story = Story()
    try:
        tell(story, arguments.containers, arguments.iperf_seconds)
    except LabError as error:
        story.claim("the demo came to its end", False, error)
    except KeyboardInterrupt:
        story.claim("the demo came to its end", False, "interrupted")
    if story.failed:
        print(f"\n{len(story.failed)} of the claims above did not hold.")
        return 1
    print("\nAll of the above was true.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
