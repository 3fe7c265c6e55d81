"""The pump reads ports by the loop's selector, and stops when told."""

import os

from lab.bench.ends import POOL, End, frame
from tincan.pump.loop import HotSelector
from tincan.pump.outlet import Outlet
from tincan.pump.pump import Pump


def test_a_watched_port_is_read_until_it_is_unwatched(ends: tuple[End, End]) -> None:
    one, two = ends
    outlet: Outlet = one.link
    assert outlet.up
    selector = HotSelector()
    device = os.eventfd(0)
    two.tap.fd = device
    pump = Pump(two.tap, two.policy, two.counters, selector, POOL)
    pump.keys.update(two.session.opening)
    pump.start()
    pump.watch(two.port)
    one.wake(frame(1400))
    selector.select(0.0)
    assert two.tap.frames == 1
    pump.unwatch(two.port)
    one.wake(frame(1400))
    selector.select(0.0)
    assert two.tap.frames == 1
    pump.stop()
    selector.close()
    os.close(device)
