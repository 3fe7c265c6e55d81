"""Where datagrams come in: a socket, and the record that waits in its landing for its rest.

::

    slots   | older | begun record, so far | next batch | free ...        whole_at
            0       waiting_from           filled_to                      (may be anywhere behind)

The pump reads ports (pump.ingress); whoever opened the socket makes one and owns it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tincan.device.device import Address, Socket
from tincan.record.landing import FIRST_SLOT, Landing


@dataclass(slots=True, eq=False)
class Port:
    """One way in. ``owner``: who made the port; ``handshake``: who gets its handshake datagrams.

    In the slots from ``waiting_from`` up to ``filled_to`` of its landing a record waits for its
    rest, which is there when ``filled_to`` reaches ``whole_at``. Between two wake-ups that landing
    is ``held``.
    """

    sock: Socket | None
    """None: its datagrams come by no socket of ours, and are handed in one by one."""
    owner: object
    handshake: Callable[[bytes, "Port", Address, float], None]
    """Called with the datagram, this port, the sender's address, and the time."""
    lead: int = 0
    """Bytes before each header: CHANNEL_SIZE when a TURN server speaks here."""
    slot: int = FIRST_SLOT
    """Bytes of body that the next datagrams are expected to have."""
    held: Landing | None = None
    waiting_from: int = 0
    filled_to: int = 0
    """0: nothing waits."""
    whole_at: int = 0
