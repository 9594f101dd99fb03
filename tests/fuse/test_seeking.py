"""As what a process has looked up what it opens, and that it is told to look again once."""

import pytest

from potofs.errors import Stale
from potofs.fuse import recent
from potofs.fuse.seeking import Seekers
from potofs.tree.nodes import Kind, Node

MIA = Node(Kind.CURRENT, "mia")
REFUND = Node(Kind.ARCHIVE, "mia", "refund")


def test_as_what_a_process_has_looked_a_conversation_up_is_known_until_it_looks_up_something_else() -> None:
    seekers = Seekers()
    seekers.looked_up(1, 7, MIA)
    seekers.looked_up(2, 7, REFUND)
    assert seekers.opens(2, 7).sought_as is Kind.ARCHIVE
    assert seekers.opens(1, 7).sought_as is Kind.CURRENT
    assert seekers.opens(1, 7).sought_as is None, "that was for one opening"
    seekers.looked_up(1, 7, MIA)
    assert seekers.opens(1, 8).sought_as is None
    seekers.looked_up(1, 7, MIA)
    seekers.looked_up(1, 9, Node(Kind.ARCHIVED, "mia"))
    assert seekers.opens(1, 7).sought_as is None
    seekers.looked_up(0, 7, REFUND)
    assert seekers.opens(0, 7).sought_as is None


def test_whoever_opens_what_nobody_looked_up_is_sent_back_once_and_then_means_what_it_is() -> None:
    seekers = Seekers()
    first = seekers.opens(1, 7)
    assert first.may_look_again
    assert not first.means(Kind.CURRENT)
    first.sent_back("it may be another's")
    again = seekers.opens(1, 7)
    assert not again.may_look_again
    assert again.means(Kind.CURRENT), "it was opened by /proc/self/fd"
    assert not again.has_looked_again
    again.sent_back("it moved again")
    assert seekers.opens(1, 7).may_look_again, "that was another time"


def test_what_it_found_when_it_looked_again_is_what_it_means_and_nothing_else() -> None:
    seekers = Seekers()
    seekers.opens(1, 7).sent_back("it may be another's")
    seekers.looked_up(1, 7, REFUND)
    again = seekers.opens(1, 7)
    assert again.has_looked_again
    assert again.means(Kind.ARCHIVE)
    assert not again.means(Kind.CURRENT)


def test_whoever_found_nothing_when_it_looked_again_is_as_good_as_new() -> None:
    seekers = Seekers()
    for folder, is_sent_back in ((Kind.DIALOGS, False), (Kind.ARCHIVED, True)):
        seekers.opens(1, 7).sent_back("it may be another's")
        seekers.missed(1, folder, 3, b"refund.yaml")
        again = seekers.opens(1, 7)
        assert again.may_look_again
        # Whoever missed the running conversation goes on to begin one, and somebody else has.
        assert again.may_have_found_another is is_sent_back
        assert seekers.opens(1, 7).may_have_found_another


def test_of_other_pid_namespaces_nobody_is_known_and_nobody_sent_back() -> None:
    seeker = Seekers().opens(0, 7)
    assert not seeker.may_look_again
    assert seeker.means(Kind.CURRENT)


def test_whoever_restores_an_archive_looks_its_name_up_once_more_and_nobody_is_to_remember_that() -> None:
    seekers = Seekers()
    assert not seekers.is_restored(3, b"refund.yaml")
    with pytest.raises(Stale):
        seekers.restores(1, 3, b"refund.yaml")
    assert seekers.is_restored(3, b"refund.yaml")
    assert not seekers.is_restored(4, b"refund.yaml")
    with pytest.raises(Stale):
        seekers.restores(2, 3, b"refund.yaml")
    with pytest.raises(Stale):
        seekers.restores(5, 4, b"other.yaml")
    seekers.missed(5, Kind.ARCHIVED, 4, b"other.yaml")
    assert not seekers.is_restored(4, b"other.yaml"), "somebody else has restored it"
    with pytest.raises(Stale):
        seekers.restores(5, 4, b"other.yaml")
    for process in (1, 2, 0):
        seekers.restores(process, 3, b"refund.yaml")
    assert seekers.is_restored(3, b"refund.yaml")
    seekers.restored(3, b"refund.yaml")
    assert not seekers.is_restored(3, b"refund.yaml")
    with pytest.raises(Stale):
        seekers.restores(1, 3, b"refund.yaml")


def test_whoever_restores_an_archive_comes_back_however_long_it_takes_to_look_its_name_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel asks for every name on the way, of a server that may be far."""
    monkeypatch.setattr(recent, "_ON_ITS_WAY", 0.0)
    seekers = Seekers()
    with pytest.raises(Stale):
        seekers.restores(1, 3, b"refund.yaml")
    assert seekers.is_restored(3, b"refund.yaml")
    seekers.restores(1, 3, b"refund.yaml")
