"""The text of a configuration file: JSON, YAML, and whatever else a file may hold."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.config.load import load
from controller.config.text import MAX_FILE_BYTES, parse
from controller.errors import ConfigError
from tests.controller.config.given import MINIMAL, one_line_of, refusal, repr_start

YAML = """
# a comment
network: lab
secret: correct horse battery
signal: {listen: "[::]:8765"}
node: no
state_dir: 2024-01-01
static:
  - ip: 10.0.3.5
    mac: 52:54:00:12:34:56
    node: 1e3
"""


class TestText:
    def parsed(self, text: str | bytes, name: str = "switch.json") -> object:
        return parse(text.encode() if isinstance(text, str) else text, name)

    def refused(self, text: str | bytes, name: str = "switch.json") -> str:
        with pytest.raises(ConfigError) as caught:
            self.parsed(text, name)
        return one_line_of(caught.value)

    def test_json_and_yaml_say_the_same(self) -> None:
        value = {**MINIMAL, "icc": True, "icc_port": 5, "turn": [], "bridge": None}
        text = 'network: lab\nsecret: correct horse battery\nsignal: "ws://rendezvous.example:8765"'
        text += "\nicc: true\nicc_port: 5\nturn: []\nbridge:\n"
        for name in ("switch.yaml", "switch.json", "config"):
            assert self.parsed(json.dumps(value, indent="\t"), name) == value
        assert self.parsed("\ufeff" + text, "switch.yaml") == value
        assert self.parsed(text, "switch") == value

    def test_yaml_text_stays_text(self) -> None:
        value = self.parsed(YAML, "switch.yaml")
        assert isinstance(value, dict)
        assert value["node"] == "no"
        assert value["state_dir"] == "2024-01-01"
        assert value["static"] == [{"ip": "10.0.3.5", "mac": "52:54:00:12:34:56", "node": "1e3"}]

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("", "switch.json: is empty"),
            (" \n\t", "switch.json: is empty"),
            ('{"a": 1,}', "switch.json: line 1, column "),
            ('{\n "a": 1\n "b": 2}', "switch.json: line 3, column 2: is not JSON: expecting"),
            ("network: lab", "switch.json: line 1, column 1: is not JSON"),
            ('{"a": NaN}', "NaN is not JSON"),
            ('{"a": 1, "b": 2, "a": 3}', 'the key "a" appears twice'),
            ('{"a": {"b": 1, "b": 1}}', 'the key "b" appears twice'),
            ('{"a": ' + "9" * 5000 + "}", "a number that is too long"),
            ("[" * 100_000, "is nested too deeply"),
            ('{"a":' * 100_000, "is nested too deeply"),
            (b'{"a": "\0"}', "has NUL bytes"),
            ('{"a": 1}'.encode("utf-16"), "switch.json: "),
            (b'{\n"a": "\xff"}', "switch.json: line 2: is not UTF-8"),
        ],
        ids=repr_start,
    )
    def test_bad_json(self, text: str | bytes, told: str) -> None:
        assert told in self.refused(text)

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("network: [", "switch.yaml: line 1, column 11: is not YAML"),
            ("\tnetwork: lab", "switch.yaml: line 1, column 1: is not YAML"),
            ("a: 1\nb: 2\na: 3", 'switch.yaml: line 3, column 1: the key "a" appears twice'),
            ("a: b\n---\na: c", "line 2, column 1: is not YAML: expected a single document"),
            ("a: &x [1]\nb: *x", "line 2, column 4: aliases are not taken; write the value out"),
            ("a: &x [*x]", "aliases are not taken"),
            ("a: !!python/object/apply:os.system [id]", "tags are not taken"),
            ("a: !!int x", "tags are not taken"),
            ("a: !x y", "tags are not taken"),
            ("? [a]\n: b", "unhashable key"),
            ("a: " + "9" * 5000, "a number that is too long"),
            ("- " * 20_000 + "x", "is nested too deeply"),
            ('{"a": 1,, }', "switch.yaml: line 1, column "),
            ("a: \x07", "switch.yaml: is not YAML"),
        ],
        ids=repr_start,
    )
    def test_bad_yaml(self, text: str, told: str) -> None:
        assert told in self.refused(text, "switch.yaml")

    def test_keys_that_are_not_text(self) -> None:
        assert "has a whole number as a key" in refusal(self.parsed("5: 6", "switch.yaml"))

    @pytest.mark.parametrize("path", ["/nonexistent", "/tmp", "/dev/zero", "/dev/null"])
    def test_unreadable_file(self, path: str) -> None:
        with pytest.raises(ConfigError) as caught:
            load(Path(path))
        assert one_line_of(caught.value).startswith(f"{path}: ")

    def test_huge_file(self, tmp_path: Path) -> None:
        file = tmp_path / "switch.json"
        file.write_bytes(b" " * (MAX_FILE_BYTES + 1))
        with pytest.raises(ConfigError, match="is larger than 1048576 bytes"):
            load(file)

    def test_secret_in_a_file_for_all(self, tmp_path: Path) -> None:
        file = tmp_path / "switch.json"
        file.write_text(json.dumps(MINIMAL))
        file.chmod(0o644)
        assert f"chmod 600 {file}" in load(file).warnings[0]
        file.chmod(0o600)
        assert load(file).warnings == ()

    @given(
        st.binary(max_size=200) | st.text(alphabet="abc:-{}[]'\"&*!|>%@#, \n\t\\1", max_size=60),
        st.sampled_from(["switch.json", "switch.yaml", "switch"]),
    )
    @settings(max_examples=250, deadline=None)
    def test_any_text(self, text: bytes | str, name: str) -> None:
        try:
            parse(text if isinstance(text, bytes) else text.encode(), name)
        except ConfigError as error:
            one_line_of(error)
