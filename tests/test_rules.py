"""The rules of the house, checked by walking the source: see "Rooms" in the design.

A rule that can be broken without anybody noticing is a wish. Each finder below is also tried on
a snippet that breaks its rule.
"""

import ast
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("controller", "tincan")

PURE = {  # events and the time in, actions out
    "controller": (
        "loops.beacon",
        "switch.table",
        "config.values",
        "switch.claims",
        "node.node",
        "switch.conflicts",
        "switch.gateway_host",
        "errors",
        "packets.resolution",
        "switch.gateways",
        "switch.peer_claims",
        "signal.keys",
        "switch.leases",
        "loops.machine",
        "node.counters",
        "packets.packets",
        "switch.sightings",
        "switch.pins",
        "host.capture_police",
        "switch.policy",
        "switch.prober",
        "switch.questions",
        "switch.reading",
        "switch.messages",
        "switch.snapshot",
        "switch.switch",
        "switch.sync",
        "node.timers",
        "signal.events",
        "signal.websocket.messages",
        "signal.websocket.presence",
        "signal.proof",
        "signal.rendezvous.quota",
        "signal.rendezvous.registry",
        "signal.sealing",
        "routes.values",
        "routes.wire",
        "routes.messages",
        "routes.table",
        "routes.channel",
        "routes.reflector",
        "routes.machine",
        "routes.peer",
        "routes.installed",
        "routes.speaker",
        "routes.pacing",
        "routes.options",
        "routes.pages",
        "routes.metrics",
    ),
    "tincan": (
        "link.backlog",
        "control.codec",
        "crypto.primitives",
        "errors",
        "switching.table",
        "switching.frame",
        "link.holding",
        "link.liveness",
        "link.loss",
        "crypto.noise",
        "record.outgoing",
        "record.parity",
        "link.pmtu",
        "switching.bucket",
        "switching.policy",
        "record.reassembly",
        "crypto.window",
        "device.segment",
        "session.session",
        "switching.storm",
        "record.layout",
    ),
}
IMPURE_IMPORTS = {
    *("asyncio", "multiprocessing", "os", "random", "select", "selectors", "signal", "socket"),
    *("subprocess", "threading", "time"),
}
IMPURE_ALLOWED = {
    ("tincan.crypto.primitives", "os")
}  # os.urandom: keys must not be anybody's argument

OF_TINCAN = {
    "tincan.control.messages",
    "tincan.control.codec",
    "tincan.crypto.primitives",
}  # what the controller may import
DISTRIBUTIONS = {
    "yaml": "pyyaml",
    "google": "protobuf",
}  # import name -> distribution, where they differ

CATCH_ALL = {  # the outermost frame of a process or of a task, and why
    "controller.cli:main": "one line for the user instead of a traceback",
    "controller.operator.server:_serve": "a fault in a view must not end the program",
    "controller.host.directories:work": "an executor hands its caller whatever was raised",
    "controller.signal.rendezvous.server:_handle": "one faulty connection must not end the others",
    "tincan.cli:main": "one line for the user instead of a traceback",
    "tincan.pump.loop:select": "one frame that we fail on must not end the data plane",
    "tincan.control.server:_run": "one wrong request must not end the data plane",
}
LONGEST = 550  # lines; "a file a newcomer can read in one sitting"
NO_NAME = re.compile(r"utils?|helpers?|managers?|misc|common", re.IGNORECASE)


def modules() -> dict[str, Path]:
    """Return the file of every module of ours."""
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(), str(MODULES[module]))


def imports(source: ast.Module, known: frozenset[str]) -> set[str]:
    """Return the modules that run when this one is imported or later: not those for types only.

    ``from package import module`` counts as the module if ``known`` has it.
    """
    found: set[str] = set()
    todo: list[ast.AST] = [source]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo += node.orelse
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide who depends on whom"
            module = node.module or ""
            for alias in node.names:
                deeper = f"{module}.{alias.name}"
                found.add(deeper if deeper in known else module)
        todo += ast.iter_child_nodes(node)
    return found


@cache
def imports_of(module: str) -> set[str]:
    return imports(tree(module), frozenset(MODULES))


def reached(module: str) -> Iterator[tuple[str, str]]:
    """Yield (module of ours, what it imports from elsewhere) for all that ``module`` pulls in."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        here = todo.pop()
        if here in seen:
            continue
        seen.add(here)
        for imported in imports_of(here):
            if imported in MODULES:
                todo.append(imported)
            else:
                yield here, imported.split(".")[0]


def catch_alls(source: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield (function, line) of every place that swallows whatever there is.

    To clean up and raise again is no catch-all.
    """

    def is_everything(kinds: list[ast.expr]) -> bool:
        return bool({ast.unparse(kind) for kind in kinds} & {"Exception", "BaseException"})

    def visit(node: ast.AST, function: str) -> Iterator[tuple[str, int]]:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            function = node.name
        if isinstance(node, ast.ExceptHandler) and ast.unparse(node.body[-1]) != "raise":
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if None in kinds or is_everything([kind for kind in kinds if kind]):
                yield function, node.lineno
        match node:
            case ast.Call(func, args) if ast.unparse(func).endswith("suppress"):
                if is_everything(args):
                    yield function, node.lineno
        for child in ast.iter_child_nodes(node):
            yield from visit(child, function)

    return visit(source, "")


