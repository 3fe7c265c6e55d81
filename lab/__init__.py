"""Hosts, NATs and containers on one machine, for tests, figures and for playing. Needs root.

    from lab import Lab

    with Lab() as lab:                                    # all of it is gone at the end
        public = lab.segment()                            # 203.0.113.0/24
        rv = lab.host("rv", public, "plain")
        a = lab.host("a", lab.router("nat-a", public, "easy"))     # 192.168.1.10, stock lxc-net
        b = lab.host("b", lab.router("nat-b", public, "hard"), "docker")
        rv.rendezvous(); turn = rv.coturn().config
        c5 = a.container("c5", "10.0.3.5/24")             # or kind="lxc", ip="dhcp", mac=...
        c7 = b.container("c7", "10.0.3.7/24")
        one, two = a.controller(turn=[turn]), b.controller(turn=[turn])
        one.wait_connected(["b"])
        with b.capture("lxcbr0", "arp") as frames:        # scapy: frames.packets
            assert c5.ping("10.0.3.7", 3).received == 3
        print(one.status()["peers"], c5.arping("10.0.3.7"), a.run("ip addr").stdout, len(frames))

See host.Host, container.Container, network.Uplink (host.uplink) and processes for the rest.
"""

from lab.capture import Capture, Frame
from lab.container import Container, Home, LxcContainer, NetnsContainer, Ping
from lab.errors import CommandFailed, LabError
from lab.host import Host
from lab.namespace import Namespace, Place
from lab.network import Network, Router, Segment, Uplink
from lab.processes import Controller, Coturn, Process, Rendezvous, wait_until
from lab.topology import Lab

__all__ = [
    "Capture",
    "CommandFailed",
    "Container",
    "Controller",
    "Coturn",
    "Frame",
    "Home",
    "Host",
    "Lab",
    "LabError",
    "LxcContainer",
    "Namespace",
    "NetnsContainer",
    "Network",
    "Ping",
    "Place",
    "Process",
    "Rendezvous",
    "Router",
    "Segment",
    "Uplink",
    "wait_until",
]
