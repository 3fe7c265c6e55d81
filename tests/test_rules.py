"""The rules of the house, held by walking the source of everything (see README's design section).

A rule that can be broken without anybody noticing is a wish: the finders stand in tests/house.py,
and tests/test_house.py tries each of them on a snippet that breaks its rule.
"""

import ast
import re
import sys
import tomllib
from collections import defaultdict
from typing import Final

import pytest

from tests.house import (
    EVERYTHING,
    MODULES,
    PACKAGES,
    ROOT,
    catch_alls,
    circles,
    dropped_tasks,
    exception_classes,
    imports_of,
    layer_of,
    odd_constants,
    odd_docstrings,
    odd_sections,
    reached,
    silent_definitions,
    tree,
    upward,
)

SPOKEN_BY_BOTH: Final = (
    "tincan.control.messages",
    "tincan.control.codec",
    "tincan.crypto.primitives",
    "tincan.ice.stun",
)
"""What of tincan the controller may know: the language in which the two talk, and two codecs."""

TINCAN: Final[dict[str, tuple[str, ...]]] = {
    "tincan.cli": ("tincan.daemon", "tincan.errors"),
    "tincan.daemon": (
        *("tincan.control", "tincan.control.codec", "tincan.crypto", "tincan.device"),
        *("tincan.errors", "tincan.link", "tincan.path", "tincan.pump", "tincan.record"),
        *("tincan.record.layout", "tincan.switching", "tincan.switching.frame"),
    ),
    "tincan.control": (
        *("tincan.control.codec", "tincan.device", "tincan.errors", "tincan.link", "tincan.path"),
        "tincan.switching",
    ),
    "tincan.pump": (
        *("tincan.crypto", "tincan.device", "tincan.errors", "tincan.ice", "tincan.record"),
        *("tincan.record.layout", "tincan.switching", "tincan.switching.frame"),
    ),
    "tincan.link": (
        *("tincan.crypto", "tincan.device", "tincan.errors", "tincan.ice", "tincan.path"),
        *("tincan.record", "tincan.record.layout", "tincan.session", "tincan.switching"),
    ),
    "tincan.ice": ("tincan.device", "tincan.errors", "tincan.path"),
    "tincan.path": (
        *("tincan.control.codec", "tincan.device", "tincan.errors", "tincan.record"),
        "tincan.record.layout",
    ),
    "tincan.session": (
        *("tincan.crypto", "tincan.errors", "tincan.record", "tincan.record.layout"),
        "tincan.switching",
    ),
    "tincan.switching": ("tincan.device", "tincan.switching.frame"),
    "tincan.record": ("tincan.crypto", "tincan.device", "tincan.record.layout"),
    "tincan.device": ("tincan.errors", "tincan.record.layout", "tincan.switching.frame"),
    "tincan.crypto": ("tincan.errors",),
    "tincan.control.codec": ("tincan.errors",),
    "tincan.record.layout": (),
    "tincan.switching.frame": (),
    "tincan.errors": (),
}
CONTROLLER: Final[dict[str, tuple[str, ...]]] = {
    "controller.routes": (
        *("controller.command", "controller.errors", "controller.host", "controller.stopping"),
    ),
    "controller.cli": (
        "controller.routes",
        *("controller.command", "controller.config", "controller.errors", "controller.operator"),
        *("controller.start", "controller.version"),
    ),
    "controller.start": (
        *("controller.app", "controller.config", "controller.dataplane", "controller.errors"),
        *("controller.host", "controller.stopping", *SPOKEN_BY_BOTH),
    ),
    "controller.app": (
        *("controller.config", "controller.dataplane", "controller.errors", "controller.host"),
        *("controller.links", "controller.loops", "controller.loops.guard", "controller.node"),
        *("controller.operator", "controller.packets", "controller.signal"),
        *("controller.signal.rendezvous", "controller.signal.websocket", "controller.stopping"),
        *("controller.switch", "controller.version", *SPOKEN_BY_BOTH),
    ),
    "controller.links": (
        *("controller.dataplane", "controller.errors", "controller.packets"),
        *("controller.signal", "controller.signal.websocket", *SPOKEN_BY_BOTH),
    ),
    "controller.loops.guard": (
        *("controller.loops", "controller.dataplane", "controller.errors", "controller.host"),
        *("controller.packets", *SPOKEN_BY_BOTH),
    ),
    "controller.dataplane": (
        *("controller.errors", "controller.node", "controller.packets", "controller.switch"),
        *SPOKEN_BY_BOTH,
    ),
    "controller.operator": (
        *("controller.config", "controller.errors", "controller.node", "controller.packets"),
        *("controller.signal", "controller.version", *SPOKEN_BY_BOTH),
    ),
    "controller.host": (
        *("controller.config", "controller.errors", "controller.packets", *SPOKEN_BY_BOTH),
    ),
    "controller.signal.rendezvous": (
        *("controller.command", "controller.config", "controller.errors", "controller.node"),
        *("controller.signal", "controller.signal.websocket", "controller.stopping"),
        *SPOKEN_BY_BOTH,
    ),
    "controller.signal.websocket": (
        *("controller.errors", "controller.packets", "controller.signal", *SPOKEN_BY_BOTH),
    ),
    "controller.signal": ("controller.errors", *SPOKEN_BY_BOTH),
    "controller.switch": ("controller.node", "controller.packets", *SPOKEN_BY_BOTH),
    "controller.loops": ("controller.errors", "controller.packets", *SPOKEN_BY_BOTH),
    "controller.node": ("controller.errors", "controller.packets", *SPOKEN_BY_BOTH),
    "controller.config": ("controller.errors", "controller.packets"),
    "controller.packets": ("controller.errors",),
    "controller.command": ("controller.errors",),
    "controller.stopping": (),
    "controller.version": (),
    "controller.errors": (),
}
LAYERS: Final = TINCAN | CONTROLLER
"""A layer (a folder, or a module of its own) and what of ours it may import besides itself."""

