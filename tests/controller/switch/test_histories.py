"""Whatever happened: after quiet all nodes agree, and each address is where its owner is."""

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from controller.packets.addresses import Ip
from tests.controller.switch.world import Container, World, mac

NAMES = "abc"
CONTAINERS = 5
SHARED = "10.0.3.200"
"""An address that moves between containers, as failover does."""

hosts = st.sampled_from(NAMES)
numbers = st.integers(0, CONTAINERS - 1)
pauses = st.sampled_from([0.0, 0.01, 0.1, 0.7, 3.0, 20.0, 200.0])


class Histories(RuleBasedStateMachine):
    """Containers start, speak, move and die; links and controllers come and go; messages get
    lost, repeated and reordered."""

    def __init__(self) -> None:
        super().__init__()
        self.begin(0)

    @initialize(seed=st.integers(0, 2**16))
    def begin(self, seed: int) -> None:
        self.world = World(NAMES, seed).link().run(2)
        self.containers = [
            Container(mac(n), [f"10.0.3.{n}", f"fe80::{n:x}", f"fd00::{n:x}"], vlan=n % 2)
            for n in range(1, CONTAINERS)
        ]
        # One uses an address of another, and an address of its own.
        self.containers.append(Container(mac(99), ["10.0.3.1", "10.0.3.99"], vlan=1))
        self.failover: Container | None = None

    def speak(self, container: Container) -> None:
        """What every container does when it starts and now and then."""
        for ip in container.ips:
            container.announce(ip)
            self.world.run(0.005)

    @rule(number=numbers, name=hosts, noticed=st.booleans(), speaks=st.booleans())
    def start_or_move(self, number: int, name: str, noticed: bool, speaks: bool) -> None:
        container = self.containers[number]
        if container.host is not None:
            container.host.stop(container, noticed=noticed)
        self.world.hosts[name].attach(container)
        if speaks:
            self.speak(container)

    @rule(number=numbers, noticed=st.booleans())
    def stop(self, number: int, noticed: bool) -> None:
        container = self.containers[number]
        if container.host is not None:
            container.host.stop(container, noticed=noticed)

    @rule(number=numbers)
    def fail_over(self, number: int) -> None:
        """The shared address goes from whoever has it to another, which announces it."""
        container = self.containers[number]
        if container.vlan != 0 or container.host is None:
            return
        if self.failover is not None:
            self.failover.ips.remove(SHARED)
        self.failover = container
        container.announce(SHARED)

    @rule(number=numbers, other=numbers)
    def ask(self, number: int, other: int) -> None:
        asker, owner = self.containers[number], self.containers[other]
        if asker is not owner and asker.host is not None:
            asker.ask(owner.ips[0])

    @rule(number=numbers, other=numbers)
    def probe(self, number: int, other: int) -> None:
        """A container looks whether an address of another is free."""
        asker, owner = self.containers[number], self.containers[other]
        if asker is not owner and asker.host is not None:
            asker.probe(owner.ips[0])
            asker.probing.clear()

    @rule(seconds=pauses)
    def wait(self, seconds: float) -> None:
        self.world.run(seconds)

    @rule(one=hosts, other=hosts)
    def cut(self, one: str, other: str) -> None:
        if one != other:
            self.world.unlink(one, other)

    @rule(one=hosts, other=hosts)
    def join(self, one: str, other: str) -> None:
        if one != other:
            self.world.link(one, other)

    @rule(name=hosts)
    def restart(self, name: str) -> None:
        self.world.restart(name)

    @rule(
        loss=st.sampled_from([0.0, 0.2, 0.7]),
        repeat=st.sampled_from([0.0, 0.3]),
        jitter=st.sampled_from([0.0, 0.05, 1.5]),
    )
    def weather(self, loss: float, repeat: float, jitter: float) -> None:
        self.world.loss, self.world.repeat, self.world.jitter = loss, repeat, jitter

    @precondition(lambda self: self.failover is None or self.failover.host is not None)
    @rule()
    def settle(self) -> None:
        world = self.world
        world.loss = world.repeat = world.jitter = 0.0
        world.link()
        world.run(200)  # frozen addresses are free again after this
        for _ in range(2):
            for container in self.containers:
                if container.host is not None:
                    self.speak(container)
            world.run(320)  # the dead have been asked, and withdrawn
        truth: dict[tuple[int, Ip], set[tuple[str, str]]] = {}
        places: dict[tuple[int, str], str] = {}
        for container in self.containers:
            if container.host is not None:
                places[container.vlan, container.mac] = container.host.node
                for ip in container.ips:
                    holders = truth.setdefault((container.vlan, ip), set())
                    holders.add((container.mac, container.host.node))
        agreed = world.a.table()
        assert agreed.keys() == truth.keys()
        for key, holder in agreed.items():
            assert holder in truth[key]
        for name, host in world.hosts.items():
            assert host.table() == agreed, name
            for (vlan, address), at in host.pins.items():
                if not address.startswith("0a:"):
                    owner = places[vlan, address]
                    assert at == (None if owner == host.node else owner)

    @invariant()
    def nothing_piles_up(self) -> None:
        for host in self.world.hosts.values():
            assert len(host.table()) <= 3 * CONTAINERS + 1

    def teardown(self) -> None:
        if self.failover is None or self.failover.host is not None:
            self.settle()


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=60,
    stateful_step_count=16,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],  # no slow explanations
    suppress_health_check=[HealthCheck.too_slow],
)
