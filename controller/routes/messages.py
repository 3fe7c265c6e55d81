"""The messages of MetalBond, in protobuf; protobuf is imported here and nowhere else.

    message Hello        { uint32 keepaliveInterval = 1; bool isServer = 2; }
    message Subscription { uint32 vni = 1; }             // SUBSCRIBE, UNSUBSCRIBE
    message Update       { Action action = 1; uint32 vni = 2;
                           Destination destination = 3; NextHop nextHop = 4; }
    message Destination  { IPVersion ipVersion = 1; bytes prefix = 2; uint32 prefixLength = 3; }
    message NextHop      { bytes targetAddress = 1; uint32 targetVNI = 2; NextHopType type = 3;
                           uint32 natPortRangeFrom = 4; uint32 natPortRangeTo = 5; }
    enum Action { ADD = 0; REMOVE = 1; }  enum IPVersion { IPv4 = 0; IPv6 = 1; }
    enum NextHopType { STANDARD = 0; NAT = 1; LOADBALANCER_TARGET = 2; }

The wire's bytes are those of the Go program: fields in order, ports only for a NAT.
"""

from enum import IntEnum
from typing import Any, Final, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

from controller.errors import BrokenProtocol, RouteRefused
from controller.routes.values import (
    ADDRESS_BITS,
    MAX_PORT,
    Destination,
    NextHop,
    NextHopType,
    Vni,
)
from controller.routes.wire import Kind, frame

_PACKAGE: Final = "metalbond"
_ENUMS: Final = {
    "IPVersion": ("IPv4", "IPv6"),
    "Action": ("ADD", "REMOVE"),
    "NextHopType": ("STANDARD", "NAT", "LOADBALANCER_TARGET"),
}
_MESSAGES: Final = {
    "Hello": ("uint32 keepaliveInterval", "bool isServer"),
    "Subscription": ("uint32 vni",),
    "Destination": ("IPVersion ipVersion", "bytes prefix", "uint32 prefixLength"),
    "NextHop": (
        "bytes targetAddress",
        "uint32 targetVNI",
        "NextHopType type",
        "uint32 natPortRangeFrom",
        "uint32 natPortRangeTo",
    ),
    "Update": ("Action action", "uint32 vni", "Destination destination", "NextHop nextHop"),
}
"""The fields of each message, numbered from 1 in this order."""
_IPV4: Final = 0
_IPV6: Final = 1
_IP_VERSIONS: Final = {4: _IPV4, 16: _IPV6}
"""The number of an IP version on the wire, by the length of an address in bytes."""
_MARKS: Final = {4: _IPV4, 6: _IPV6}


def _declared() -> dict[str, Any]:
    """Return the message classes. They live in a pool of their own, not in the process' one."""
    kinds = descriptor_pb2.FieldDescriptorProto
    scalars = {
        "uint32": kinds.TYPE_UINT32,
        "bool": kinds.TYPE_BOOL,
        "bytes": kinds.TYPE_BYTES,
    }
    file = descriptor_pb2.FileDescriptorProto(
        name="metalbond.proto", package=_PACKAGE, syntax="proto3"
    )
    for enum, values in _ENUMS.items():
        declared = file.enum_type.add(name=enum)
        for number, value in enumerate(values):
            declared.value.add(name=value, number=number)
    for name, fields in _MESSAGES.items():
        added = file.message_type.add(name=name)
        for number, line in enumerate(fields, start=1):
            kind, _, called = line.partition(" ")
            field = added.field.add(name=called, number=number, label=kinds.LABEL_OPTIONAL)
            if kind in scalars:
                field.type = scalars[kind]
            else:
                field.type = kinds.TYPE_ENUM if kind in _ENUMS else kinds.TYPE_MESSAGE
                field.type_name = f".{_PACKAGE}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _MESSAGES
    }


_CLASSES: Final = _declared()
_Hello: Final = _CLASSES["Hello"]
_Subscription: Final = _CLASSES["Subscription"]
_Destination: Final = _CLASSES["Destination"]
_NextHop: Final = _CLASSES["NextHop"]
_Update: Final = _CLASSES["Update"]


class Action(IntEnum):
    """What an UPDATE says of its route."""

    ADD = 0
    REMOVE = 1


