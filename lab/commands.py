"""lab/up, lab/down and lab/exec."""

from __future__ import annotations

import argparse
import os
import string
import sys
from collections.abc import Sequence
from typing import get_args

from lab.errors import LabError
from lab.host import Profile
from lab.layouts import Place, build
from lab.topology import Lab

DEFAULT_NAME = "lab"
# Where the seed's first container is: 10.0.3.5 on a, 10.0.3.7 on b, and so on.
FIRST_ADDRESS = 5


def up(arguments: argparse.Namespace) -> None:
    """Build a lab that stays, with a container on each host, and start the product in it."""
    with Lab(arguments.name, keep=True) as lab:
        layout = build(lab, [arguments.nat] * arguments.hosts, profile=arguments.profile)
        lines = [f"Lab {lab.name} is up; what its programs say is in {lab.logs}", ""]
        containers = []
        for number, host in enumerate(layout.hosts):
            last = FIRST_ADDRESS + 2 * number
            container = host.container(f"c{last}", f"10.0.3.{last}/24", kind=arguments.containers)
            containers.append(container)
            address = host.uplink.ip4 or host.uplink.ip6
            network = host.uplink.network.name
            lines.append(
                f"  host {host.name}: {address} on {network}; container {container.name}: "
                f"10.0.3.{last} on lxcbr0"
            )
        lines.append(f"  server: {layout.server.uplink.ip4 or layout.server.uplink.ip6}")
        if not arguments.bare:
            controllers = layout.start(turn=[layout.coturn().config])
            lines[-1] += ", rendezvous and coturn"
            for controller in controllers:
                others = [host.name for host in layout.hosts if host is not controller.host]
                controller.wait_connected(others, 60)
            lines += ["", "The controllers run and are connected. Try"]
        else:
            lines += ["", "No controller runs. Try"]
        lab.save()
    near, far = containers[0], containers[-1]
    default = lab.name == DEFAULT_NAME
    run = "  lab/exec " + ("" if default else f"--name {lab.name} ") + near.host.name
    lines += [f"{run}/{near.name} ping {far.ip}", f"{run} brctl show"]
    if not arguments.bare:
        lines.append(f"{run} controller status --config {controllers[0].file}")
    lines.append("  lab/down" + ("" if default else f" {lab.name}"))
    print("\n".join(lines))


def down(arguments: argparse.Namespace) -> None:
    """Remove a lab."""
    Lab.remove(arguments.name)


def execute(arguments: argparse.Namespace) -> None:
    """Become a command in a host or container."""
    enter, env = Lab.enter(arguments.name, arguments.place)
    shell = [os.environ.get("SHELL", "/bin/sh")]
    os.execvpe(enter[0], [*enter, *(arguments.command or shell)], env)


def parser() -> argparse.ArgumentParser:
    """The command line; `function` is what to call."""
    top = argparse.ArgumentParser(prog="lab")
    commands = top.add_subparsers(required=True)

    one = commands.add_parser("up", prog="lab/up", description=up.__doc__)
    one.set_defaults(function=up)
    one.add_argument("name", nargs="?", default=DEFAULT_NAME, help="several labs may coexist")
    one.add_argument("--hosts", type=int, default=2, choices=range(1, len(string.ascii_lowercase)))
    one.add_argument("--nat", default="easy", choices=get_args(Place), help="where all hosts are")
    one.add_argument("--profile", default="stock", choices=get_args(Profile))
    one.add_argument("--containers", default="lxc", choices=["lxc", "netns"])
    one.add_argument("--bare", action="store_true", help="do not start the controllers")

    two = commands.add_parser("down", prog="lab/down", description=down.__doc__)
    two.set_defaults(function=down)
    two.add_argument("name", nargs="?", default=DEFAULT_NAME)

    three = commands.add_parser("exec", prog="lab/exec", description=execute.__doc__)
    three.set_defaults(function=execute)
    three.add_argument("--name", default=DEFAULT_NAME, help="the lab")
    three.add_argument("place", metavar="HOST[/CONTAINER]")
    three.add_argument("command", nargs=argparse.REMAINDER, help="a shell without")
    return top


def main(words: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 1 if the lab refuses."""
    arguments = parser().parse_args(words)
    try:
        arguments.function(arguments)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
