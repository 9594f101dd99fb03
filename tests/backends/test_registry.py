"""Which backends can be opened, ours and those of other packages."""

import re
import sys
from pathlib import Path

import pytest

from potofs import cli
from potofs.backends import registry
from potofs.backends.filesystem.backend import FilesystemBackend
from potofs.config import Where, parse
from potofs.errors import ConfigError, PotofsError
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
        "absent = potofs_nowhere:Nothing\nabstract = potofs.backends.base:Backend\nfailing = potofs_shelf:fail\n"
        "refusing = potofs_shelf:refuse\nother = potofs_shelf:other\n"
    )
    (site / "potofs_shelf.py").write_text(
        "from potofs.backends.filesystem.backend import FilesystemBackend\n"
        "from potofs.config import Where\n"
        "def open_shelf(where, scan):\n"
        f"    return FilesystemBackend(Where('file', {str(tmp_path)!r} + where.place, where.options), scan)\n"
        "def fail(where, scan):\n    return {}['of several\\nlines']\n"
        "def refuse(where, scan):\n    raise PermissionError(13, 'Permission denied', '/shelf')\n"
        "def other(where, scan):\n    return 'a shelf'\n"
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
    with pytest.raises(ConfigError, match=rf"there is .*\bbroken, .*file, memory, .*redis.*, {plug_in}"):
        opened("memcached://localhost")


def test_the_backend_of_another_package_opens_like_ours(tmp_path: Path, plug_in: str) -> None:
    with open_journal(f"{plug_in}:///place?archiveThreshold=7") as journal:
        journal.create_user("mia")
    assert (tmp_path / "place/users/mia").is_dir()


def test_settings_that_cannot_be_are_refused_when_it_is_opened(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="archiveThreshold"):
        registry.open_backend(Where("file", str(tmp_path), {"archiveThreshold": "many"}), reading.marks)
    with pytest.raises(ConfigError, match="ttlSeconds: there is no such setting"):
        registry.open_backend(Where("file", str(tmp_path), {"ttlSeconds": "1"}), reading.marks)


@pytest.mark.parametrize(
    ("name", "reason", "cause"),
    [
        ("absent", "cannot be imported: ModuleNotFoundError: No module named 'potofs_nowhere'", ModuleNotFoundError),
        ("broken", "cannot be imported: AttributeError: ", AttributeError),
        ("abstract", "cannot be opened: TypeError: Backend() takes no arguments", TypeError),
        ("failing", "cannot be opened: KeyError: ", KeyError),
        ("other", "gives a str, and no potofs.backends.base.Backend", type(None)),
    ],
)
def test_what_is_wrong_with_another_package_is_told_in_one_line_with_its_name(
    plug_in: str, name: str, reason: str, cause: type
) -> None:
    with pytest.raises(PotofsError) as caught:
        open_journal(f"{name}:///place")
    told = str(caught.value)
    assert told.startswith(f"{name}:///place: the backend '{name}' of potofs-shelf (potofs")
    assert reason in told
    assert "\n" not in told
    assert isinstance(caught.value.__cause__, cause)


def test_what_another_package_refuses_itself_comes_through(plug_in: str) -> None:
    with pytest.raises(PermissionError):
        open_journal("refusing:///place")
    with pytest.raises(ConfigError, match="archiveThreshold: expected a whole number, got 'many'"):
        open_journal(f"{plug_in}:///place?archiveThreshold=many")


@pytest.mark.parametrize("name", ["absent", "failing"])
def test_the_command_line_tells_it_likewise(
    plug_in: str, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["potofs", "users", "--backend", f"{name}:///place"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert re.fullmatch(r"potofs: .* of potofs-shelf .*\n", capsys.readouterr().err)
