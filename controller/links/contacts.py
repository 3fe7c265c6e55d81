"""Which links there should be, and who says what to whom to get them. Pure: a full mesh.

Of two nodes the one with the lower id is *elected*: it makes the offer. The other asks for one
(``please``) when it knows something that the elected one cannot know: that its tincan restarted,
that nothing arrives any more. So two offers never cross.

    elected                                the other
    Dial   -- offer, number -->            Accept
    Join   <-- answer, number --
    a link, or silence: Dial again after a pause that doubles

A link that had to take a relay is tried again every RETRY_DIRECT seconds.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from controller.errors import SignalError
from controller.packets.addresses import NodeId
from tincan.control.codec import DecodeError, Struct, decode
from tincan.control.messages import Description

FIRST_PAUSE: Final = 0.5
"""In seconds: doubles with every attempt that fails."""
LONGEST_PAUSE: Final = 30.0
MOST_DOUBLINGS: Final = 16
"""Doublings of a pause that are computed: 2 ** 1024 is no float, and a peer that cannot be reached
is tried that often within a day."""
ATTEMPT: Final = 8.0
"""Seconds that an offer has to become a link before it counts as failed."""
ASK_AFTER: Final = 2.0
"""Seconds without an offer until the other side asks for one."""
RETRY_DIRECT: Final = 60.0
"""Seconds between attempts to leave a relay."""
FORGET_AFTER: Final = 120.0
"""Seconds after which a peer that is gone, and unlinked, is forgotten."""
MAX_PEERS: Final = 1000
NEVER: Final = float("inf")


class Offer(Struct, frozen=True, tag="offer"):
    """Sealed, from the elected side."""

    number: int
    description: Description


class Answer(Struct, frozen=True, tag="answer"):
    number: int
    description: Description


class Please(Struct, frozen=True, tag="please"):
    """Make me an offer."""

    reason: str = ""


Sealed: TypeAlias = Offer | Answer | Please


def decode_sealed(data: bytes) -> Sealed:
    """Return what a peer sealed for us; raise SignalError."""
    try:
        message: Sealed = decode(data, Sealed)  # type: ignore[arg-type]
    except DecodeError:
        raise SignalError("signal.malformed") from None
    return message


@dataclass(frozen=True, slots=True)
class Dial:
    """Have tincan make an offer with this number and send it."""

    peer: NodeId
    number: int


@dataclass(frozen=True, slots=True)
class Accept:
    """Have tincan answer this offer, and send the answer."""

    peer: NodeId
    offer: Offer


@dataclass(frozen=True, slots=True)
class Join:
    """Give tincan the answer to our offer."""

    peer: NodeId
    answer: Answer


@dataclass(frozen=True, slots=True)
class Ask:
    """Send ``please``."""

    peer: NodeId
    reason: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove the link: the peer has left."""

    peer: NodeId


Action: TypeAlias = Dial | Accept | Join | Ask | Forget


@dataclass(slots=True)
class Contact:
    """What is known of a peer. ``why`` explains to people why there is no link."""

    id: NodeId
    name: str = ""
    present: bool = False
    linked: bool = False
    relayed: bool = False
    session: bytes = b""
    number: int = 0  # of the newest offer
    answered: int = 0  # the offer of ours whose answer has come
    tries: int = 0
    due: float = NEVER
    absent_since: float = field(default=NEVER)
    wanting: bool = False  # linked, but by a path that will not last
    why: str = ""


