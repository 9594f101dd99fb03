"""Which backends can be opened, ours and those of other packages."""

from pathlib import Path

import pytest

from potofs.backends import registry
from potofs.backends.filesystem.backend import FilesystemBackend
from potofs.config import Where, parse
from potofs.errors import ConfigError
from potofs.journal import reading
from potofs.journal.journal import open_journal


def opened(url: str) -> object:
    return registry.open_backend(parse(url), reading.marks)


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An installed package that offers a backend called `shelf`; what it is given is in the name it has."""
    site = tmp_path / "site"
    information = site / "potofs_shelf-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: potofs-shelf\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        "[potofs.backends]\nshelf = potofs_shelf:open_shelf\nbroken = potofs_shelf:nothing\n"
    )
    (site / "potofs_shelf.py").write_text(
        "from potofs.backends.filesystem.backend import FilesystemBackend\n"
        "from potofs.config import Where\n"
        "def open_shelf(where, scan):\n"
        f"    return FilesystemBackend(Where('file', {str(tmp_path)!r} + where.place, where.options), scan)\n"
    )
    monkeypatch.syspath_prepend(str(site))
    return "shelf"


def test_a_file_url_opens_the_filesystem_backend(tmp_path: Path) -> None:
    backend = opened(f"file://{tmp_path}/journal?fsync=close")
    assert isinstance(backend, FilesystemBackend)
    assert backend.sync_on_close
    assert list(tmp_path.iterdir()) == [], "nothing is made before it is asked for"


def test_an_unknown_backend_is_refused_naming_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no backend is called 'memcached': there is file\b"):
        opened("memcached://localhost")


def test_an_unknown_backend_is_refused_naming_plug_ins_too(plug_in: str) -> None:
    with pytest.raises(ConfigError, match=f"there is broken, file, memory, redis.*, {plug_in}"):
        opened("memcached://localhost")


def test_the_backend_of_another_package_opens_like_ours(tmp_path: Path, plug_in: str) -> None:
    with open_journal(f"{plug_in}:///place?archiveThreshold=7") as journal:
        journal.create_user("mia")
    assert (tmp_path / "place/users/mia").is_dir()


def test_settings_that_cannot_be_are_refused_when_it_is_opened(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="archiveThreshold"):
        registry.open_backend(Where("file", str(tmp_path), {"archiveThreshold": "many"}), reading.marks)
    with pytest.raises(ConfigError, match="unknown field `ttlSeconds`"):
        registry.open_backend(Where("file", str(tmp_path), {"ttlSeconds": "1"}), reading.marks)
