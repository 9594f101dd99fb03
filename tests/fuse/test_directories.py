"""A directory that is being read: every place means the same, whatever comes and goes meanwhile."""

import errno
import functools
import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from potofs import DialogueJournal, open_journal
from potofs.errors import DeadlineExceeded, NotFound
from potofs.fuse import directories
from potofs.fuse.directories import DirectoryHandle, Names
from potofs.tree.attributes import Entry
from potofs.tree.nodes import Kind, Node
from potofs.tree.tree import Tree


@pytest.fixture
def kept() -> Iterator["Kept"]:
    """Keeps names, and forgets them in the end."""
    with ExitStack() as stack:
        yield lambda names: stack.enter_context(closing(Names(names)))


@pytest.fixture
def journal(root: Path) -> Iterator[DialogueJournal]:
    """A journal that waits for no disk."""
    with open_journal(f"file://{root}?fsync=never") as journal:
        yield journal


@pytest.fixture
def users(journal: DialogueJournal) -> Iterator[DirectoryHandle]:
    """The directory of users, opened."""
    with closing(DirectoryHandle(Tree(journal), Node(Kind.USERS))) as handle:
        yield handle


Kept = Callable[[Iterator[str]], Names]


def test_few_names_are_sorted(kept: Kept) -> None:
    assert kept(iter("cab")).read(0, 10) == ["a", "b", "c"]


@pytest.mark.parametrize("count", [1, 64, 511, 512, 513, 5000])
def test_names_are_read_from_any_place_in_any_order(kept: Kept, count: int) -> None:
    expected = sorted(f"{number:05d}-é\udcff" for number in range(count))
    names = kept(iter(expected))
    places = [0, count // 2, count - 1, 1, count // 3, count, count + 1]
    for place, wanted in itertools.product([*places, *reversed(places)], (1, 63, 64, 65, 512)):
        assert names.read(place, wanted) == expected[place : place + wanted]


def test_names_are_taken_no_further_than_somebody_has_come(kept: Kept) -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        for taken in itertools.count(1):
            yield str(taken)

    names = kept(endless())
    names.read(0, 20)
    assert taken <= 1024
    assert names.end is None


def test_the_end_is_known_once_somebody_was_there(kept: Kept) -> None:
    names = kept(map(str, range(1000)))
    names.read(0, 900)
    assert names.end is None
    names.read(900, 512)
    assert names.end == 1000


def test_a_source_that_fails_is_never_taken_for_the_end(kept: Kept) -> None:
    def failing() -> Iterator[str]:
        yield from map(str, range(600))
        raise DeadlineExceeded("no answer")

    names = kept(failing())
    assert len(names.read(0, 512)) == 512
    for _ in range(2):
        with pytest.raises(DeadlineExceeded):
            names.read(512, 512)
    assert names.end is None


def users_of(handle: DirectoryHandle, place: int = 0) -> list[str]:
    found: list[str] = []
    while listed := handle.ahead(place) or handle.read(place):
        found += [one.name for one in listed if isinstance(one.told, Entry)]
        place = listed[-1].next_place
    return found


def test_users_who_come_and_go_hide_no_other_and_show_none_twice(
    journal: DialogueJournal, users: DirectoryHandle
) -> None:
    there = [f"user-{number:04d}" for number in range(1500)]
    for user in there:
        journal.create_user(user)
    first = users.read(0)
    for number in range(300):
        journal.create_user(f"new-{number}")
    found = [one.name for one in first] + users_of(users, first[-1].next_place)
    assert len(found) == len(set(found))
    assert set(there) <= set(found)
    # Places that were told go on meaning the same.
    assert users_of(users, 700) == found[700:]
    # At its beginning it is read anew.
    assert set(users_of(users)) == {*there, *(f"new-{number}" for number in range(300))}


def test_what_was_asked_for_a_moment_ago_is_not_asked_for_again(
    journal: DialogueJournal, users: DirectoryHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(100):
        journal.create_user(str(number))
    assert not users.ahead(0)
    listed = users.read(0)
    assert [one.next_place for one in listed] == list(range(1, 101))
    monkeypatch.setattr(directories, "_WAITS", 1000.0)
    assert users.ahead(30) == listed[30:]
    monkeypatch.setattr(directories, "_WAITS", 0.0)
    assert not users.ahead(30)


def test_what_is_wrong_with_many_entries_is_not_taken_for_their_absence(
    journal: DialogueJournal, users: DirectoryHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.create_user("mia")

    def late(_: object) -> list[int | None]:
        raise DeadlineExceeded("no answer")

    monkeypatch.setattr(journal.backend, "changes_of", late)
    with pytest.raises(DeadlineExceeded):
        users.read(0)


@pytest.mark.parametrize("error", [NotFound("no such folder"), FileNotFoundError(errno.ENOENT, "No such file", "/x")])
@pytest.mark.parametrize("place", [0, 512])
def test_what_is_not_there_is_never_taken_for_the_end(
    journal: DialogueJournal, users: DirectoryHandle, monkeypatch: pytest.MonkeyPatch, error: Exception, place: int
) -> None:
    """The C library takes ENOENT for the end of a directory, and `rsync --delete` then removes what it lacks."""
    for number in range(600):
        journal.create_user(str(number))
    if place:
        assert len(users.read(0)) == place

    def gone(_: object) -> list[int | None]:
        raise error

    monkeypatch.setattr(journal.backend, "changes_of", gone)
    with pytest.raises(OSError, match=r"all users cannot be listed to the end: .*[nN]o such f") as caught:
        users.read(place)
    assert caught.value.errno == errno.EIO


@pytest.mark.parametrize("kind", [Kind.ARCHIVED, Kind.REJECTED])
def test_what_is_in_a_directory_is_looked_at_once_however_many_there_are(
    journal: DialogueJournal, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    """Names are told in pieces. Looking at all of them for each would take hours where they are many."""
    for number in range(1500):
        if kind is Kind.ARCHIVED:
            journal.backend.put_archive("mia", f"{number:04d}", b"x", number)
        else:
            journal.backend.set_aside("mia", b"x", f"{number:04d}", mtime_ns=number)
    asked = []

    def counted(method: Callable[[str], object], user: str) -> object:
        asked.append(user)
        return method(user)

    for name in ("archives", "set_asides"):
        monkeypatch.setattr(journal.backend, name, functools.partial(counted, getattr(journal.backend, name)))
    tree = Tree(journal)
    with closing(DirectoryHandle(tree, Node(kind, "mia"))) as handle:
        names = users_of(handle)
        assert names == [f"{number:04d}.yaml" for number in range(1500)]
        assert asked == ["mia"]
        (told,) = [one.told for one in handle.read(700) if one.name == "0700.yaml"]
        assert told == tree.lookup(handle.node, "0700.yaml")
        # What is gone by then is not shown, and what has changed is shown as it is.
        if kind is Kind.ARCHIVED:
            journal.backend.rename_archive("mia", "0701", "another")
            journal.backend.set_times("mia", "0700", 7)
        else:
            journal.backend.remove_set_aside("mia", "0701")
            journal.backend.set_aside("mia", b"x", "0700", mtime_ns=7)
        told, gone = (one.told for one in handle.read(700)[:2])
        assert told == tree.lookup(handle.node, "0700.yaml")
        assert isinstance(told, Entry)
        assert told.attributes.mtime_ns == 7
        assert isinstance(gone, NotFound)
        assert asked == ["mia"]
