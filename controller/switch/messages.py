"""Messages between controllers: JSON objects told apart by their field ``m``.

They ride on the link itself, one message a datagram, and may be lost, repeated or reordered;
nothing here relies on any of them arriving. A peer speaks only about its own containers: an
``Entry`` in a message says "this address is at my node", never anything about a third one.

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

import ipaddress
from functools import lru_cache
from typing import Annotated, Final, TypeAlias

from controller.errors import RpcError
from controller.packets.addresses import Ip, Mac, Vlan, usable_ip, usable_mac
from controller.switch.table import BUCKETS, MAX_SEQUENCE
from tincan.control.codec import DecodeError, Meta, Struct
from tincan.control.codec import decode as decode_json
from tincan.control.codec import encode as encode_json

MAX_RPC: Final = 16384
"""Bytes of one message; larger ones are refused before they are parsed."""
MAX_ENTRIES: Final = 96
"""Entries of one message; the largest entry takes 130 bytes."""
MAX_ADDRESSES: Final = 64
"""Addresses that one bridge can have."""
MAX_OPTIONS: Final = 512
"""Bytes of neighbour discovery options passed on to an owner."""

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


class _Message(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="m"):
    """Base of the messages; never sent itself."""


class ArpRequest(_Message, frozen=True, tag="arp_request"):
    """``asker`` for a question; ``prober`` for a probe (ARP with sender 0.0.0.0, DAD); neither
    when a host asks whose address no other may see. ``age_ms`` is the age of the probe's claim.
    ``options`` (hex) are neighbour discovery options that only the owner can answer."""

    id: RequestId
    target: IpText
    vlan: VlanId = 0
    asker: Entry | None = None
    prober: MacText | None = None
    age_ms: Milliseconds = 0
    options: Annotated[str, Meta(pattern=f"^([0-9a-f]{{2}}){{0,{MAX_OPTIONS}}}\\Z")] = ""


class ArpReply(_Message, frozen=True, tag="arp_reply"):
    owner: Entry


class Announce(_Message, frozen=True, tag="announce"):
    entries: Entries


class Withdraw(_Message, frozen=True, tag="withdraw"):
    entries: Departures


class Stale(_Message, frozen=True, tag="stale"):
    entries: Departures


class Digest(_Message, frozen=True, tag="digest"):
    own: Checksum


class Compare(_Message, frozen=True, tag="compare"):
    """``held``: 8 hex digits for each bucket, or empty when nothing is held."""

    held: Checksums = ""


class Differ(_Message, frozen=True, tag="differ"):
    buckets: Annotated[list[BucketNumber], Meta(max_length=BUCKETS)]


class Fetch(_Message, frozen=True, tag="fetch"):
    entries: Entries


class Probe(_Message, frozen=True, tag="probe"):
    """``contender``: the MAC that was seen with this address, if any; ``at``: at which node, if
    not at the sender's."""

    id: RequestId
    ip: IpText
    mac: MacText
    vlan: VlanId = 0
    contender: MacText | None = None
    at: NodeText | None = None


class Probed(_Message, frozen=True, tag="probed"):
    id: RequestId
    alive: bool


class Claim(_Message, frozen=True, tag="claim"):
    ip: IpText
    mac: MacText
    vlan: VlanId = 0


class Gateways(_Message, frozen=True, tag="gateways"):
    addresses: Annotated[list[Address], Meta(max_length=MAX_ADDRESSES)]


class Clear(_Message, frozen=True, tag="clear"):
    ip: IpText


Message: TypeAlias = (
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


@lru_cache(maxsize=16384)
def _canonical(ip: Ip) -> bool:
    try:
        return "%" not in ip and str(ipaddress.ip_address(ip)) == ip
    except ValueError:
        return False


def _addresses(message: Message) -> list[tuple[Ip, Mac | None]]:
    """Return every address that ``message`` speaks about."""
    match message:
        case ArpRequest(target=target, prober=prober, asker=asker):
            return [(target, prober), *([(asker.ip, asker.mac)] if asker else [])]
        case ArpReply(owner=owner):
            return [(owner.ip, owner.mac)]
        case Announce(entries=entries) | Fetch(entries=entries):
            return [(e.ip, e.mac) for e in entries]
        case Withdraw(entries=departures) | Stale(entries=departures):
            return [(d.ip, None) for d in departures]
        case Probe(ip=ip, mac=mac) | Claim(ip=ip, mac=mac):
            return [(ip, mac)]
        case Gateways(addresses=addresses):
            return [(a.ip, a.mac) for a in addresses]
        case Clear(ip=ip):
            return [(ip, None)]
        case _:
            return []


def decode(data: bytes) -> Message:
    """Return the message in ``data``, every address in it canonical and of a kind that a
    container can have; raise RpcError for anything else."""
    if len(data) > MAX_RPC:
        raise RpcError("oversized")
    try:
        message: Message = decode_json(data, Message)  # type: ignore[arg-type]
    except DecodeError:
        raise RpcError("malformed") from None
    for ip, mac in _addresses(message):
        if not _canonical(ip) or not usable_ip(ip) or (mac is not None and not usable_mac(mac)):
            raise RpcError("bad_address")
    return message


def name(message: Message) -> str:
    """What a message is called on the link, and in the counters."""
    return str(message.__struct_config__.tag)


def encode(message: Message) -> bytes:
    """Return ``message`` as at most MAX_RPC bytes of JSON."""
    return encode_json(message)


def key(entry: Entry | Gone) -> tuple[Vlan, Ip]:
    """Return what the table files ``entry`` under."""
    return entry.vlan, entry.ip
