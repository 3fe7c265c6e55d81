"""The contenders, in the order of the table."""

from lab.bench.contenders.contender import Contender
from lab.bench.contenders.fastd import Fastd
from lab.bench.contenders.kernel import Veth, Vxlan
from lab.bench.contenders.n2n import N2n
from lab.bench.contenders.openvpn import OpenVpn
from lab.bench.contenders.ours import Ours
from lab.bench.contenders.tinc import Tinc

ALL: tuple[type[Contender], ...] = (Veth, Vxlan, Ours, OpenVpn, Tinc, N2n, Fastd)

__all__ = ["ALL", "Contender"]