def dropped_tasks(source: ast.Module) -> Iterator[int]:
    """Yield the lines that start a task and keep nothing of it; a TaskGroup keeps its own.

    The loop holds tasks by weak references only, and nobody sees what such a task raises.
    """
    for node in ast.walk(source):
        if not isinstance(node, (ast.Expr, ast.Assign)) or not isinstance(node.value, ast.Call):
            continue
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) != "_":
            continue
        called = ast.unparse(node.value.func)
        by_nobody = re.search(r"(asyncio|loop|loop\(\))\.create_task$|^create_task$", called)
        if by_nobody or called.endswith(("ensure_future", "run_coroutine_threadsafe")):
            yield node.lineno


class TestRooms:
    @pytest.mark.parametrize("package", PACKAGES)
    def test_the_list_of_pure_rooms_is_up_to_date(self, package: str) -> None:
        assert {f"{package}.{name}" for name in PURE[package]} <= set(MODULES)

    @pytest.mark.parametrize(
        "module", [f"{package}.{name}" for package in PACKAGES for name in PURE[package]]
    )
    def test_pure_rooms_do_no_io_and_read_no_clock(self, module: str) -> None:
        impure = {
            f"{here} imports {imported}"
            for here, imported in reached(module)
            if imported in IMPURE_IMPORTS and (here, imported) not in IMPURE_ALLOWED
        }
        assert not impure

    def test_tincan_knows_no_controller(self) -> None:
        for module in MODULES:
            if module.startswith("tincan"):
                assert not {name for name in imports_of(module) if name.startswith("controller")}

    def test_the_controller_knows_only_the_messages_of_tincan(self) -> None:
        wrong = {
            f"{module} imports {name}"
            for module in MODULES
            if module.startswith("controller")
            for name in imports_of(module)
            if name.split(".")[0] == "tincan" and name not in OF_TINCAN
        }
        assert not wrong

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


class TestStyle:
    def test_nothing_catches_everything(self) -> None:
        found = {f"{m}:{function}" for m in MODULES for function, _ in catch_alls(tree(m))}
        assert found == set(CATCH_ALL)

    def test_no_task_is_dropped(self) -> None:
        assert [f"{m}:{line}" for m in MODULES for line in dropped_tasks(tree(m))] == []

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

    def test_every_module_says_what_it_is(self) -> None:
        silent = [module for module in MODULES if not ast.get_docstring(tree(module))]
        assert [module for module in silent if MODULES[module].read_text().strip()] == []


class TestTheFindersFind:
    def test_imports(self) -> None:
        source = ast.parse(
            "import a.b\nfrom c import d, e\n"
            "if TYPE_CHECKING:\n    import f\nelse:\n    import g\n"
            "def h():\n    from i import j\n"
        )
        assert imports(source, frozenset({"c.d"})) == {"a.b", "c.d", "c", "g", "i"}

    @pytest.mark.parametrize(
        "handler", ["except:", "except Exception:", "except (OSError, BaseException) as e:"]
    )
    def test_catch_alls(self, handler: str) -> None:
        source = ast.parse(f"def f():\n    try:\n        pass\n    {handler}\n        pass")
        assert list(catch_alls(source)) == [("f", 4)]

    def test_what_is_caught_narrowly(self) -> None:
        source = ast.parse("try:\n    pass\nexcept (OSError, ValueError):\n    pass")
        assert list(catch_alls(source)) == []
        source = ast.parse("try:\n    pass\nexcept BaseException:\n    close()\n    raise")
        assert list(catch_alls(source)) == []
        assert list(catch_alls(ast.parse("with contextlib.suppress(Exception): pass"))) == [("", 1)]

    @pytest.mark.parametrize(
        "line",
        [
            "asyncio.create_task(f())",
            "_ = asyncio.create_task(f())",
            "self._loop.create_task(f())",
            "asyncio.get_running_loop().create_task(f())",
            "asyncio.ensure_future(f())",
            "asyncio.run_coroutine_threadsafe(f(), loop)",
        ],
    )
    def test_dropped_tasks(self, line: str) -> None:
        assert list(dropped_tasks(ast.parse(line))) == [1]

    @pytest.mark.parametrize(
        "line",
        ["tasks.create_task(f())", "t = asyncio.create_task(f())", "self._tasks.create_task(f())"],
    )
    def test_kept_tasks(self, line: str) -> None:
        assert list(dropped_tasks(ast.parse(line))) == []
