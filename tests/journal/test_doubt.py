"""What may be stored or not after an error is stored once when it is tried again, on every kind of backend."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potofs import DialogueJournal, open_journal, times
from potofs.backends.base import Backend, Fence, Record
from potofs.errors import DeadlineExceeded, Fenced, InvalidMessage, PotofsError, WouldBlock
from potofs.journal.appending import Appender
from tests import redis_servers
from tests.journal.test_record_properties import quick

HELLO = b"role: user\ncontent: hello\n"
OTHER = b"role: tool\ncontent: other\n"
END = b"---\n"


class Place:
    """A journal whose appends fail as they are told to: behind what they do, or before they have done anything."""

    def __init__(self, journal: DialogueJournal) -> None:
        self.journal = journal
        self._append = journal.backend.append
        journal.backend.append = self._fail  # type: ignore[method-assign]
        #: How the next appends end: stored, or not, and an error each; then they do as they should.
        self.fates: list[str] = []
        self.appender = journal.appender("mia")

    def _fail(self, user: str, records: Sequence[Record], **options: Any) -> Any:
        fate = self.fates.pop(0) if self.fates else "stored"
        done = None if fate == "lost" else self._append(user, records, **options)
        if fate != "stored":
            raise DeadlineExceeded("no answer")
        return done

    @property
    def contents(self) -> list[str]:
        return [message.content for message in self.journal.get_conversation("mia")]

    @property
    def rejected(self) -> list[bytes]:
        backend: Backend = self.journal.backend
        names = [kept.name for kept in backend.set_asides("mia")]
        return [backend.open_set_aside("mia", name).read_all() for name in sorted(names)]

    def fails(self, operation: Callable[..., None], *arguments: bytes) -> None:
        with pytest.raises(DeadlineExceeded):
            operation(*arguments)


@pytest.fixture(params=["memory", "file", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    urls = {
        "memory": "memory://",
        "file": f"file://{tmp_path}/journal",
        "redis": f"redis://{redis_servers.shared().place}?keyPrefix={tmp_path}:",
    }
    with open_journal(urls[request.param]) as journal:
        yield Place(journal)


in_doubt = pytest.mark.parametrize("fate", ["doubtful", "lost"])


@in_doubt
def test_a_tail_whose_flush_left_it_in_doubt_is_stored_once_by_the_next_flush(place: Place, fate: str) -> None:
    place.appender.write(HELLO)
    place.fates = [fate, fate]
    place.fails(place.appender.flush)
    assert place.appender.waiting
    place.fails(place.appender.flush)
    place.appender.flush()
    place.appender.close()
    assert (place.contents, place.rejected) == (["hello"], [])
    assert not place.appender.waiting


@in_doubt
def test_a_tail_whose_flush_left_it_in_doubt_is_stored_once_by_the_close(place: Place, fate: str) -> None:
    place.appender.write(HELLO)
    place.fates = [fate]
    place.fails(place.appender.flush)
    assert place.appender.is_unsettled
    place.appender.close()
    assert (place.contents, place.rejected) == (["hello"], [])
    assert not place.appender.is_unsettled


@in_doubt
@pytest.mark.expects_warning("a message that may be stored already could not be stored at the close: no answer")
@pytest.mark.expects_warning("bytes that may be of a message that is stored already are kept in rejected/")
def test_what_is_in_doubt_to_the_end_is_set_aside_with_its_timestamp_so_that_it_can_be_given_again(
    place: Place, fate: str
) -> None:
    place.appender.write(HELLO)
    place.fates = [fate] * 2
    place.fails(place.appender.flush)
    place.appender.close()
    assert place.contents == (["hello"] if fate == "doubtful" else [])
    (kept,) = place.rejected
    place.journal.append_pieces("mia", [kept])
    assert place.contents == ["hello"]


@in_doubt
def test_the_same_bytes_that_come_again_after_a_flush_are_the_second_try(place: Place, fate: str) -> None:
    place.appender.write(HELLO)
    place.fates = [fate]
    place.fails(place.appender.flush)
    for line in HELLO.splitlines(keepends=True):
        place.appender.write(line)
    place.appender.flush()
    place.appender.write(HELLO)
    place.appender.flush()
    place.appender.close()
    # And what comes after that is a message of its own.
    assert (place.contents, place.rejected) == (["hello", "hello"], [])


@in_doubt
def test_what_a_flush_left_in_doubt_is_stored_before_what_comes_next(place: Place, fate: str) -> None:
    place.appender.write(HELLO)
    place.fates = [fate]
    place.fails(place.appender.flush)
    place.appender.write(OTHER + END)
    place.appender.close()
    assert (place.contents, place.rejected) == (["hello", "other"], [])


@in_doubt
def test_the_terminator_of_what_is_in_doubt_stores_it(place: Place, fate: str) -> None:
    place.appender.write(HELLO)
    place.fates = [fate, fate]
    place.fails(place.appender.flush)
    place.fails(place.appender.write, END)
    place.appender.write(END)
    assert place.contents == ["hello"]


@in_doubt
@pytest.mark.expects_warning("14 bytes that are no message are kept in rejected/")
def test_after_a_flush_that_left_it_in_doubt_a_message_is_complete(place: Place, fate: str) -> None:
    place.appender.write(HELLO)
    place.fates = [fate]
    place.fails(place.appender.flush)
    place.appender.write(b"metadata: {}\n\n")
    with pytest.raises(InvalidMessage):
        place.appender.write(END)
    place.appender.close()
    assert (place.contents, place.rejected) == (["hello"], [b"metadata: {}\n\n"])


@in_doubt
def test_a_write_that_left_it_in_doubt_and_comes_again_is_stored_once(place: Place, fate: str) -> None:
    place.fates = [fate, fate]
    for _ in range(2):
        place.fails(place.appender.write, HELLO + END)
    # As a library does that has kept what it could not write, and has been given more.
    place.appender.write(HELLO + END + OTHER + END)
    assert place.contents == ["hello", "other"]
    place.appender.write(HELLO + END)
    assert place.contents == ["hello", "other", "hello"]


@in_doubt
def test_writes_that_left_it_in_doubt_one_after_another_may_all_come_again(place: Place, fate: str) -> None:
    place.fates = [fate, fate]
    place.fails(place.appender.write, HELLO + END)
    place.fails(place.appender.write, OTHER + END)
    place.appender.write(HELLO + END)
    place.appender.write(OTHER + END)
    assert sorted(place.contents) == ["hello", "other"]


@in_doubt
def test_a_write_in_the_middle_of_a_record_that_left_it_in_doubt_may_come_again(place: Place, fate: str) -> None:
    place.appender.write(HELLO[:15])
    place.fates = [fate, fate]
    second = HELLO[15:] + END + OTHER[:5]
    for _ in range(2):
        place.fails(place.appender.write, second)
    place.appender.write(second)
    place.appender.write(OTHER[5:] + END)
    place.appender.close()
    assert (place.contents, place.rejected) == (["hello", "other"], [])


@in_doubt
@pytest.mark.expects_warning("15 bytes that may be of a message that is stored already are kept in rejected/")
def test_what_waited_for_a_write_that_left_it_in_doubt_is_set_aside_if_that_never_comes_again(
    place: Place, fate: str
) -> None:
    place.appender.write(HELLO[:15])
    place.fates = [fate]
    place.fails(place.appender.write, HELLO[15:] + END)
    place.appender.write(OTHER + END)
    place.appender.close()
    assert place.contents == [*(["hello"] if fate == "doubtful" else []), "other"]
    assert place.rejected == [HELLO[:15]]


@in_doubt
def test_once_something_else_is_stored_the_same_bytes_are_a_message_of_their_own(place: Place, fate: str) -> None:
    place.fates = [fate]
    place.fails(place.appender.write, HELLO + END)
    place.appender.write(OTHER + END)
    place.appender.write(HELLO + END)
    assert place.contents == [*(["hello"] if fate == "doubtful" else []), "other", "hello"]


@in_doubt
def test_messages_that_are_alike_are_all_stored_by_the_second_try(place: Place, fate: str) -> None:
    """They were said within a millisecond, and are no second try of one another."""
    place.appender.write((HELLO + END) * 2)
    place.fates = [fate]
    place.fails(place.appender.write, (HELLO + END) * 3)
    place.appender.write((HELLO + END) * 3)
    assert place.contents == ["hello"] * 5
    said = [times.nanoseconds(message.timestamp) or 0 for message in place.journal.get_conversation("mia")]
    assert said == sorted(set(said))


def test_a_message_that_was_refused_by_a_fence_is_in_no_doubt(place: Place) -> None:
    place.appender.write(HELLO)
    place.journal.backend.set_fence(Fence("frozen", 1))
    with pytest.raises(Fenced):
        place.appender.flush()
    place.journal.backend.set_fence(Fence("open", 2))
    place.appender.write(b"metadata: {a: 1}\n" + END)
    (message,) = place.journal.get_conversation("mia")
    assert message.metadata == {"a": 1}


def test_a_write_that_failed_where_nobody_may_wait_is_the_same_where_one_may(place: Place) -> None:
    place.appender.write(HELLO)
    place.fates = ["doubtful"]
    with pytest.raises(WouldBlock):
        place.appender.write(END, wait=False)
    place.appender.write(END)
    assert place.contents == ["hello"]


def test_a_disk_that_fails_behind_the_write_doubles_nothing(
    journal: DialogueJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.create_user("mia")
    appender = journal.appender("mia")
    fdatasync = os.fdatasync

    def fails(descriptor: int) -> None:
        monkeypatch.setattr(os, "fdatasync", fdatasync)
        raise OSError(5, "Input/output error")

    def write() -> None:
        appender.write(HELLO + END)

    for operation in (write, appender.flush):
        monkeypatch.setattr(os, "fdatasync", fails)
        with pytest.raises(OSError, match="the disk did not take"):
            operation()
        operation()
        appender.write(HELLO)
    appender.flush()
    appender.close()
    assert [message.content for message in journal.get_conversation("mia")] == ["hello"] * 3


class Uncertain:
    """A journal in memory whose answers get lost, and a program that tries again until it is told that all is well."""

    def __init__(self, journal: DialogueJournal, chance: st.DataObject) -> None:
        self.place = Place(journal)
        self._chance = chance

    def do(self, operation: Callable[..., None], *arguments: bytes) -> bool:
        """Whether it went well at once, or else at a second try or later, which is made only if it is a write."""
        is_write = bool(arguments)
        for attempt in range(4):
            self.place.fates = (
                [self._chance.draw(st.sampled_from(["stored", "doubtful", "lost"]))] if attempt < 3 else []
            )
            try:
                operation(*arguments)
            except PotofsError:
                if not is_write:
                    return False
            else:
                return True
        raise AssertionError("the last try went wrong")


@quick
@given(
    st.lists(st.tuples(st.sampled_from(["a", "b"]), st.booleans(), st.integers(0, 40)), min_size=1, max_size=6),
    st.data(),
)
def test_a_writer_that_tries_again_until_it_is_told_so_has_each_message_stored_once(
    said: list[tuple[str, bool, int]], chance: st.DataObject
) -> None:
    """Messages alike and others, in one write or two, with a terminator or completed by a flush."""
    with open_journal("memory://") as journal:
        uncertain = Uncertain(journal, chance)
        appender: Appender = uncertain.place.appender
        for content, terminated, cut in said:
            data = f"role: user\ncontent: {content}\n".encode() + (END if terminated else b"")
            for piece in (data[:cut], data[cut:]):
                if piece:
                    uncertain.do(appender.write, piece)
            while not terminated and not uncertain.do(appender.flush):
                if chance.draw(st.booleans()):
                    uncertain.do(appender.write, data)
        appender.close()
        assert uncertain.place.contents == [content for content, _, _ in said]
        assert uncertain.place.rejected == []
