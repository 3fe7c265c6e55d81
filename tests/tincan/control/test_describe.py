"""What status tells of a link."""

from lab.bench.ends import End, frame
from tincan.control.describe import describe


def test_a_link_that_has_sent(ends: tuple[End, End]) -> None:
    one, two = ends
    one.wake(frame(1400))
    two.ingress.wake(two.port, 1.0)
    sender, receiver = describe(one.link, {}, 1.0), describe(two.link, {}, 1.0)
    assert (sender.tx_frames, sender.tx_records, sender.tx_datagrams) == (1, 1, 1)
    assert (receiver.rx_frames, receiver.rx_bytes) == (1, sender.tx_bytes)
    assert sender.path is not None
    assert sender.path.address == "{}:{}".format(*two.sock.address)
    assert sender.path.relay is None
    assert not sender.relayed
    assert "gso" in sender.offloads
