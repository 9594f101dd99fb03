"""Checking and mending conversations: everything damaged is found, set aside and gone, and all else stays as it is."""

import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potofs import Capability, ChatMessage, DialogueJournal, open_journal
from potofs.backends.base import Backend, Fence, Finding, Stat
from potofs.errors import Fenced, Unsupported
from potofs.journal import mending, reading, record, yamldoc
from potofs.journal.reading import Damage
from tests import redis_servers


def said(content: str, second: int) -> ChatMessage:
    return ChatMessage("user", content, f"2024-01-15T10:30:{second:02}.000Z")


BEFORE = [said("Hello", 1), said("two\nlines", 2)]
AFTER = [said("later", 58), said("---", 59)]
HEAD, TAIL = (b"".join(map(record.encode, messages)) for messages in (BEFORE, AFTER))

#: `stringify(message) + '---\n'` of Bun ends a line and its terminator with nothing between.
GLUED = b'role: user\ncontent: glued\ntimestamp: "2024-01-15T10:30:10.000Z"---\n'
GLUED_TOO = b'role: assistant\ncontent: too\ntimestamp: "2024-01-15T10:30:11.000Z"---\n'


#: Whole messages, but for the terminators between them.
ONE = b'role: user\ncontent: one\ntimestamp: "2024-01-15T10:30:20.000Z"\n'
TWO = b'role: assistant\ncontent: |-\n  two\n  role: user\ntimestamp: "2024-01-15T10:30:21.000Z"\n'
ONE_AND_TWO = (said("one", 20), ChatMessage("assistant", "two\nrole: user", "2024-01-15T10:30:21.000Z"))


class Case(NamedTuple):
    """Bytes between whole records that are not all messages."""

    damage: bytes
    #: What of it is a message once it is mended.
    mended: tuple[ChatMessage, ...] = ()


CASES = {
    "nonsense": Case(b"nonsense\n---\n"),
    "no role": Case(b"content: a\n---\n"),
    "a role that is none": Case(b"role: cat\ncontent: meow\n---\n"),
    "broken YAML": Case(b'role: user\ncontent: "open\n---\n'),
    "NUL bytes": Case(b"role: user\ncontent: a\n" + bytes(500) + b"\n---\n"),
    "no UTF-8": Case(b"role: user\ncontent: \xff\xfe\n---\n"),
    "line ends of Windows": Case(b"role: user\r\nsays: a\r\n---\r\n"),
    "an alias": Case(b"role: user\ncontent: *all\n---\n"),
    "glued on": Case(GLUED + b"---\n", (said("glued", 10),)),
    "several glued on": Case(
        GLUED + GLUED_TOO + b"---\n", (said("glued", 10), ChatMessage("assistant", "too", "2024-01-15T10:30:11.000Z"))
    ),
    "glued on to what is no message": Case(b"role: cat---\n" + GLUED + b"---\n", (said("glued", 10),)),
    "no terminator between": Case(ONE + TWO + b"---\n", ONE_AND_TWO),
    "no terminator between, as Windows ends lines": Case((ONE + TWO).replace(b"\n", b"\r\n") + b"---\r\n", ONE_AND_TWO),
    "no terminator between, metadata": Case(
        ONE + b"metadata: {tokens: 1}\n" + TWO + b"metadata: {tokens: 2}\n...\n",
        (
            ChatMessage("user", "one", "2024-01-15T10:30:20.000Z", {"tokens": 1}),
            ChatMessage("assistant", "two\nrole: user", "2024-01-15T10:30:21.000Z", {"tokens": 2}),
        ),
    ),
    "no terminator between, and a key that may be either's": Case(ONE + b"metadata: {tokens: 1}\n" + TWO + b"---\n"),
    "no terminator between, and one without a time": Case(ONE + b"role: user\ncontent: a\n---\n"),
    "no terminator between, and something in front": Case(b"content: a\n" + ONE + TWO + b"---\n"),
    "a role in a text over several lines": Case(b'role: user\ncontent: "a\n' + ONE + b'"\n---\n'),
}
TORN = {
    "half a record": Case(b"role: user\nconte"),
    "a record without a time": Case(b"role: user\ncontent: a\n"),
    "half a marker": Case(b"nonsense\n--"),
    "a last message with its marker glued on": Case(GLUED, (said("glued", 10),)),
    "last messages with no terminator between": Case(ONE + TWO, ONE_AND_TWO),
    "last messages with no terminator between, cut off": Case(ONE + TWO[:-1]),
}