SERVICES: Final = ("controller.switch", "controller.loops", "controller.routes")
"""Rooms beside each other: none knows another."""

PURE: Final = (
    "controller.loops.beacon",
    "controller.switch.table",
    "controller.config.values",
    "controller.switch.claims",
    "controller.node.node",
    "controller.node.actions",
    "controller.node.messages",
    "controller.node.rates",
    "controller.node.service",
    "controller.switch.segment",
    "controller.switch.conflicts",
    "controller.switch.gateway_host",
    "controller.errors",
    "controller.packets.resolution",
    "controller.switch.gateways",
    "controller.switch.peer_claims",
    "controller.signal.keys",
    "controller.switch.leases",
    "controller.loops.machine",
    "controller.node.counters",
    "controller.packets.packets",
    "controller.switch.sightings",
    "controller.switch.pins",
    "controller.host.capture_police",
    "controller.switch.policy",
    "controller.switch.prober",
    "controller.switch.questions",
    "controller.switch.reading",
    "controller.switch.messages",
    "controller.switch.snapshot",
    "controller.switch.switch",
    "controller.switch.sync",
    "controller.node.timers",
    "controller.signal.events",
    "controller.signal.websocket.messages",
    "controller.signal.websocket.presence",
    "controller.signal.websocket.proof",
    "controller.signal.rendezvous.quota",
    "controller.signal.rendezvous.registry",
    "controller.signal.sealing",
    "tincan.link.backlog",
    "tincan.control.codec",
    "tincan.crypto.primitives",
    "tincan.errors",
    "tincan.switching.table",
    "tincan.switching.frame",
    "tincan.link.holding",
    "tincan.link.liveness",
    "tincan.link.loss",
    "tincan.crypto.noise",
    "tincan.record.batch",
    "tincan.record.keys",
    "tincan.device.filter",
    "tincan.device.vnet",
    "tincan.link.items",
    "tincan.ice.candidates",
    "tincan.path.description",
    "tincan.ice.stun",
    "tincan.record.keys",
    "tincan.record.parity",
    "tincan.link.pmtu",
    "tincan.switching.bucket",
    "tincan.switching.policy",
    "tincan.record.reassembly",
    "tincan.crypto.window",
    "tincan.device.segment",
    "tincan.session.admission",
    "tincan.session.session",
    "tincan.session.table",
    "tincan.switching.storm",
    "tincan.record.layout",
    "controller.routes.values",
    "controller.routes.wire",
    "controller.routes.messages",
    "controller.routes.table",
    "controller.routes.channel",
    "controller.routes.reflector",
    "controller.routes.machine",
    "controller.routes.peer",
    "controller.routes.installed",
    "controller.routes.speaker",
    "controller.routes.pacing",
    "controller.routes.options",
    "controller.routes.pages",
    "controller.routes.metrics",
)
"""Layers and modules that take events and the time, and return actions."""
IMPURE_IMPORTS: Final = {
    *("asyncio", "multiprocessing", "os", "random", "select", "selectors", "signal", "socket"),
    *("subprocess", "threading", "time"),
}
IMPURE_ALLOWED: Final = {("tincan.crypto.primitives", "os")}
"""os.urandom: keys must not be anybody's argument."""

DISTRIBUTIONS: Final = {"google": "protobuf", "yaml": "pyyaml"}
"""Distributions by import name, where the two differ."""

