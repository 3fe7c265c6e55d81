"""What the user of a node has been given, whatever the order."""

from hypothesis import given
from hypothesis import strategies as st

from controller.routes.installed import Install, Installed, Uninstall
from controller.routes.values import Destination, NextHop, Vni

VNI = Vni(1)
NETS = [Destination(bytes([10, 0, n, 0]), 24) for n in range(2)]
HOPS = [NextHop.parse(f"2001:db8::{n}") for n in range(3)]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 1), st.integers(0, 2))))
def test_given_is_received_less_what_is_announced(history: list[tuple[bool, int, int]]) -> None:
    installed = Installed()
    received: set[tuple[int, int]] = set()
    own: list[int] = []
    given: set[tuple[Destination, NextHop]] = set()
    for receives, net, hop in history:
        key = (net, hop)
        actions: list[Install] | list[Uninstall]
        if receives and key not in received:
            received.add(key)
            actions = installed.add(VNI, NETS[net], HOPS[hop])
        elif receives:
            received.remove(key)
            actions = installed.remove(VNI, NETS[net], HOPS[hop])
        elif own.count(net) < 2:
            own.append(net)
            actions = installed.announced(VNI, NETS[net])
        else:
            own.remove(net)
            actions = installed.withdrawn(VNI, NETS[net])
        for action in actions:
            place = action.destination, action.hop
            if isinstance(action, Install):
                assert place not in given
                given.add(place)
            else:
                given.remove(place)
        assert given == {(NETS[n], HOPS[h]) for n, h in received if n not in own}
        assert installed.withheld(VNI, NETS[net]) == (net in own)