class Hello(NamedTuple):
    """The first message of each side. ``keepalive_interval`` is in seconds."""

    keepalive_interval: int
    is_server: bool = False


class Update(NamedTuple):
    """A route that is there from now on, or no longer."""

    action: Action
    vni: Vni
    destination: Destination
    hop: NextHop


KEEPALIVE: Final = frame(Kind.KEEPALIVE)


# --- encoding: each returns a whole frame


def hello(message: Hello) -> bytes:
    """Return the frame of a HELLO."""
    said = _Hello(keepaliveInterval=message.keepalive_interval, isServer=message.is_server)
    return frame(Kind.HELLO, said.SerializeToString())


def subscribe(vni: Vni) -> bytes:
    """Return the frame of a SUBSCRIBE."""
    return frame(Kind.SUBSCRIBE, _Subscription(vni=vni).SerializeToString())


def unsubscribe(vni: Vni) -> bytes:
    """Return the frame of an UNSUBSCRIBE."""
    return frame(Kind.UNSUBSCRIBE, _Subscription(vni=vni).SerializeToString())


def update(message: Update) -> bytes:
    """Return the frame of an UPDATE. Its destination and next hop are checked already."""
    action, vni, (address, length, marked), hop = message
    version = _MARKS[marked] if marked else _IP_VERSIONS[len(address)]
    said = _Update(
        action=action,
        vni=vni,
        destination=_Destination(ipVersion=version, prefix=address, prefixLength=length),
        nextHop=_NextHop(
            targetAddress=hop.address,
            targetVNI=hop.target_vni,
            type=hop.type,
            natPortRangeFrom=hop.nat_port_range_from,
            natPortRangeTo=hop.nat_port_range_to,
        ),
    )
    return frame(Kind.UPDATE, said.SerializeToString(deterministic=True))


# --- decoding: what a peer sent


def read_hello(payload: bytes) -> Hello:
    """Return what a HELLO says. Raises BrokenProtocol, also for an interval of 0."""
    said = _parsed(_Hello, payload)
    if not said.keepaliveInterval:
        raise BrokenProtocol("keepalive_0")
    return Hello(said.keepaliveInterval, said.isServer)


def read_subscription(payload: bytes) -> Vni:
    """Return the VNI of a SUBSCRIBE or UNSUBSCRIBE. Raises BrokenProtocol."""
    return Vni(_parsed(_Subscription, payload).vni)


def read_update(payload: bytes) -> Update:
    """Return what an UPDATE says.

    Raises BrokenProtocol where the Go program resets the connection or crashes: no destination,
    no next hop, an address that is none. Raises RouteRefused for a route that makes no sense but
    harms nobody; the connection goes on without it. Ports of anything but a NAT are not carried
    on by the Go program, and not read here.
    """
    said = _parsed(_Update, payload)
    if not said.HasField("destination"):
        raise BrokenProtocol("no_destination")
    if not said.HasField("nextHop"):
        raise BrokenProtocol("no_next_hop")
    destination = said.destination
    address = destination.prefix
    bits = ADDRESS_BITS.get(len(address))
    if bits is None:
        raise BrokenProtocol("no_prefix")
    hop = said.nextHop
    target = hop.targetAddress
    if len(target) not in ADDRESS_BITS:
        raise BrokenProtocol("no_target_address")
    length = destination.prefixLength
    if length > bits:
        raise RouteRefused("prefix_length")
    marked = 0
    if destination.ipVersion != _IP_VERSIONS[len(address)]:
        marked = 6 if destination.ipVersion else 4
    kind = hop.type
    if kind < 0:
        raise RouteRefused("next_hop_type")
    first, last = 0, 0
    if kind == NextHopType.NAT:
        first, last = hop.natPortRangeFrom, hop.natPortRangeTo
        if first > MAX_PORT or last > MAX_PORT:
            raise RouteRefused("nat_ports")
    action = said.action
    if action not in (Action.ADD, Action.REMOVE):
        raise RouteRefused("action")
    return Update(
        Action.REMOVE if action else Action.ADD,
        Vni(said.vni),
        Destination(address, length, marked),
        NextHop(target, hop.targetVNI, kind, first, last),
    )


def _parsed(kind: Any, payload: bytes) -> Any:
    try:
        return kind.FromString(payload)
    except message.DecodeError as error:
        raise BrokenProtocol("undecodable") from error