CATCH_ALL: Final = {
    "controller.cli:main": "one line for the user instead of a traceback",
    "controller.operator.server:_serve": "a fault in a view must not end the program",
    "controller.host.resolver:work": "an executor hands its caller whatever was raised",
    "controller.signal.rendezvous.server:_handle": "one faulty connection must not end the others",
    "tincan.cli:main": "one line for the user instead of a traceback",
    "tincan.pump.loop:select": "one frame that we fail on must not end the data plane",
    "tincan.control.server:_run": "one wrong request must not end the data plane",
}
"""The outermost frames of a process or of a task, and why each may catch everything."""
LONGEST: Final = 550
"""Lines of a module: what a newcomer reads in one sitting."""
WIDEST: Final = 24
"""Files of a folder: what is taken in at a glance."""
NO_NAME: Final = re.compile(r"utils?|helpers?|managers?|misc|common", re.IGNORECASE)

UNTIDY: Final = (
    "controller.config.values",
    "controller.dataplane.client",
    "controller.dataplane.runner",
    "controller.host.capture",
    "controller.host.node_key",
    "controller.links.contacts",
    "controller.links.negotiator",
    "controller.loops.guard",
    "controller.loops.machine",
    "controller.node.rates",
    "controller.operator.report",
    "controller.packets.filters",
    "controller.packets.packets",
    "controller.routes.channel",
    "controller.routes.clients",
    "controller.routes.kernel",
    "controller.routes.machine",
    "controller.routes.messages",
    "controller.routes.options",
    "controller.routes.pages",
    "controller.routes.speaker",
    "controller.signal.rendezvous.quota",
    "controller.signal.rendezvous.stun",
    "controller.signal.websocket.messages",
    "controller.switch.claims",
    "controller.switch.conflicts",
    "controller.switch.gateway_host",
    "controller.switch.gateways",
    "controller.switch.leases",
    "controller.switch.messages",
    "controller.switch.peer_claims",
    "controller.switch.policy",
    "controller.switch.prober",
    "controller.switch.reading",
    "controller.switch.sightings",
    "controller.switch.switch",
    "controller.switch.sync",
    "controller.switch.table",
    "tincan.cli",
    "tincan.control.codec",
    "tincan.control.messages",
    "tincan.control.server",
    "tincan.crypto.noise",
    "tincan.crypto.primitives",
    "tincan.crypto.window",
    "tincan.daemon",
    "tincan.device.device",
    "tincan.device.filter",
    "tincan.device.segment",
    "tincan.device.tap",
    "tincan.device.udp",
    "tincan.device.vnet",
    "tincan.ice.agent",
    "tincan.ice.checks",
    "tincan.ice.sockets",
    "tincan.ice.turn",
    "tincan.link.backlog",
    "tincan.link.holding",
    "tincan.link.links",
    "tincan.link.liveness",
    "tincan.link.loss",
    "tincan.link.outgoing",
    "tincan.link.pmtu",
    "tincan.path.attempt",
    "tincan.path.path",
    "tincan.pump.ingress",
    "tincan.pump.outlet",
    "tincan.record.batch",
    "tincan.record.keys",
    "tincan.record.layout",
    "tincan.record.slots",
    "tincan.switching.frame",
    "tincan.switching.policy",
    "tincan.switching.storm",
    "tincan.switching.table",
)
"""Modules that do not keep the dialect yet: what is mended leaves this list."""
UNTESTED: Final = (
    "controller.routes.cli",
    "controller.dataplane.runner",
    "controller.loops.guard",
    "controller.switch.gateway_host",
    "controller.switch.peer_claims",
    "controller.switch.pins",
    "controller.switch.prober",
    "controller.switch.questions",
    "controller.switch.segment",
    "controller.switch.sightings",
    "controller.switch.snapshot",
)
"""Modules that only other modules' tests reach yet: what gets its own leaves this list."""


def is_pure(module: str) -> bool:
    return layer_of(module, PURE) is not None


