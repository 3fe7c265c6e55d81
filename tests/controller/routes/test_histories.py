"""Random histories of several nodes with losses: what holds when it is quiet."""

import random
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.routes import messages
from controller.routes.messages import Action
from controller.routes.values import Destination, NextHop, NextHopType, Vni
from controller.routes.wire import Kind
from tests.controller.routes.world import OTHER, VNI, Stranger, World, add, read, remove
from tests.controller.routes.world import speaker as node

NETS = [Destination(bytes([10, 0, n, 0]), 24) for n in range(3)]
HOPS = [
    NextHop.parse("2001:db8::1"),
    NextHop.parse("2001:db8::2"),
    NextHop.parse("2001:db8::1", NextHopType.LOADBALANCER_TARGET),
    NextHop.parse("2001:db8::1", NextHopType.NAT, ports=(1, 2)),
]
ROUTES = [(vni, net, hop) for vni in (VNI, OTHER) for net in NETS for hop in HOPS]
Route = tuple[Vni, Destination, NextHop]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 1 << 32),
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 3), st.integers(0, 100)), max_size=60),
)
def test_nodes_agree_when_it_is_quiet(seed: int, history: list[tuple[int, int, int]]) -> None:
    """Two reflectors, four clients of both: announcing, subscribing, losing connections."""
    cuts = random.Random(seed)
    world = World(lambda: cuts.choice([1, 3, 40, 1 << 16]))
    servers, clients = ["s0", "s1"], [f"c{n}" for n in range(4)]
    for name in servers + clients:
        world.node(name)
    for name in clients:
        for server in servers:
            world.do(name, world.nodes[name].add_peer(server, world.now))
    world.settle()
    for what, who, which in history:
        name = clients[who]
        client = world.nodes[name]
        vni, net, hop = ROUTES[which % len(ROUTES)]
        if what in (0, 1, 2):
            if client.announces(vni, net, hop):
                world.do(name, client.withdraw(vni, net, hop))
            else:
                world.do(name, client.announce(vni, net, hop))
        elif what == 3:
            if vni in client.subscriptions:
                world.do(name, client.unsubscribe(vni, world.now))
            else:
                world.do(name, client.subscribe(vni))
        elif what == 4:
            world.break_wire(which)
        elif what == 5:
            for _ in range(which % 5):
                world.step()
        elif what == 6:
            world.settle()
        else:
            world.tick(which / 50)
    world.settle()
    world.tick(30.0)
    announced: dict[str, set[Route]] = {
        name: {(r.vni, r.destination, r.hop) for r in world.nodes[name].reflector.own}
        for name in clients
    }
    everything = set().union(*announced.values())
    for name in servers:
        assert {(r.vni, r.destination, r.hop) for r in world.nodes[name].routes()} == everything
    for name in clients:
        mine = {(vni, net) for vni, net, _ in announced[name]}
        wanted = {
            route
            for route in everything
            if route[0] in world.nodes[name].subscriptions and route[:2] not in mine
        }
        assert world.routes[name] == wanted, name
        assert {(r.vni, r.destination, r.hop) for r in world.nodes[name].routes()} == wanted


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 23)), max_size=80),
    st.booleans(),
)
def test_no_removal_while_another_has_it(history: list[tuple[int, int, int]], lazy: bool) -> None:
    """Peers by hand at one reflector, some of whom read late: each is told exactly the union."""
    server = node(installs=False)
    names = iter(f"peer {n}" for n in range(1000))
    strangers = [Stranger.established(server, next(names)) for _ in range(4)]
    holds: list[set[Route]] = [set() for _ in strangers]
    told: list[set[Route]] = [set() for _ in strangers]
    listens: list[set[Vni]] = [set() for _ in strangers]

    def hear(who: int) -> None:
        for action, route in changes(strangers[who].hears()):
            if action is Action.ADD:
                told[who].add(route)
                continue
            told[who].discard(route)
            others = set().union(*(holds[n] for n in range(4) if n != who))
            assert lazy or route not in others, "withdrawn, but another has it"

    def hear_all() -> None:
        for who in range(4):
            hear(who)

    for what, who, which in history:
        stranger, route = strangers[who], ROUTES[which]
        vni, net, hop = route
        if what in (0, 1):
            stranger.say(add(net, hop, vni))
            holds[who].add(route)
        elif what == 2:
            stranger.say(remove(net, hop, vni))
            holds[who].discard(route)
        elif what == 3:
            stranger.say(messages.subscribe(vni))
            listens[who].add(vni)
        elif what == 4 and vni in listens[who]:
            stranger.say(messages.unsubscribe(vni))
            hear(who)
            listens[who].discard(vni)
            holds[who] = {each for each in holds[who] if each[0] != vni}
            told[who] = {each for each in told[who] if each[0] != vni}
        elif what == 5:
            server.lost(stranger.peer, "gone", 0.0)
            holds[who], told[who], listens[who] = set(), set(), set()
            strangers[who] = Stranger.established(server, next(names))
            while server.busy:
                server.work(0.0)
        if not lazy:
            hear_all()
    hear_all()
    for who in range(4):
        others = set().union(*(holds[n] for n in range(4) if n != who))
        union = others | holds[who]
        heard = listens[who]
        assert {r for r in others if r[0] in heard} <= told[who]
        assert told[who] <= {r for r in union if r[0] in heard}


def changes(data: bytes) -> Iterator[tuple[Action, Route]]:
    """Yield the UPDATEs among the frames."""
    for kind, payload in read(data):
        if kind is Kind.UPDATE:
            update = messages.read_update(payload)
            yield update.action, (update.vni, update.destination, update.hop)
