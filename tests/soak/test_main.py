"""The command that runs scenarios."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.soak import __main__ as soak
from tests.soak.report import Report


def test_it_prints_the_figures_of_what_it_was_asked_for_and_fails_if_something_was_violated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def report(folder: Path) -> Report:
        assert folder.is_dir()
        made = Report("all well")
        made.figure("records", 3)
        return made

    def violated(folder: Path) -> Report:
        made = Report("not well")
        made.violated("a record is lost", 7)
        return made

    asked: list[soak.Length] = []

    def runs(length: soak.Length) -> Iterator[soak.Run]:
        asked.append(length)
        yield from (report, violated)

    monkeypatch.setattr(soak, "SCENARIOS", {"good": ("rounds", lambda _: iter([report])), "both": ("rounds", runs)})
    monkeypatch.setattr(sys, "argv", ["soak", "good"])
    assert soak.main() == 0
    assert capsys.readouterr() == ("== all well\n   records  3\n   it took  0 s\n   ok\n", "")
    monkeypatch.setattr(sys, "argv", ["soak", "both", "--rounds", "5"])
    assert soak.main() == 1
    output, errors = capsys.readouterr()
    assert "   VIOLATED a record is lost: 7\n   FAILED (1)\n" in output
    assert errors == "soak: failed: not well\n"
    assert asked == [soak.Length(5, None)]


@pytest.mark.parametrize("arguments", [["nothing"], ["kills", "--rounds", "0"], ["--often"]])
def test_arguments_that_it_does_not_know_are_refused(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "tests.soak", *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
