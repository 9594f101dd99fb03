"""The conformance suite as the author of a plug-in has it: an installed backend passes, and a broken one does not."""

import itertools
from pathlib import Path

import pytest

from potofs import open_journal
from potofs.config import Where
from potofs.testing import BackendConformance, OpenBackend

places = itertools.count()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package whose entry point offers the backend of `tests.shelf`."""
    information = tmp_path / "site/potofs_shelf-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: potofs-shelf\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[potofs.backends]\nshelf = tests.shelf:ShelfBackend\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


class TestShelf(BackendConformance):
    """A plug-in's own tests."""

    @pytest.fixture
    def open_backend(self, installed: None) -> OpenBackend:
        place = str(next(places))
        return lambda **settings: open_journal(Where("shelf", place, settings)).backend
