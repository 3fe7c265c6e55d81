"""The text of a configuration file, read and parsed into plain values: JSON or YAML.

The one module that imports yaml. Every fault of the text becomes a ConfigError, with line and
column where there are any; ``config.load`` decides what the values mean.
"""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, Final

import yaml

from controller.config.values import Place, shown
from controller.errors import ConfigError, UnwantedText

MAX_FILE_BYTES: Final = 1 << 20
"""The largest configuration; a thousand static bindings take a tenth of it."""


def read(path: Path, place: Place, most: int) -> bytes:
    """Return the bytes of a file of at most ``most`` bytes; raise ConfigError at ``place``."""
    name = "" if place.file == str(path) else f'"{path}" '
    try:
        with path.open("rb") as stream:
            data = stream.read(most + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        why = error.strerror if isinstance(error, OSError) else "the path has a NUL byte"
        cures = {
            "FileNotFoundError": "check the path",
            "PermissionError": "run as a user who may read it (sudo), or change its mode",
            "IsADirectoryError": "name a file in it",
        }
        cure = cures.get(type(error).__name__, "give a file that can be read")
        raise place.wrong(f"{name}cannot be read: {why}", cure) from None
    if len(data) > most:
        raise place.wrong(f"{name}is larger than {most} bytes", "check that it is the right file")
    return data


def parse(data: bytes, name: str) -> object:
    """Return what the JSON or YAML text ``data`` holds; raise ConfigError about file ``name``.

    JSON is tried first, whatever the name: YAML takes most of it, but not its tabs.
    """
    place = Place(name)
    if b"\0" in data:
        raise place.wrong("has NUL bytes", "give a JSON or YAML file, as UTF-8 text")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _at(name, line).wrong("is not UTF-8", "save the file as UTF-8 text") from None
    if not text.strip():
        raise place.wrong("is empty", 'write at least "network", "secret" and "signal"')
    try:
        try:
            return json.loads(text, object_pairs_hook=_pairs, parse_constant=_constant)
        except json.JSONDecodeError as error:
            if name.endswith(".json"):
                raise _not_json(error, name) from None
            try:
                return yaml.load(text, _Loader)
            except (yaml.YAMLError, UnwantedText) as yaml_error:
                if text.lstrip().startswith("{"):
                    raise _not_json(error, name) from None
                raise _not_yaml(yaml_error, name) from None
    except UnwantedText as unwanted:
        raise place.wrong(unwanted.problem, unwanted.cure) from None
    except RecursionError:
        raise place.wrong("is nested too deeply", "no key needs more than three levels") from None
    except ValueError:  # int() of more than 4300 digits
        raise place.wrong(
            "has a number that is too long", "put it in quotes if it is text"
        ) from None


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Make the dict of a JSON object; raise UnwantedText if a key is there twice."""
    result = dict(pairs)
    if len(result) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise UnwantedText(f'the key "{shown(twice)}" appears twice', "keep one of them")
    return result


def _constant(name: str) -> object:
    """Refuse NaN and the infinities, which Python's JSON knows beyond RFC 8259."""
    raise UnwantedText(f"{name} is not JSON", "no key takes such a number")


def _at(name: str, line: int, column: int = 0) -> Place:
    """Return the place at this line and column, both counted from 1."""
    return Place(f"{name}: line {line}" + (f", column {column}" if column else ""))


def _not_json(error: json.JSONDecodeError, name: str) -> ConfigError:
    problem = f"is not JSON: {error.msg[:1].lower()}{error.msg[1:]}"
    return _at(name, error.lineno, error.colno).wrong(problem, "correct it there or just before")


def _not_yaml(error: yaml.YAMLError | UnwantedText, name: str) -> ConfigError:
    if isinstance(error, UnwantedText):
        return _at(name, error.line, error.column).wrong(error.problem, error.cure)
    if not isinstance(error, yaml.MarkedYAMLError) or not error.problem_mark:
        return Place(name).wrong(f"is not YAML: {error}"[:200], "remove what is not text")
    place = _at(name, error.problem_mark.line + 1, error.problem_mark.column + 1)
    said = " ".join(part for part in (error.context, error.problem) if part)
    return place.wrong(f"is not YAML: {said}", "correct it there or just before")


class _Loader(yaml.SafeLoader):
    """YAML without surprises.

    Only null, true, false and numbers are anything but text (the core schema of YAML 1.2):
    PyYAML's own rules read the MAC 52:54:00:12:34:56 as a number of seconds and the node name
    "no" as a boolean. Tags and aliases are refused: nothing here needs them, and they are what
    YAML bombs are made of.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _unwanted("aliases are not taken", "write the value out", event.start_mark)
        if getattr(event, "tag", None) not in (None, "!"):
            raise _unwanted("tags are not taken", "write the plain value", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f'the key "{shown(key.value)}" appears twice'
                    raise _unwanted(problem, "keep one of them", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _unwanted(problem: str, cure: str, mark: Any) -> UnwantedText:
    """Return the error about what PyYAML read at ``mark``."""
    return UnwantedText(problem, cure, mark.line + 1, mark.column + 1)


def _resolve(tag: str, pattern: str, first: str) -> None:
    """Read plain text that matches ``pattern``, and so starts with one of ``first``, as ``tag``."""
    first_letters = [*first] or [""]
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), first_letters)


_resolve("null", r"$", "")
_resolve("null", r"(~|null|Null|NULL)$", "~nN")
_resolve("bool", r"(true|True|TRUE|false|False|FALSE)$", "tTfF")
_resolve("int", r"[-+]?(0|[1-9][0-9]*)$", "-+0123456789")
_resolve("float", r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$", "-+.0123456789")