#: Stores bytes as a conversation, and returns the journal and which of its conversations it is.
Put = Callable[[bytes], tuple[DialogueJournal, str | None]]


@pytest.fixture(params=["files", "archive in files", "compressed", "memory", "redis", "archive in redis"])
def put(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Put]:
    """For a conversation that is running, an archive, or a compressed one."""
    kind = request.param
    url = "memory:" if kind == "memory" else f"file://{tmp_path}/journal"
    if "redis" in kind:
        url = f"redis://{redis_servers.shared().place}?prefix={tmp_path}"
    with open_journal(url) as journal:

        def put(data: bytes) -> tuple[DialogueJournal, str | None]:
            if kind in {"files", "memory", "redis"}:
                journal.backend.put_current("mia", data, 5)
                return journal, None
            # So much that it gets smaller, and the damage stays where it is.
            journal.backend.put_archive("mia", "old", data + record.encode(said("x" * 9999, 57)), 5)
            if kind == "compressed":
                assert journal.backend.compress("mia", "old") > 0
            return journal, "old"

        yield put


def asides(journal: DialogueJournal) -> list[bytes]:
    """What is in rejected/."""
    found = []
    for aside in sorted(journal.backend.set_asides("mia")):
        with journal.backend.open_set_aside("mia", aside.name) as reader:
            found.append(reader.read_all())
    return found


def messages(journal: DialogueJournal, archive: str | None) -> list[ChatMessage]:
    """Those of a conversation without damage, the filler left out."""
    found = []
    for entry in journal.read_conversation("mia", archive):
        assert isinstance(entry, ChatMessage)
        found.append(entry)
    return [message for message in found if len(message.content) < 9999]


def is_mended(journal: DialogueJournal, archive: str | None, case: Case, *, after: bool) -> None:
    """Asserts that damage behind HEAD is found, left alone, mended and gone."""
    before = journal.read_bytes("mia", archive)
    (found,) = journal.fsck()
    place = "current.yaml" if archive is None else f"archived/{archive}.yaml"
    assert found[:2] == ("mia", place)
    assert not found.repaired
    assert found.offset is not None
    assert found.length is not None
    damaged = before[found.offset : found.offset + found.length]
    assert damaged.strip(b"-\r\n") in case.damage
    assert found.offset >= len(HEAD)
    assert journal.read_bytes("mia", archive) == before
    assert asides(journal) == []

    assert list(journal.fsck(["mia"], repair=True)) == [found._replace(repaired=True)]
    assert asides(journal) == [damaged]
    assert messages(journal, archive) == [*BEFORE, *case.mended, *(AFTER if after else [])]
    mended = journal.read_bytes("mia", archive)
    assert mended.startswith(HEAD)
    assert TAIL in mended or not after
    assert journal.backend.stat("mia", archive).mtime_ns == 5
    assert list(journal.fsck()) == []


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_is_no_message_is_found_set_aside_and_gone(put: Put, case: Case) -> None:
    is_mended(*put(HEAD + case.damage + TAIL), case, after=True)


@pytest.mark.parametrize("case", TORN.values(), ids=TORN)
def test_a_torn_tail_is_found_set_aside_and_gone(tmp_path: Path, case: Case) -> None:
    for url in ("memory:", f"file://{tmp_path}/journal"):
        with open_journal(url) as journal:
            journal.backend.put_current("mia", HEAD + case.damage, 5)
            is_mended(journal, None, case, after=False)
            journal.add_messages("mia", AFTER)
            assert messages(journal, None) == [*BEFORE, *case.mended, *AFTER]


def test_a_conversation_of_nothing_but_damage_is_none_any_more(tmp_path: Path) -> None:
    with open_journal(f"file://{tmp_path}/journal") as journal:
        journal.backend.put_current("mia", b"role: us", 5)
        assert [found.repaired for found in journal.fsck(repair=True)] == [True]
        assert journal.read_bytes("mia") == b""
        assert asides(journal) == [b"role: us"]
        assert list(journal.fsck()) == []


