"""The messages of switch mode between nodes.

A peer speaks only about its own containers: an ``Entry`` in a message says "this address is at my
node", never anything about a third one.

    arp_request  who has ``target``? Carries the asker as an entry, or the MAC of a prober
    arp_reply    an owner was heard on my bridge, in answer to a request or to a check
    announce     these are mine, at these sequence numbers
    withdraw     these were mine and are not any more
    stale        your announcement lost against a withdrawal with this sequence number: go above
    digest       checksum of all that I announce; of what differs:
    compare      ... the receiver's checksums, by bucket, of what it holds of the sender
    differ       ... the buckets that differ, after their entries have been announced again
    fetch        ... what the receiver holds in those buckets: confirm or withdraw it
    probe        is this one of yours really alive? Ask it now
    probed       it answered, or did not
    claim        somebody here is probing this address (RFC 5227) and was first: leave it
    gateways     the addresses of my bridge itself
    clear        the operator cleared what is remembered against this address
"""

from collections.abc import Iterable
from typing import Annotated, Final, TypeAlias

from controller.node.messages import PeerMessage
from controller.packets.addresses import Ip, Key, Mac
from controller.switch.table import BUCKETS, MAX_SEQUENCE, Binding
from tincan.control.codec import Meta, Struct

MAX_ENTRIES: Final = 96
"""Entries of one message; the largest entry takes 130 bytes."""
MAX_ADDRESSES: Final = 64
"""Addresses that one bridge can have."""
MAX_OPTIONS_BYTES: Final = 512
"""The size of neighbour discovery options that are passed on to an owner."""

_Mentioned: TypeAlias = Iterable[tuple[Ip, Mac | None]]

MAC_PATTERN: Final = "^[0-9a-f][02468ace](:[0-9a-f]{2}){5}\\Z"

IpText = Annotated[str, Meta(min_length=2, max_length=39)]
MacText = Annotated[str, Meta(min_length=17, max_length=17, pattern=MAC_PATTERN)]
NodeText = Annotated[str, Meta(pattern="^[0-9a-f]{64}\\Z")]
VlanId = Annotated[int, Meta(ge=0, le=4094)]
Sequence = Annotated[int, Meta(ge=0, le=MAX_SEQUENCE)]
RequestId = Annotated[int, Meta(ge=0, lt=2**53)]
Milliseconds = Annotated[int, Meta(ge=0, le=60_000)]
BucketNumber = Annotated[int, Meta(ge=0, lt=BUCKETS)]
Checksum = Annotated[str, Meta(pattern="^[0-9a-f]{16}\\Z")]
Checksums = Annotated[str, Meta(pattern=f"^([0-9a-f]{{{8 * BUCKETS}}})?\\Z")]


