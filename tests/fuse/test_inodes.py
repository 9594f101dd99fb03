"""Inode numbers are remembered as often as the kernel was told of them, and no longer."""

import pytest

from potofs.errors import Stale
from potofs.fuse.inodes import MANY, Inodes
from potofs.tree.attributes import ROOT_INODE
from potofs.tree.nodes import ROOT, Kind, Node

MIA = Node(Kind.CURRENT, "mia")


def test_a_number_is_forgotten_with_the_last_lookup() -> None:
    inodes = Inodes()
    for _ in range(3):
        inodes.remember(7, MIA)
    inodes.forget(7, 2)
    assert inodes.node(7) == MIA
    inodes.forget(7, 1)
    with pytest.raises(Stale):
        inodes.node(7)


def test_the_root_is_never_forgotten() -> None:
    inodes = Inodes()
    inodes.forget(ROOT_INODE, 100)
    assert inodes.node(ROOT_INODE) == ROOT


def test_a_conversation_that_moved_keeps_its_number() -> None:
    inodes = Inodes()
    inodes.remember(7, MIA)
    archive = Node(Kind.ARCHIVE, "mia", "refund")
    inodes.moved(7, archive)
    assert inodes.node(7) == archive
    # The kernel was not told of this one, and will not ask for it.
    inodes.moved(8, archive)
    with pytest.raises(Stale):
        inodes.node(8)


def test_an_archive_that_was_the_running_conversation_a_moment_ago_may_be_meant_as_that() -> None:
    inodes = Inodes()
    archive = Node(Kind.ARCHIVE, "mia", "refund")
    inodes.remember(7, MIA)
    inodes.moved(7, archive)
    assert inodes.may_mean_current(7)
    assert not inodes.may_mean_archive(7)
    inodes.remember(7, archive)
    assert inodes.may_mean_archive(7)
    # One that was never anything else is meant as what it is.
    inodes.remember(8, archive)
    assert not inodes.may_mean_current(8)
    assert inodes.may_mean_archive(8)


def test_a_number_that_is_another_users_now_is_not_taken_for_what_it_was() -> None:
    inodes = Inodes()
    inodes.remember(7, Node(Kind.ARCHIVE, "mia", "refund"))
    assert not inodes.has_changed_hands(7)
    inodes.remember(7, Node(Kind.CURRENT, "mia"))
    assert not inodes.has_changed_hands(7), "it was restored"
    inodes.remember(7, Node(Kind.CURRENT, "max"))
    assert inodes.has_changed_hands(7)
    inodes.forget(7, 3)
    inodes.remember(7, Node(Kind.CURRENT, "max"))
    assert not inodes.has_changed_hands(7), "the kernel knows no other"


def test_archives_that_are_too_many_are_let_go_but_for_those_that_are_open_or_that_the_kernel_was_told_of_lately(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr("potofs.fuse.inodes.time.monotonic", lambda: now)
    inodes, is_open = Inodes(), {101}

    def tell(numbers: range) -> None:
        for number in numbers:
            inodes.remember(number, Node(Kind.ARCHIVE, "mia", f"{number}"))

    def let_go() -> list[int]:
        return [inode for inode, _ in inodes.to_let_go(is_open.__contains__)]

    inodes.remember(7, MIA)
    tell(range(100, 100 + MANY))
    now += 10
    assert let_go() == [], "they are not too many"
    tell(range(5000, 5010))
    tell(range(100, 101))
    assert let_go() == [102, 103, 104, 105, 106, 107, 108, 109, 110], "the longest ago first"
    assert all(map(inodes.is_needless, range(102, 111)))
    assert let_go() == [111], "what is open was asked about once"
    assert let_go() == []
    tell(range(5010, 5020))
    inodes.forget(112, 1)
    assert inodes.node(111) == Node(Kind.ARCHIVE, "mia", "111"), "as long as the kernel does not say that it forgets"
    tell(range(111, 112))
    assert not inodes.is_needless(111), "it was told again"
    inodes.moved(113, MIA)
    assert let_go() == list(range(114, 123)), "nor what is no archive any more"
    inodes.remember(5999, MIA)
    inodes.renamed(5999, Node(Kind.ARCHIVE, "mia", "moved"))
    assert not inodes.is_needless(5999), "through this mount: nobody looks it up"
    tell(range(6000, 6000 + MANY))
    now += 1
    tell(range(8000, 8000 + MANY))
    assert set(let_go()) < set(range(100, 5020)), "few at a time"
    for _ in range(MANY):
        let_go()
    assert not inodes.is_needless(6000), "that was a moment ago"