@given(
    st.lists(
        st.one_of(
            st.sampled_from([case.damage for case in (CASES | TORN).values()]),
            st.integers(0, 59).map(lambda second: record.encode(said("word " * second, second))),
            st.binary(max_size=12),
            st.text("-\n\r:x {}'\"#.\ufeff", max_size=12).map(str.encode),
        ),
        max_size=8,
    )
)
def test_whatever_the_bytes_are_all_messages_stay_and_nothing_is_dropped(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    before = [entry for entry in reading.read(data) if isinstance(entry, ChatMessage)]
    damage = [entry for entry in reading.read(data) if isinstance(entry, Damage)]
    with open_journal("memory:?maxConversationLength=0") as journal:
        journal.backend.put_current("mia", data, 5)
        findings = list(journal.fsck(repair=True))
        assert [(found.offset, found.length) for found in findings] == [(one.offset, one.length) for one in damage]
        if all(found.repaired for found in findings):
            assert list(journal.fsck()) == []
            after = iter(messages(journal, None))
            assert all(message in after for message in before), "all that could be read can be, in its order"
            taken = b"".join(data[one.offset : one.offset + one.length] for one in damage)
            assert b"".join(asides(journal)) == taken
        else:
            assert journal.read_bytes("mia") == data
            assert asides(journal) == []


JUNK = {
    "roles": b"role: user---\n",
    "keys line by line": b"role: user---\ncontent: x---\ntimestamp: y---\n",
    "roles that are none": b'role: cat\ncontent: x\ntimestamp: "2024-01-15T10:30:10.000Z"---\n',
    "lists that go on": b"role: [content, timestamp---\n",
    "mappings that go on": b"{role: x, content: [timestamp,---\n",
    "texts that go on": b'role: user\ntimestamp: 2024-01-15\ncontent: "---\n---x---\n',
    "what is no YAML": b"role content timestamp---\n",
    "no keys": b"x---\n",
}


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
def test_what_only_looks_like_glued_messages_is_not_looked_through_again_and_again(
    junk: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[int] = []
    load = yamldoc.load

    def counted(text: str) -> yamldoc.Mapping:
        parsed.append(len(text))
        return load(text)

    monkeypatch.setattr(yamldoc, "load", counted)
    piece = junk * 2000 + GLUED
    found = mending.take_apart(piece)
    assert len(parsed) <= 5 * piece.count(b"\n")
    assert sum(parsed) <= 20 * len(piece) + (1 << 18)
    if junk != JUNK["mappings that go on"]:
        assert [message for _, message in found.records][-1:] == [said("glued", 10)], "and what follows is found"


# What is stored of a user


PROFILES = {
    "no YAML": (b'userId: "mia\n', "found unexpected end of stream", b""),
    "binary": (b"\xff\xfe\x00\x01", "not UTF-8", b""),
    "no mapping": (b"- mia\n", "not a mapping", b""),
    "a text": (b"mia\n", "not a mapping", b""),
    "no time": (
        b'userId: "mia"\ncreatedAt: "yesterday"\npreferences:\n  defaultModel: "gpt-4"\n',
        "createdAt is no time: 'yesterday'",
        b'preferences:\n  defaultModel: "gpt-4"\n',
    ),
    "a number for a time": (b'createdAt: 5\nuserId: "mia"\n', "createdAt is no time: 5", b""),
}


@pytest.fixture(params=["files", "memory"])
def with_profile(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[bytes], DialogueJournal]]:
    """A journal with a user of whom that is stored."""
    with open_journal("memory:" if request.param == "memory" else f"file://{tmp_path}/journal") as journal:

        def make(profile: bytes) -> DialogueJournal:
            journal.backend.create_user("mia", profile)
            return journal

        yield make


@pytest.mark.parametrize(("profile", "what", "kept"), PROFILES.values(), ids=PROFILES)
@pytest.mark.parametrize("messages", [BEFORE, []], ids=["messages", "none"])
def test_what_is_stored_of_a_user_and_damaged_is_set_aside_and_made_of_what_is_known(
    with_profile: Callable[[bytes], DialogueJournal],
    profile: bytes,
    what: str,
    kept: bytes,
    messages: list[ChatMessage],
) -> None:
    journal = with_profile(profile)
    journal.add_messages("mia", messages)
    (found,) = journal.fsck()
    assert found[:2] == ("mia", "metadata.yaml")
    assert what in found.what
    assert "\n" not in found.what
    assert journal.backend.read_profile("mia") == profile
    assert list(journal.fsck(["mia"], repair=True)) == [found._replace(repaired=True)]
    created = b'createdAt: "2024-01-15T10:30:01.000Z"\n' if messages else b""
    assert journal.backend.read_profile("mia") == b'userId: "mia"\n' + created + kept
    assert asides(journal) == [profile]
    assert list(journal.fsck()) == []


@pytest.mark.parametrize(
    "profile", [b"", b"userId: mia\ncreatedAt: 2024-01-15\n", b"preferences: {}\n", b"createdAt:\n"]
)
def test_what_is_stored_of_a_user_may_be_less_than_everything(
    with_profile: Callable[[bytes], DialogueJournal], profile: bytes
) -> None:
    assert list(with_profile(profile).fsck()) == []


def test_what_is_stored_of_a_user_is_not_mended_over_what_came_instead(
    with_profile: Callable[[bytes], DialogueJournal], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = with_profile(b"nonsense")
    rewrite = journal.backend.rewrite_profile

    def late(user: str, profile: bytes, *, was: bytes) -> bool:
        assert rewrite(user, b"createdAt: 2024-01-15\n", was=was)
        return rewrite(user, profile, was=was)

    monkeypatch.setattr(journal.backend, "rewrite_profile", late)
    (found,) = journal.fsck(repair=True)
    assert not found.repaired
    assert "look again" in found.what
    assert journal.backend.read_profile("mia") == b"createdAt: 2024-01-15\n"
    assert asides(journal) == []


def test_what_is_stored_of_a_user_stays_while_a_conversation_cannot_be_read(tmp_path: Path) -> None:
    with open_journal(f"file://{tmp_path}/journal") as journal:
        journal.backend.create_user("mia", b"nonsense")
        (tmp_path / "journal/users/mia/dialogs/archived/old.yaml").symlink_to("/etc/hosts")
        found = [one for one in journal.fsck(repair=True) if one.place == "metadata.yaml"]
        assert [one.repaired for one in found] == [False]
        assert "not mended" in found[0].what
        assert journal.backend.read_profile("mia") == b"nonsense"


def test_what_is_stored_of_a_user_and_cannot_be_read_is_told_of(tmp_path: Path) -> None:
    with open_journal(f"file://{tmp_path}/journal") as journal:
        journal.add_messages("mia", BEFORE)
        path = tmp_path / "journal/users/mia/metadata.yaml"
        path.unlink()
        path.symlink_to("/etc/hosts")
        (found,) = journal.fsck(repair=True)
        assert found[:2] == ("mia", "metadata.yaml")
        assert f"cannot be read: {path}" in found.what


# In the middle of other things


def test_the_end_of_what_is_just_being_appended_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_journal(f"file://{tmp_path}/journal?foreignWriters=true") as journal:
        journal.add_messages("mia", BEFORE)
        path = tmp_path / "journal/users/mia/dialogs/current.yaml"
        with path.open("ab") as file:
            file.write(b"role: user\ncon")
        pieces = [b"tent: a\n", b"timestamp: 2024-01-15T10:30:09Z\n---\n"]
        open_it = type(journal.backend).open

        def slow(backend: Backend, user: str, archive: str | None = None) -> object:
            reader = open_it(backend, user, archive)
            read = reader.read

            def late(offset: int, size: int) -> bytes:
                data = read(offset, size)
                if pieces:
                    with path.open("ab") as file:
                        file.write(pieces.pop(0))
                return data

            monkeypatch.setattr(reader, "read", late)
            return reader

        monkeypatch.setattr(type(journal.backend), "open", slow)
        assert [found for found in journal.fsck() if "yaml" in found.place] == []
        assert pieces == []


def test_a_conversation_that_goes_on_is_looked_at_again_before_it_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_journal(f"file://{tmp_path}/journal") as journal:
        journal.backend.put_current("mia", HEAD + b"nonsense\n---\n", 5)
        rewrite = journal.backend.rewrite

        def late(user: str, archive: str | None, seen: Stat, data: bytes, was: bytes) -> bool:
            monkeypatch.undo()
            journal.add_messages("mia", AFTER)
            return rewrite(user, archive, seen, data, was=was)

        monkeypatch.setattr(journal.backend, "rewrite", late)
        assert [found.repaired for found in journal.fsck(repair=True)] == [True]
        assert messages(journal, None) == [*BEFORE, *AFTER]
        assert asides(journal) == [b"nonsense\n---\n"]


def test_a_repair_that_is_cut_short_has_lost_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_journal(f"file://{tmp_path}/journal") as journal:
        journal.backend.put_current("mia", HEAD + b"nonsense\n---\n", 5)

        def cut(*_: object, **__: object) -> bool:
            raise KeyboardInterrupt

        monkeypatch.setattr(journal.backend, "rewrite", cut)
        with pytest.raises(KeyboardInterrupt):
            list(journal.fsck(repair=True))
        monkeypatch.undo()
        assert journal.read_bytes("mia") == HEAD + b"nonsense\n---\n"
        assert [found.repaired for found in journal.fsck(repair=True)] == [True]
        assert set(asides(journal)) == {b"nonsense\n---\n"}


def test_what_failed_and_was_cut_back_is_not_mended_over_what_came_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = record.encode(said("said in its place", 20))
    with open_journal(f"file://{tmp_path}/journal") as journal:
        journal.backend.put_current("mia", HEAD + b"x" * len(later), 5)
        rewrite, path = journal.backend.rewrite, tmp_path / "journal/users/mia/dialogs/current.yaml"

        def late(user: str, archive: str | None, seen: Stat, data: bytes, was: bytes) -> bool:
            monkeypatch.undo()
            # As a writer does whose write was short, and the next one, which comes to the same size.
            with path.open("r+b") as file:
                file.seek(len(HEAD))
                file.write(later)
            return rewrite(user, archive, seen, data, was=was)

        monkeypatch.setattr(journal.backend, "rewrite", late)
        list(journal.fsck(repair=True))
        assert messages(journal, None) == [*BEFORE, said("said in its place", 20)]


def test_a_user_who_cannot_be_checked_keeps_nobody_else_from_it(tmp_path: Path) -> None:
    users = ["eve", "mia", "noah"]
    with open_journal(f"file://{tmp_path}/journal?lockTimeoutMs=50") as journal:
        for user in users:
            journal.backend.put_current(user, HEAD + b"nonsense\n---\n", 5)
        held = os.open(tmp_path / "journal/users/mia/.lock", os.O_RDWR)
        fcntl.flock(held, fcntl.LOCK_EX)
        found = {one.user: one for one in journal.fsck(users, repair=True)}
        os.close(held)
        assert {user: found[user].repaired for user in users} == {"eve": True, "mia": False, "noah": True}
        assert "not checked to the end" in found["mia"].what


def test_where_nothing_may_be_changed_a_check_is_allowed_and_a_repair_is_not(tmp_path: Path) -> None:
    with open_journal(f"file://{tmp_path}/journal") as journal:
        journal.backend.put_current("mia", HEAD + b"nonsense\n---\n", 5)
        journal.backend.set_fence(Fence("frozen", 1))
        assert len(list(journal.fsck())) == 1
        with pytest.raises(Fenced):
            list(journal.fsck(repair=True))
        assert asides(journal) == []


def test_a_backend_that_cannot_mend_says_so_and_keeps_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_journal("memory:") as journal:
        journal.backend.put_current("mia", HEAD + b"nonsense\n---\n", 5)

        def cannot(*_: object, **__: object) -> bool:
            raise Unsupported("this backend cannot mend a conversation")

        monkeypatch.setattr(journal.backend, "rewrite", cannot)
        (found,) = journal.fsck(repair=True)
        assert not found.repaired
        assert "not mended: this backend cannot" in found.what
        assert journal.read_bytes("mia") == HEAD + b"nonsense\n---\n"
        assert asides(journal) == []


def test_whoever_asks_for_some_users_is_told_of_those_and_of_each_that_is_done(tmp_path: Path) -> None:
    done: list[str] = []
    with open_journal(f"file://{tmp_path}/journal") as journal:
        for user in ("mia", "noah", "eve"):
            journal.backend.put_current(user, b"nonsense\n---\n", 5)
        found: list[Finding] = list(journal.fsck(["noah", "mia"], on_user=done.append))
        assert [one.user for one in found] == done == ["noah", "mia"]
        assert Capability.PERSISTENCE in journal.capabilities
        assert len(list(journal.fsck(on_user=done.append))) == 3
    assert sorted(done[2:]) == ["eve", "mia", "noah"]
