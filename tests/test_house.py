"""The finders find: each is tried on a snippet that breaks its rule, and on one that keeps it."""

import ast

import pytest

from tests.house import (
    catch_alls,
    circles,
    dropped_tasks,
    exception_classes,
    imports,
    layer_of,
    odd_constants,
    odd_docstrings,
    odd_sections,
    silent_definitions,
    upward,
)

LAYERS = {"a": ("b",), "a.x": (), "b": (), "c": ("a", "b")}


class TestImports:
    def test_all_count_also_those_for_types_and_those_within_functions(self) -> None:
        source = ast.parse(
            "import a.b\nfrom c import d, e\n"
            "if TYPE_CHECKING:\n    import f\nelse:\n    import g\n"
            "def h():\n    from i import j\n"
        )
        assert imports(source, frozenset({"c.d"})) == {"a.b", "c.d", "c", "f", "g", "i"}

    def test_circles(self) -> None:
        arrows = {"a": ["b"], "b": ["c"], "c": ["b", "d"], "d": [], "e": ["f"], "f": ["e"]}
        assert sorted(circles(arrows)) == [["b", "c"], ["e", "f"]]
        assert circles({"a": ["b", "c"], "b": ["c"], "c": []}) == []

    def test_the_layer_of_a_module_is_the_longest_that_fits(self) -> None:
        assert layer_of("a.x.y", LAYERS) == "a.x"
        assert layer_of("a.xy", LAYERS) == "a"
        assert layer_of("z", LAYERS) is None

    def test_arrows_up(self) -> None:
        assert list(upward("b.m", ["a.n", "b.k", "os"], LAYERS)) == ["b.m imports a.n"]
        assert list(upward("a.m", ["b.n", "a.x"], LAYERS)) == ["a.m imports a.x"]
        assert list(upward("c", ["a.m", "b", "json"], LAYERS)) == []


class TestBehaviour:
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

    def test_exception_classes(self) -> None:
        source = ast.parse(
            "class A(OSError): pass\nclass B(A): pass\nclass C(Lost): pass\nclass D(int): pass"
        )
        assert exception_classes(source, {"Lost"}) == {"A", "B", "C"}


class TestDialect:
    @pytest.mark.parametrize(
        "line", ["LIMIT = 3", "LIMIT: int = 3", "A, LIMIT = 1, 3", "LIMIT: Final = 3  # seconds"]
    )
    def test_odd_constants(self, line: str) -> None:
        assert "LIMIT" in dict(odd_constants(ast.parse(line), line))

    @pytest.mark.parametrize(
        "text", ["LIMIT_S: Final = 3", "X: Final[int] = 3\n'''Seconds.'''", "log = 3", "x = 1  # y"]
    )
    def test_proper_constants(self, text: str) -> None:
        assert list(odd_constants(ast.parse(text), text)) == []

    def test_sections(self) -> None:
        assert list(
            odd_sections("# -- in\n    # ---\n# ---- out ----\n# --- title\nx = 1 # - y")
        ) == [
            1,
            2,
            3,
        ]

    def test_silent_definitions(self) -> None:
        source = ast.parse(
            "class A:\n    def f(self): ...\n    def _g(self): ...\n"
            "def h():\n    '''Do it.'''\nclass _B:\n    def i(self): ..."
        )
        assert list(silent_definitions(source)) == ["A", "A.f"]

    @pytest.mark.parametrize(
        "text", ["Whether it is.", "What is left.", "Once through.", "To end."]
    )
    def test_docstrings_without_a_subject(self, text: str) -> None:
        assert list(odd_docstrings(ast.parse(f"def f():\n    '''{text}'''"))) == ["f"]

    def test_docstrings_with_one(self) -> None:
        text = (
            "def f():\n    '''Return whether it is.'''\nclass A:\n    '''A list of what is left.'''"
        )
        assert list(odd_docstrings(ast.parse(text))) == []