class TestLayers:
    def test_the_tables_are_up_to_date(self) -> None:
        for name in (*LAYERS, *PURE, *SPOKEN_BY_BOTH):
            assert any(f"{module}.".startswith(f"{name}.") for module in MODULES), name
        for layer, allowed in LAYERS.items():
            assert set(allowed) <= set(LAYERS) | set(SPOKEN_BY_BOTH), layer

    def test_every_module_has_a_layer(self) -> None:
        rooms = [module for module in MODULES if module not in PACKAGES]
        assert [module for module in rooms if layer_of(module, LAYERS) is None] == []

    def test_layers_are_in_an_order(self) -> None:
        assert (
            circles({**LAYERS, **{name: () for name in SPOKEN_BY_BOTH if name not in LAYERS}}) == []
        )

    @pytest.mark.parametrize("package", PACKAGES)
    def test_arrows_point_down(self, package: str) -> None:
        assert [
            arrow
            for module in MODULES
            if module.split(".")[0] == package
            for arrow in upward(module, imports_of(module), LAYERS)
        ] == []

    def test_there_is_no_circle(self) -> None:
        arrows = {m: [i for i in imports_of(m) if i in EVERYTHING and i != m] for m in EVERYTHING}
        assert circles(arrows) == []

    def test_services_do_not_know_each_other(self) -> None:
        for module in MODULES:
            own = layer_of(module, SERVICES)
            known = {layer_of(name, SERVICES) for name in imports_of(module)} - {None, own}
            assert own is None or not known, module

    @pytest.mark.parametrize("module", [module for module in MODULES if is_pure(module)])
    def test_pure_rooms_do_no_io_and_read_no_clock(self, module: str) -> None:
        impure = {
            f"{here} imports {imported}"
            for here, imported in reached(module)
            if imported in IMPURE_IMPORTS and (here, imported) not in IMPURE_ALLOWED
        }
        assert not impure

    def test_each_library_is_imported_in_one_place(self) -> None:
        importers: dict[str, set[str]] = defaultdict(set)
        for module in MODULES:
            for name in imports_of(module):
                top = name.split(".")[0]
                if top not in sys.stdlib_module_names and top not in PACKAGES:
                    importers[top].add(module)
        assert {library: sorted(at) for library, at in importers.items() if len(at) > 1} == {}
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        declared = {re.split(r"[^\w-]", line)[0].lower() for line in project["dependencies"]}
        assert {DISTRIBUTIONS.get(library, library) for library in importers} <= declared

    def test_scapy_is_imported_by_layer(self) -> None:
        for module in MODULES:
            assert "scapy.all" not in imports_of(module)

    def test_every_module_is_imported_by_a_test(self) -> None:
        tested: set[str] = set()
        for path in (ROOT / "tests").rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    tested |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    tested |= {f"{node.module}.{alias.name}" for alias in node.names}
                    tested.add(node.module or "")
        maps = {module for module, path in MODULES.items() if path.name == "__init__.py"}
        assert sorted(set(MODULES) - tested - maps) == sorted(UNTESTED)

    def test_a_folder_is_taken_in_at_a_glance(self) -> None:
        files: dict[str, int] = defaultdict(int)
        for module in MODULES:
            files[module.rpartition(".")[0]] += 1
        assert {folder: count for folder, count in files.items() if count > WIDEST} == {}

    def test_a_map_holds_nothing_but_the_map(self) -> None:
        for module, path in MODULES.items():
            if path.name == "__init__.py":
                body = tree(module).body
                assert len(body) == 1, module
                assert ast.get_docstring(tree(module)), module


class TestStyle:
    def test_nothing_catches_everything(self) -> None:
        found = {f"{m}:{function}" for m in MODULES for function, _ in catch_alls(tree(m))}
        assert found == set(CATCH_ALL)

    def test_no_task_is_dropped(self) -> None:
        assert [f"{m}:{line}" for m in MODULES for line in dropped_tasks(tree(m))] == []

    @pytest.mark.parametrize("package", PACKAGES)
    def test_all_errors_stand_in_one_tree(self, package: str) -> None:
        known = exception_classes(tree(f"{package}.errors"), set())
        elsewhere = {
            module: sorted(found)
            for module in MODULES
            if module.split(".")[0] == package and module != f"{package}.errors"
            if (found := exception_classes(tree(module), known))
        }
        assert elsewhere == {}
        drawn = ast.get_docstring(tree(f"{package}.errors")) or ""
        assert [name for name in known if name not in drawn] == []

    def test_names_say_something(self) -> None:
        for module in MODULES:
            words = [word for part in module.split(".") for word in part.split("_")]
            for node in ast.walk(tree(module)):
                if isinstance(node, ast.ClassDef):
                    words += re.findall("[A-Z][a-z]*", node.name)
            assert [word for word in words if NO_NAME.fullmatch(word)] == [], module

    def test_one_sitting(self) -> None:
        lines = {module: path.read_text().count("\n") for module, path in MODULES.items()}
        assert {module: count for module, count in lines.items() if count > LONGEST} == {}

    def test_everything_else_is_written_in_one_dialect(self) -> None:
        """Everything public says what it is, in a sentence with a subject; constants are Final and
        explained below; sections are ``# --- title``."""
        found = {
            module
            for module, path in MODULES.items()
            if not ast.get_docstring(tree(module))
            or any(silent_definitions(tree(module)))
            or any(odd_docstrings(tree(module)))
            or any(odd_constants(tree(module), path.read_text()))
            or any(odd_sections(path.read_text()))
        }
        assert found == set(UNTIDY)
