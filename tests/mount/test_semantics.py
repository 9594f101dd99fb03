"""What the README says of each call, run: its table is the list of these tests."""

import errno
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from potofs import open_journal
from potofs.fuse.errnos import ERRNOS
from tests import redis_servers
from tests.mounts import Mount, mounted, shell

README = Path(__file__).parents[2] / "README.md"
FIRST = 'role: user\ncontent: Where is my order?\ntimestamp: "2024-01-15T10:30:00.000Z"\n---\n'
SECOND = 'role: assistant\ncontent: On its way.\ntimestamp: "2024-01-15T10:30:02.000Z"\n---\n'
OLDER = 'role: user\ncontent: Hello\ntimestamp: "2024-01-14T10:30:00.000Z"\n---\n'
# Each mistake is told of in the log.
MISTAKES = "of user 'mia|user 'mia"


class Row(NamedTuple):
    """One line of the table."""

    command: str
    meaning: str
    #: Its name; empty: the command succeeds.
    errno: str


def section() -> str:
    text = README.read_text()
    return text[text.index("## What happens when") : text.index("## Commands")]


def rows() -> list[Row]:
    found = re.findall(r"^\| `(.+)` \| (.*?) ?\| (\w*) ?\|$", section(), re.MULTILINE)
    return [Row(command.replace("\\|", "|"), meaning, number) for command, meaning, number in found]


@pytest.fixture(scope="module", params=["files", "redis"])
def mount(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """One mount for all lines: each has users of its own."""
    place = tmp_path_factory.mktemp("semantics")
    where: Path | str = place / "journal"
    if request.param == "redis":
        where = f"redis://{redis_servers.shared().place}?prefix={place.name}:"
    with mounted(where, place / "mnt") as mount:
        mount.expect_warning(MISTAKES)
        yield mount


def snapshot(mount: Mount, numbered: Callable[[str], str]) -> dict[str, bytes]:
    """Everything that was said by the users of a line."""
    return {
        f"{user} {path.name}": path.read_bytes()
        for user in ("mia", "max")
        for path in mount.dialogs(numbered(user)).rglob("*.yaml")
        if path.parent.name != "rejected"
    }


@pytest.mark.parametrize("number", range(len(rows())), ids=lambda number: rows()[number].command[:60])
def test_each_line_of_the_table_is_so(mount: Mount, tmp_path: Path, number: int) -> None:
    row = rows()[number]

    def numbered(name: str) -> str:
        return f"{name}{number}"

    with open_journal(mount.where) as journal:
        for user in map(numbered, ("mia", "max")):
            journal.create_user(user)
            journal.backend.put_current(user, FIRST.encode(), 2)
            journal.backend.put_archive(user, "older", OLDER.encode(), 1)
    for name, text in (("record", SECOND), ("copy", FIRST + SECOND), ("half", SECOND[:30])):
        (tmp_path / name).write_text(text)
    command = re.sub(r"\b(record|copy|half)\b(?= |$)", lambda found: f'"$FILES/{found[1]}"', row.command)
    command = re.sub(r"(?<=\.\./\.\./)(mia|max|zoe)\b", lambda found: numbered(found[1]), command)
    before = snapshot(mount, numbered)
    done = shell(f'cd "$DIALOGS" && {command}', FILES=tmp_path, DIALOGS=mount.dialogs(numbered("mia")))
    after = snapshot(mount, numbered)
    if row.errno:
        assert done.returncode != 0
        assert os.strerror(getattr(errno, row.errno)) in done.stderr
        assert after == before
    else:
        assert (done.returncode, done.stderr) == (0, "")
        # Whatever succeeds, what was said is still said, under one name or another.
        assert all(any(old in new for new in after.values()) for old in before.values())


def test_every_errno_that_an_error_becomes_is_explained() -> None:
    explained = set(re.findall(r"\bE[A-Z]{2,}\b", section()))
    assert {errno.errorcode[number].replace("ENOTSUP", "EOPNOTSUPP") for _, number in ERRNOS} <= explained
    assert {row.errno for row in rows()} - {""} <= {*errno.errorcode.values()}


def test_the_table_has_lines_that_succeed_and_lines_that_do_not() -> None:
    assert len(rows()) == len(re.findall(r"^\| `", section(), re.MULTILINE))
    assert {bool(row.errno) for row in rows()} == {True, False}
