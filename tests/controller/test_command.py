"""What both commands share: complaints and log lines of one line."""

import logging
import os
import re

import pytest

from controller import command
from tests.controller.logs import log_restored


class TestParser:
    def test_complains_in_one_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            command.Parser(prog="x").parse_args(["--a\nb"])
        assert ended.value.code == command.WRONG
        assert re.fullmatch(r"x: [^\n]+; see x --help\n", capsys.readouterr().err)


class TestLogging:
    def record(self, text: str) -> str:
        made = logging.LogRecord("a", logging.INFO, "f", 1, "peer %s", (text,), None)
        return command.Format("%(levelname)s %(message)s").format(made)

    def test_names_of_others_stay_on_their_line(self) -> None:
        assert self.record("evil\nERROR all is lost\x1b[2J") == (
            "INFO peer evil\\nERROR all is lost\\x1b[2J"
        )

    def test_the_journal_has_its_own_clock(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        with log_restored():
            monkeypatch.setitem(os.environ, "JOURNAL_STREAM", "1:2")
            command.log_to_stderr("INFO")
            logging.getLogger("x").info("hello")
            assert capsys.readouterr().err == "INFO x: hello\n"
            monkeypatch.delitem(os.environ, "JOURNAL_STREAM")
            command.log_to_stderr("ERROR")
            logging.getLogger("x").info("hello")
            logging.getLogger("x").error("hello")
        assert re.fullmatch(r"\d+-\d+-\d+ .* ERROR x: hello\n", capsys.readouterr().err)
