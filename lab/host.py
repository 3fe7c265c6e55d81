"""A host as a user has it: Debian with its unmodified lxc-net, in namespaces.

It has its own /run, /var/lib and /var/log, so that nothing it writes reaches the machine.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from lab.container import Container, Home, Kind, LxcContainer, NetnsContainer
from lab.errors import LabError
from lab.network import Network, Uplink
from lab.processes import Controller, Coturn, Rendezvous

# stock:   Debian with LXC, nothing edited: the same bridge MAC and address on every host.
# docker:  the same, and Docker installed beside it: bridged IPv4 goes through a dropping FORWARD.
# unequal: as the IPOP page asks of its users: another bridge address, here also another MAC.
# plain:   no lxc-net; for rendezvous and relay hosts.
Profile = Literal["stock", "docker", "unequal", "plain"]

BRIDGE = "lxcbr0"
LXC_NET = "/usr/libexec/lxc/lxc-net"

PRIVATE_STATE = """
mount -t tmpfs -o mode=755 tmpfs /var/log
mount -t tmpfs -o mode=755 tmpfs /var/lib
mkdir /var/lib/misc /var/lib/lxc
"""

# As dockerd 20.10 (Debian 12) leaves the FORWARD chain, without a container of its own running.
DOCKER = """
modprobe -q br_netfilter || true
[ ! -e /proc/sys/net/bridge ] || echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables
nft -f - <<'end'
table ip filter {
    chain DOCKER { }
    chain DOCKER-USER { return; }
    chain DOCKER-ISOLATION-STAGE-1 { return; }
    chain FORWARD {
        type filter hook forward priority filter; policy drop;
        jump DOCKER-USER
        jump DOCKER-ISOLATION-STAGE-1
        oifname "docker0" ct state related,established accept
        oifname "docker0" jump DOCKER
        iifname "docker0" oifname != "docker0" accept
        iifname "docker0" oifname "docker0" accept
    }
}
end
"""


def program_names(command_line: bytes) -> set[str]:
    """The names that a process with this command line (proc(5)) goes by: `dnsmasq`, and for
    `/usr/bin/python3 -I -m tincan.cli` python3 and tincan."""
    words = [os.fsdecode(word) for word in command_line.split(b"\0")]
    names = {Path(word).name for word in words[:2]}
    if "-m" in words[1:3]:
        names.add(words[words.index("-m") + 1].partition(".")[0])
    return names


class Host(Home):
    """A host named `name` on `network`; `index` tells it from others with lxc-net, from 1.

    `logs` is a directory outside, where its processes' logs go. `lxc_net` are settings for
    /etc/default/lxc-net, shell variables such as LXC_ADDR, for hosts whose owner has edited it.
    """

    def __init__(
        self,
        lab: str,
        name: str,
        network: Network,
        *,
        index: int,
        logs: Path,
        profile: Profile = "stock",
        lxc_net: dict[str, str] | None = None,
        mtu: int = 1500,
        rendezvous: Callable[[], Rendezvous | None] = lambda: None,
    ) -> None:
        self.index = index
        self.logs = logs
        self.profile = profile
        self.containers: dict[str, Container] = {}
        self.processes: list[Controller | Rendezvous | Coturn] = []
        self._rendezvous = rendezvous
        self._serial = itertools.count(1)
        script = PRIVATE_STATE
        settings = dict(lxc_net or {})
        if profile == "unequal":
            # 10.0.3.1, .2, .3, .4, then .245: the containers' addresses start at .5.
            settings = {
                "LXC_ADDR": f"10.0.3.{index if index < 5 else 240 + index}",
                "LXC_BRIDGE_MAC": f"00:16:3e:00:00:{index:02x}",
                "LXC_DHCP_RANGE": "10.0.3.100,10.0.3.239",
            } | settings
        if settings:
            text = "".join(f'{key}="{value}"\n' for key, value in settings.items())
            script += f"cat > /run/lxc-net <<'end'\nUSE_LXC_BRIDGE=\"true\"\n{text}end\n"
            script += "mount --bind /run/lxc-net /etc/default/lxc-net\n"
        if profile == "docker":
            script += DOCKER
        super().__init__(lab, name, script=script)
        self.address = settings.get("LXC_ADDR", "10.0.3.1")
        self.uplink: Uplink = network.attach(self, mtu=mtu)
        if profile != "plain":
            self.lxc_net("start")

    # The bridge and what is behind it

    def lxc_net(self, action: Literal["start", "stop", "restart"]) -> None:
        """What `systemctl ACTION lxc-net` runs."""
        self.run([LXC_NET, action])

    def recreate_bridge(self) -> None:
        """lxcbr0 goes and comes back, as when lxc-net is restarted with no container running.

        The containers are plugged into the new bridge; nothing else is.
        """
        ports = os.listdir(self.path(f"/sys/class/net/{BRIDGE}/brif"))
        self.run("\n".join(f"ip link set {port} nomaster" for port in ports))
        self.lxc_net("restart")
        for container in self.containers.values():
            if container.port in self.interfaces():
                self.bridge_add(container.port)

    def bridge_add(self, interface: str, bridge: str = BRIDGE) -> None:
        """`brctl addif`, as the user does it by hand."""
        self.run(["brctl", "addif", bridge, interface])

    def ports(self, bridge: str = BRIDGE) -> list[str]:
        """The ports of `bridge`."""
        return sorted(os.listdir(self.path(f"/sys/class/net/{bridge}/brif")))

    def leases(self) -> dict[str, str]:
        """MAC -> IP address, as dnsmasq has leased them."""
        text = self.path(f"/var/lib/misc/dnsmasq.{BRIDGE}.leases").read_text()
        return {line.split()[1]: line.split()[2] for line in text.splitlines() if line}

    def container(
        self,
        name: str,
        ip: str | None = None,
        *,
        kind: Kind = "netns",
        mac: str | None = None,
        mtu: int = 1500,
        ip6: str | None = None,
        bridge: str = BRIDGE,
    ) -> Container:
        """Start a container plugged into lxcbr0 and return it.

        `ip` is an address with prefix length, `"dhcp"` for one from the host's dnsmasq (see
        Container.wait_lease), or None for none. `kind` is "netns", namespaces only, or "lxc", a
        real LXC container made with the busybox template. Without `mac` it has one of its own,
        the same in every run.
        """
        made: dict[Kind, type[NetnsContainer] | type[LxcContainer]]
        made = {"netns": NetnsContainer, "lxc": LxcContainer}
        container = made[kind](self, name, ip=ip, mac=mac, mtu=mtu, ip6=ip6, bridge=bridge)
        self.containers[name] = container
        return container

    # The product's processes, and coturn

    def log_file(self, program: str) -> Path:
        """Return a new log file's name for `program`, outside the host."""
        return self.logs / f"{self.name}-{program}-{next(self._serial)}.log"

    def controller(self, config: dict[str, Any] | None = None, **keys: Any) -> Controller:
        """Start `controller` here. The configuration is `config` and `keys` over these defaults:
        network and secret of the lab, this host's name, bridge lxcbr0, and the lab's rendezvous
        if one was started. A key whose value is None is left out.
        """
        rendezvous = self._rendezvous()
        complete: dict[str, Any] = {
            "network": "lab",
            "secret": "a secret for the lab only",
            "node": self.name,
            "signal": rendezvous.url if rendezvous else None,
            "bridge": BRIDGE if self.profile != "plain" else None,
            **(config or {}),
            **keys,
        }
        controller = Controller(self, {k: v for k, v in complete.items() if v is not None})
        self.processes.append(controller)
        return controller

    def rendezvous(self, *, port: int = 8765, stun_port: int = 3478) -> Rendezvous:
        """Start `rendezvous` on this host's address. Controllers in the lab use it by default."""
        rendezvous = Rendezvous(self, self.uplink.ip4 or self.uplink.ip6, port, stun_port)
        self.processes.append(rendezvous)
        return rendezvous

    def coturn(self, *, user: str = "lab", password: str = "lab", port: int = 3479) -> Coturn:
        """Start a real TURN server on this host's address; `.config` is its `turn` entry."""
        address = self.uplink.ip4 or self.uplink.ip6
        coturn = Coturn(self, address, port, user, password)
        self.processes.append(coturn)
        return coturn

    def pids(self, program: str) -> list[int]:
        """The processes of this host that run `program`, a program, script or Python package."""
        inside = os.readlink(f"/proc/{self.pid}/ns/net")
        found = []
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{entry}/ns/net") != inside:
                    continue
                if program in program_names(Path(f"/proc/{entry}/cmdline").read_bytes()):
                    found.append(int(entry))
        return sorted(found)

    def kill(self, program: str, number: int = signal.SIGKILL) -> list[int]:
        """Send a signal to this host's processes of that name, and return their pids."""
        pids = self.pids(program)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return pids

    def iperf3_server(self) -> None:
        """Leave an iperf3 server running on this host."""
        self.popen(["iperf3", "--server"])

    def route_to(self, address: str) -> str:
        """The interface that packets for `address` leave by."""
        route = json.loads(self.run(["ip", "-j", "route", "get", address]).stdout)
        if not route or not re.match(r"\w", device := str(route[0].get("dev", ""))):
            raise LabError(f"{self.name}: no route to {address}")
        return device