class Entry(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One address of the sender's node. ``router`` is the R flag of its advertisements."""

    ip: IpText
    mac: MacText
    sequence: Sequence
    vlan: VlanId = 0
    router: bool = False


class Gone(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An address without an owner, as of this sequence number."""

    ip: IpText
    sequence: Sequence
    vlan: VlanId = 0


class Address(Struct, frozen=True, forbid_unknown_fields=True):
    """An address of the sender's bridge itself."""

    ip: IpText
    mac: MacText


Entries = Annotated[list[Entry], Meta(max_length=MAX_ENTRIES)]
Departures = Annotated[list[Gone], Meta(max_length=MAX_ENTRIES)]


class ArpRequest(PeerMessage, frozen=True, tag="arp_request"):
    """A question: who has ``target``?

    It has an ``asker`` for a question; a ``prober`` for a probe (ARP with sender 0.0.0.0, DAD);
    neither when a host asks whose address no other may see. ``age_ms`` is the age of the probe's
    claim. ``options`` (hex) are neighbour discovery options that only the owner can answer.
    """

    id: RequestId
    target: IpText
    vlan: VlanId = 0
    asker: Entry | None = None
    prober: MacText | None = None
    age_ms: Milliseconds = 0
    options: Annotated[str, Meta(pattern=f"^([0-9a-f]{{2}}){{0,{MAX_OPTIONS_BYTES}}}\\Z")] = ""

    def mentioned(self) -> _Mentioned:
        """Return the addresses in it, see ``PeerMessage``."""
        asker = ((self.asker.ip, self.asker.mac),) if self.asker else ()
        return ((self.target, self.prober), *asker)


class ArpReply(PeerMessage, frozen=True, tag="arp_reply"):
    """An owner was heard on the sender's bridge."""

    owner: Entry

    def mentioned(self) -> _Mentioned:
        """Return the addresses in it, see ``PeerMessage``."""
        return ((self.owner.ip, self.owner.mac),)


class Announce(PeerMessage, frozen=True, tag="announce"):
    """These addresses are the sender's, at these sequence numbers."""

    entries: Entries

    def mentioned(self) -> _Mentioned:
        """Return the addresses in it, see ``PeerMessage``."""
        return [(entry.ip, entry.mac) for entry in self.entries]


class Withdraw(PeerMessage, frozen=True, tag="withdraw"):
    """These addresses were the sender's, and are not any more."""

    entries: Departures

    def mentioned(self) -> _Mentioned:
        """Return the addresses in it, see ``PeerMessage``."""
        return [(gone.ip, None) for gone in self.entries]


class Stale(PeerMessage, frozen=True, tag="stale"):
    """These announcements lost against a withdrawal with a higher sequence number."""

    entries: Departures

    def mentioned(self) -> _Mentioned:
        """Return the addresses in it, see ``PeerMessage``."""
        return [(gone.ip, None) for gone in self.entries]


class Digest(PeerMessage, frozen=True, tag="digest"):
    """A checksum over all that the sender announces: 16 hex digits."""

    own: Checksum


class Compare(PeerMessage, frozen=True, tag="compare"):
    """What the sender holds of the receiver differs: tell what is in the buckets that differ.

    ``held`` has 8 hex digits for each bucket, or is empty when nothing is held.
    """

    held: Checksums = ""


class Differ(PeerMessage, frozen=True, tag="differ"):
    """These buckets differ; their entries have been announced again."""

    buckets: Annotated[list[BucketNumber], Meta(max_length=BUCKETS)]


class Fetch(PeerMessage, frozen=True, tag="fetch"):
    """The sender holds these as the receiver's: confirm or withdraw them."""

    entries: Entries

    def mentioned(self) -> _Mentioned:
        """Return the addresses in it, see ``PeerMessage``."""
        return [(entry.ip, entry.mac) for entry in self.entries]


class Probe(PeerMessage, frozen=True, tag="probe"):
    """Ask this holder of yours whether it is alive.

    ``contender`` is the MAC that was seen with its address, if any; ``at`` is the node at which
    it was seen, if not the sender.
    """

    id: RequestId
    ip: IpText
    mac: MacText
    vlan: VlanId = 0
    contender: MacText | None = None
    at: NodeText | None = None

    def mentioned(self) -> _Mentioned:
        """Return the addresses in it, see ``PeerMessage``."""
        return ((self.ip, self.mac),)


class Probed(PeerMessage, frozen=True, tag="probed"):
    """The holder that ``Probe`` with this id asked about answered, or did not."""

    id: RequestId
    alive: bool


class Claim(PeerMessage, frozen=True, tag="claim"):
    """A container at the sender probes for this address, and was first (RFC 5227)."""

    ip: IpText
    mac: MacText
    vlan: VlanId = 0

    def mentioned(self) -> _Mentioned:
        """Return the addresses in it, see ``PeerMessage``."""
        return ((self.ip, self.mac),)


class Gateways(PeerMessage, frozen=True, tag="gateways"):
    """All addresses of the sender's bridge itself."""

    addresses: Annotated[list[Address], Meta(max_length=MAX_ADDRESSES)]

    def mentioned(self) -> _Mentioned:
        """Return the addresses in it, see ``PeerMessage``."""
        return [(address.ip, address.mac) for address in self.addresses]


class Clear(PeerMessage, frozen=True, tag="clear"):
    """The operator cleared what is remembered against this address."""

    ip: IpText

    def mentioned(self) -> _Mentioned:
        """Return the addresses in it, see ``PeerMessage``."""
        return ((self.ip, None),)


SwitchMessage: TypeAlias = (
    ArpRequest
    | ArpReply
    | Announce
    | Withdraw
    | Stale
    | Digest
    | Compare
    | Differ
    | Fetch
    | Probe
    | Probed
    | Claim
    | Gateways
    | Clear
)
SWITCH_MESSAGES: Final[tuple[type[PeerMessage], ...]] = (
    *(ArpRequest, ArpReply, Announce, Withdraw, Stale, Digest, Compare),
    *(Differ, Fetch, Probe, Probed, Claim, Gateways, Clear),
)
"""The types of ``SwitchMessage``."""


def key_of(said: Entry | Gone) -> Key:
    """Return what the table files ``said`` under."""
    return said.vlan, said.ip


def entry_of(binding: Binding) -> Entry:
    """Return ``binding`` as it is told to peers."""
    vlan, ip = binding.key
    return Entry(ip, binding.mac, binding.sequence, vlan, binding.router)


def gone_of(binding: Binding) -> Gone:
    """Return a withdrawal as it is told to peers."""
    vlan, ip = binding.key
    return Gone(ip, binding.sequence, vlan)