class Topology:
    """The contacts of ``node``. ``jitter`` returns numbers in [0, 1).

    ``first_number`` must be above every number of an earlier life: wall-clock milliseconds do.
    """

    def __init__(self, node: NodeId, first_number: int, jitter: Callable[[], float]) -> None:
        self.node = node
        self.contacts: dict[NodeId, Contact] = {}
        self._number = first_number
        self._jitter = jitter

    @property
    def deadline(self) -> float:
        """When tick must run next."""
        return min((c.due for c in self.contacts.values()), default=NEVER)

    def elected(self, peer: NodeId) -> bool:
        return self.node < peer

    def _contact(self, peer: NodeId) -> Contact | None:
        contact = self.contacts.get(peer)
        if contact is None and len(self.contacts) < MAX_PEERS and peer != self.node:
            contact = self.contacts[peer] = Contact(peer)
        return contact

    # --- what happens

    def present(self, peer: NodeId, name: str, session: bytes, now: float) -> None:
        """The rendezvous says that a member is there."""
        contact = self._contact(peer)
        if contact is None:
            return
        fresh = contact.session != session
        if fresh and not self.elected(peer):
            contact.number = 0  # another life of it may count from below: its clock was set back
        contact.name, contact.session, contact.present = name, session, True
        contact.absent_since = NEVER
        if not contact.linked and (fresh or contact.due == NEVER):
            contact.tries = 0
            contact.due = now if self.elected(peer) else now + ASK_AFTER

    def absent(self, peer: NodeId, now: float) -> None:
        """The rendezvous says that a member has left. Its link may well live on."""
        contact = self.contacts.get(peer)
        if contact is not None:
            contact.present = False
            contact.absent_since = now
            if not contact.linked:
                contact.due = now + FORGET_AFTER

    def received(self, peer: NodeId, message: Sealed, now: float) -> list[Action]:
        """A sealed message came."""
        contact = self._contact(peer)
        if contact is None:
            return []
        if isinstance(message, Please):
            if self.elected(peer):
                contact.tries = 0
                contact.due = now
                return self.tick(now)
            return []
        if isinstance(message, Offer):
            if self.elected(peer) or message.number <= contact.number:
                return []
            contact.number = message.number
            if not contact.linked:
                contact.due = now + ATTEMPT
            return [Accept(peer, message)]
        if not self.elected(peer) or message.number != contact.number:
            return []
        if message.number == contact.answered:
            return []  # said again
        contact.answered = message.number
        return [Join(peer, message)]

    def linked(self, peer: NodeId, relayed: bool, now: float) -> None:
        """tincan says that the link is up, or has a new path."""
        contact = self._contact(peer)
        if contact is None:
            return
        contact.linked, contact.relayed, contact.tries, contact.why = True, relayed, 0, ""
        contact.wanting = False
        retry = relayed and self.elected(peer)
        contact.due = now + RETRY_DIRECT * (1 + 0.2 * self._jitter()) if retry else NEVER

    def unlinked(self, peer: NodeId, reason: str, now: float) -> None:
        """tincan says that the link is down."""
        contact = self._contact(peer)
        if contact is not None:
            contact.linked, contact.why = False, reason

    def wanted(self, peer: NodeId, reason: str, now: float) -> None:
        """tincan says that another path would help, or that an attempt failed."""
        contact = self._contact(peer)
        if contact is None:
            return
        if not contact.linked:
            contact.why = reason
        elif contact.relayed and contact.due != NEVER:
            return  # an attempt to leave the relay failed; the next one is planned
        else:
            contact.wanting = True
        pause = self._pause(contact) if contact.tries else 0.0
        contact.due = min(contact.due, now + pause) if contact.tries == 0 else now + pause

    def hurry(self, now: float) -> None:
        """The network changed, or the rendezvous is back: do not wait out the pauses."""
        for contact in self.contacts.values():
            if contact.present and (contact.wanting or not contact.linked):
                contact.tries = 0
                contact.due = now if self.elected(contact.id) else now + FIRST_PAUSE

    def tick(self, now: float) -> list[Action]:
        """Return what is due."""
        actions: list[Action] = []
        for contact in list(self.contacts.values()):
            if contact.due > now:
                continue
            if not contact.present and not contact.linked:
                contact.due = contact.absent_since + FORGET_AFTER
                if contact.due <= now or contact.absent_since == NEVER:
                    del self.contacts[contact.id]
                    actions.append(Forget(contact.id))
                continue
            contact.tries += 1
            contact.due = now + ATTEMPT + self._pause(contact)
            if self.elected(contact.id):
                self._number = contact.number = max(self._number, contact.number) + 1
                actions.append(Dial(contact.id, contact.number))
            else:
                actions.append(Ask(contact.id, contact.why))
            if contact.linked and contact.relayed:
                contact.due = now + RETRY_DIRECT * (1 + 0.2 * self._jitter())
            elif contact.linked:
                contact.due = NEVER
        return actions

    def _pause(self, contact: Contact) -> float:
        doublings = min(contact.tries - 1, MOST_DOUBLINGS)
        pause = min(FIRST_PAUSE * 2.0**doublings, LONGEST_PAUSE)
        return pause * (0.75 + 0.5 * self._jitter())
