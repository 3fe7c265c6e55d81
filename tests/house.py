"""Finders for the rules of the house: each yields what breaks a rule in the source of a module."""

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
PACKAGES: Final = ("controller", "tincan")
LAB: Final = "lab"


def _modules() -> dict[str, Path]:
    """Return the file of every module of the packages and of the lab."""
    found = {}
    for package in (*PACKAGES, LAB):
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


EVERYTHING: Final = _modules()
"""Files by module, the lab's included."""
MODULES: Final = {name: path for name, path in EVERYTHING.items() if name.split(".")[0] != LAB}
"""Files by module of the two packages."""


@cache
def tree(module: str) -> ast.Module:
    """Return the parsed source of a module."""
    return ast.parse(EVERYTHING[module].read_text(), str(EVERYTHING[module]))


# --- imports


def imports(source: ast.Module, known: frozenset[str]) -> set[str]:
    """Return all that a module imports: at once, later, or for types only.

    ``from package import module`` counts as the module if ``known`` has it.
    """
    found: set[str] = set()
    for node in ast.walk(source):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide who depends on whom"
            module = node.module or ""
            for alias in node.names:
                deeper = f"{module}.{alias.name}"
                found.add(deeper if deeper in known else module)
    return found


@cache
def imports_of(module: str) -> frozenset[str]:
    """Return all that a module of ours imports."""
    return frozenset(imports(tree(module), frozenset(EVERYTHING)))


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
            if imported in EVERYTHING:
                todo.append(imported)
            else:
                yield here, imported.split(".")[0]


def circles(arrows: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other, however far round (Tarjan 1972)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(here: str) -> None:
        number[here] = lowest[here] = len(number)
        stack.append(here)
        for there in arrows[here]:
            if there not in number:
                visit(there)
                lowest[here] = min(lowest[here], lowest[there])
            elif there in stack:
                lowest[here] = min(lowest[here], number[there])
        if lowest[here] == number[here]:
            at = stack.index(here)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for module in arrows:
        if module not in number:
            visit(module)
    return found


def layer_of(module: str, layers: Iterable[str]) -> str | None:
    """Return the layer of a module: the longest name in ``layers`` that it begins with."""
    fitting = [name for name in layers if f"{module}.".startswith(f"{name}.")]
    return max(fitting, key=len, default=None)


def upward(
    module: str, imported: Iterable[str], layers: Mapping[str, tuple[str, ...]]
) -> Iterator[str]:
    """Yield what ``module`` imports from layers that its own may not know."""
    own = layer_of(module, layers)
    allowed = layers[own] if own is not None else ()
    for name in sorted(imported):
        there = layer_of(name, layers)
        if name in allowed:
            continue
        if there is not None and there != own and there not in allowed:
            yield f"{module} imports {name}"


# --- behaviour


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


def exception_classes(source: ast.Module, known: set[str]) -> set[str]:
    """Return the classes of a module that derive from an exception, or from one of ``known``."""
    found: set[str] = set()
    for node in ast.walk(source):
        if isinstance(node, ast.ClassDef):
            bases = {ast.unparse(base).rsplit(".")[-1] for base in node.bases}
            if bases & (known | found) or any(
                re.search(r"(Error|Exception|Interrupt|Warning)$", base) for base in bases
            ):
                found.add(node.name)
    return found


# --- dialect

CONSTANT: Final = re.compile(r"_?[A-Z][A-Z0-9_]*")
SECTION: Final = re.compile(r"\s*# -+")
PROPER_SECTION: Final = re.compile(r"\s*# --- \S.*[^-]$")
SUBJECTLESS: Final = re.compile(
    r"(Whether|What|Who|Whom|Whose|Where|When|How|Which|Once|As|From|With|For|To|Of|If|Till|Until"
    r"|Through)\b"
)
"""Openings of a sentence that leave out its subject, or its verb."""


def odd_constants(source: ast.Module, text: str) -> Iterator[tuple[str, int]]:
    """Yield (name, line) of module constants that are not Final or are explained beside."""
    comments = {
        token.start[0]
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT and not token.string.startswith(("# noqa", "# type:"))
    }
    for node in source.body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                for name in ast.walk(target):
                    if isinstance(name, ast.Name) and CONSTANT.fullmatch(name.id):
                        yield name.id, node.lineno
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            annotation = ast.unparse(node.annotation)
            if not CONSTANT.fullmatch(node.target.id):
                continue
            one_line = node.lineno == node.end_lineno
            if "Final" not in annotation or (one_line and node.lineno in comments):
                yield node.target.id, node.lineno


def odd_sections(text: str) -> Iterator[int]:
    """Yield the lines that part a file in another way than ``# --- title``."""
    for number, line in enumerate(text.splitlines(), 1):
        if SECTION.match(line) and not PROPER_SECTION.match(line):
            yield number


def _definitions(
    source: ast.Module,
) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield (qualified name, definition) of what others may use: no underscore on its way."""

    def visit(
        body: list[ast.stmt], prefix: str
    ) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]]:
        for node in body:
            if not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            if node.name.startswith("_"):
                continue
            if any(
                "overload" in ast.unparse(d) or ".setter" in ast.unparse(d)
                for d in node.decorator_list
            ):
                continue
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from visit(node.body, f"{prefix}{node.name}.")

    return visit(source.body, "")


def silent_definitions(source: ast.Module) -> Iterator[str]:
    """Yield the public classes, functions and methods that say nothing of themselves."""
    for name, node in _definitions(source):
        if not ast.get_docstring(node):
            yield name


def odd_docstrings(source: ast.Module) -> Iterator[str]:
    """Yield the public functions whose docstring opens without a verb, or without a subject."""
    for name, node in _definitions(source):
        if SUBJECTLESS.match(ast.get_docstring(node) or ""):
            yield name
