"""Several writers of one open file: one ends in the middle, or behind a message that lacks its end; others go on."""

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potofs.backends.base import Fingerprint, Record
from potofs.errors import DeadlineExceeded, InvalidMessage, WouldBlock
from potofs.journal import reading
from potofs.journal.appending import Appender

HALF, REST = b"role: user\ncontent: |-\n  first\n", b"  last\n"


class Place:
    """Where records go; `fails`: how likely an error is that leaves open whether they are stored."""

    def __init__(self, chance: random.Random, fails: float = 0.0) -> None:
        self.chance, self.fails = chance, fails
        self.stored: list[Record] = []
        self.rejected: list[tuple[bytes, bool]] = []
        self._known: set[Fingerprint] = set()

    def commit(self, records: Sequence[Record], *, wait: bool) -> None:
        if not wait and self.chance.random() < self.fails:
            raise WouldBlock("somebody else is at work")
        fails = self.chance.random() < self.fails
        if fails and self.chance.random() < 0.5:
            raise DeadlineExceeded("not stored")
        for record in records:
            if not (record.retry and record.mark.fingerprint in self._known):
                self._known.add(record.mark.fingerprint)
                self.stored.append(record)
        if fails:
            raise DeadlineExceeded("stored")

    def set_aside(self, data: bytes, *, in_doubt: bool) -> str:
        if self.chance.random() < self.fails:
            raise DeadlineExceeded("not set aside")
        self.rejected.append((data, in_doubt))
        return "name"

    def contents(self) -> list[str]:
        return [message.content for record in self.stored for message in reading.messages(record.data)]


@pytest.fixture
def place() -> Place:
    return Place(random.Random(0))


@pytest.fixture
def appender(place: Place) -> Appender:
    return Appender(place.commit, place.set_aside)


def test_what_goes_on_behind_a_pause_is_the_same_message(place: Place, appender: Appender) -> None:
    appender.write(HALF)
    appender.pause()
    appender.write(REST + b"---\n")
    assert place.contents() == ["first\nlast"]


def test_what_cannot_go_on_behind_a_pause_is_another_message(place: Place, appender: Appender) -> None:
    for number in range(3):
        appender.write(b"role: user\ncontent: number %d\n" % number)
        appender.pause()
    appender.flush()
    assert place.contents() == ["number 0", "number 1", "number 2"]


@pytest.mark.parametrize("size", [1, 40_000])
def test_behind_a_message_of_any_size_another_is_told_apart(place: Place, appender: Appender, size: int) -> None:
    for content in (b"x" * size, b"second"):
        appender.write(b"role: user\ncontent: " + content + b"\n")
        appender.pause()
    appender.write(b"role: user\ncontent: third\n---\n")
    assert place.contents() == ["x" * size, "second", "third"]
    assert place.rejected == []


def test_a_pause_within_what_is_no_message_yet_says_so_and_changes_nothing(place: Place, appender: Appender) -> None:
    appender.write(b"role: user\n")
    with pytest.raises(InvalidMessage):
        appender.pause()
    appender.write(b"content: whole\n---\n")
    assert place.contents() == ["whole"]


def test_a_whole_message_is_stored_though_what_comes_behind_the_pause_is_none(place: Place, appender: Appender) -> None:
    appender.write(b"role: user\ncontent: whole\n")
    appender.pause()
    appender.write(b"role: user\n")
    with pytest.raises(InvalidMessage):
        appender.flush()
    appender.close()
    assert place.contents() == ["whole"]
    assert place.rejected == [(b"role: user\n", False)]


def test_a_write_that_never_came_leaves_no_hole(place: Place, appender: Appender) -> None:
    appender.write(HALF)
    appender.missed(b"  do not\n")
    with pytest.raises(InvalidMessage):
        appender.write(REST + b"---\n")
    appender.write(b"role: user\ncontent: next\n---\n")
    appender.close()
    assert place.contents() == ["next"]
    assert place.rejected == [(HALF, False)]


def test_a_write_that_never_came_and_comes_again_is_taken(place: Place, appender: Appender) -> None:
    appender.write(HALF)
    appender.missed(REST)
    appender.write(REST)
    appender.write(b"---\n")
    assert place.contents() == ["first\nlast"]
    assert place.rejected == []


@pytest.mark.expects_warning("could not be set aside|could not be stored at the close|are dropped")
@given(seed=st.integers(0, 1 << 32))
def test_whoever_tries_again_and_pauses_has_each_message_stored_once_and_in_order(seed: int) -> None:
    """Some lack their end, some are alike, some are large; any may be cut in two, and any try may fail."""
    chance = random.Random(seed)
    place = Place(chance, fails=0.3)
    appender = Appender(place.commit, place.set_aside)

    def insist(call: Callable[[bool], None]) -> None:
        for tries in range(60):
            if tries > 40:
                place.fails = 0
            try:
                try:
                    return call(False)
                except WouldBlock:
                    return call(True)
            except DeadlineExceeded:
                continue
        return None

    said = []
    for number in range(chance.randint(1, 6)):
        content = chance.choice(["same", f"number {number}"]) + "x" * chance.choice([0, 0, 0, 35_000])
        ends = chance.random() < 0.5
        text = f"role: user\ncontent: {content}\n".encode() + (b"---\n" if ends else b"")
        cut = chance.choice([0, *(at + 1 for at, byte in enumerate(text) if byte == ord("\n"))][:-1])
        for piece in filter(None, (text[:cut], text[cut:])):
            insist(lambda wait, piece=piece: appender.write(piece, wait=wait))  # type: ignore[misc]
        said.append(content)
        if not ends and chance.random() < 0.6:
            appender.pause()
        elif not ends:
            insist(lambda wait: appender.flush(wait=wait))
    place.fails = 0
    appender.flush()
    appender.close()
    assert place.contents() == said
    assert [data for data, in_doubt in place.rejected if not in_doubt] == []
