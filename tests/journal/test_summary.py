"""The figures of a user are of what there is now, and an archive is read for them once."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from potofs import DialogueJournal, open_journal
from potofs.backends.base import Reader
from potofs.journal.summary import Summaries
from tests import redis_servers


class Counting:
    """A backend of which is noted what is opened."""

    def __init__(self, journal: DialogueJournal, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened: list[str | None] = []
        opens = journal.backend.open

        def open_(user: str, archive: str | None = None) -> Reader:
            reader = opens(user, archive)
            self.opened.append(archive)
            return reader

        monkeypatch.setattr(journal.backend, "open", open_)
        self._summaries = Summaries(journal.backend)

    def messages(self) -> int:
        return self._summaries.of_user("mia").messages

    def taken(self) -> list[str | None]:
        taken, self.opened[:] = self.opened.copy(), []
        return taken


def said(first: int, last: int) -> bytes:
    return b"".join(
        f"role: user\ncontent: '{number}'\ntimestamp: 2024-01-15T10:30:{number:02}.000Z\n---\n".encode()
        for number in range(first, last)
    )


@pytest.fixture(params=["filesystem", "redis"])
def journal(request: pytest.FixtureRequest, root: Path) -> Iterator[DialogueJournal]:
    url = (
        f"file://{root}" if request.param == "filesystem" else f"redis://{redis_servers.shared().place}?prefix={root}:"
    )
    with open_journal(url) as journal:
        journal.create_user("mia")
        yield journal


@pytest.fixture
def counting(journal: DialogueJournal, monkeypatch: pytest.MonkeyPatch) -> Counting:
    return Counting(journal, monkeypatch)


def test_an_archive_is_read_once_for_the_figures_of_its_user(journal: DialogueJournal, counting: Counting) -> None:
    for number in range(3):
        journal.backend.put_archive("mia", f"{number}", said(number, number + 2), 10**18 + number)
    assert counting.messages() == 6
    assert sorted(counting.taken(), key=str) == ["0", "1", "2"]
    journal.append_pieces("mia", [said(10, 14)])
    assert counting.messages() == 10
    assert counting.taken() == [None]
    # What was the running one until now is no other for that, and by another name an archive is the same.
    journal.archive_conversation("mia", "new")
    assert counting.messages() == 10
    assert counting.taken() == ["new"]
    journal.backend.rename_archive("mia", "1", "renamed")
    assert counting.messages() == 10
    assert counting.taken() == []


def test_an_archive_that_is_none_any_more_is_counted_as_what_it_is_now(
    journal: DialogueJournal, counting: Counting
) -> None:
    journal.backend.put_archive("mia", "a", said(0, 2), 10**18)
    journal.backend.put_archive("mia", "b", said(2, 5), 10**18)
    assert counting.messages() == 5
    journal.restore_conversation("mia", "a")
    assert counting.messages() == 5
    journal.append_pieces("mia", [said(10, 11)])
    assert counting.messages() == 6
    journal.archive_conversation("mia", "a")
    assert counting.messages() == 6


def test_an_archive_that_another_program_changes_is_counted_anew(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_journal(f"file://{root}") as journal:
        journal.create_user("mia")
        counting = Counting(journal, monkeypatch)
        for name in ("a", "b"):
            journal.backend.put_archive("mia", name, said(0, 2), 10**18)
        assert counting.messages() == 4
        archived = root / "users/mia/dialogs/archived"
        with (archived / "a.yaml").open("ab") as file:
            file.write(said(2, 3))
        assert counting.messages() == 5
        (archived / "a.yaml").write_bytes(said(0, 1))
        assert counting.messages() == 3
        os.unlink(archived / "b.yaml")
        assert counting.messages() == 1


def test_of_archives_one_of_which_cannot_be_read_the_others_are_read_once(
    journal: DialogueJournal, counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        journal.backend.put_archive("mia", f"{number}", said(number, number + 2), 10**18 + number)
    opens = journal.backend.open

    def open_(user: str, archive: str | None = None) -> Reader:
        if len(counting.opened) == 2:
            raise OSError("the disk does not answer")
        return opens(user, archive)

    with monkeypatch.context() as patched:
        patched.setattr(journal.backend, "open", open_)
        with pytest.raises(OSError, match="does not answer"):
            counting.messages()
    assert counting.messages() == 6
    assert sorted(counting.taken(), key=str) == ["0", "1", "2"]
