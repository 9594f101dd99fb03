"""DialogueJournal, the library's face."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from potofs import ChatMessage, DialogueJournal, PotofsError, open_journal
from potofs.errors import AlreadyExists, ConfigError, InvalidMessage, InvalidName, NameTooLong, NotFound
from potofs.journal.reading import Damage

HELLO = ChatMessage("user", "Hello", "2024-01-15T10:30:00.000Z", {"tokens": 2})
ANSWER = ChatMessage("assistant", "Hi!\n\nHow are you?\n", "2024-01-15T10:30:01.000Z", None, {"name": "Poto"})


def test_messages_are_read_back_as_they_were_added(journal: DialogueJournal) -> None:
    journal.add_message("mia", HELLO)
    journal.add_messages("mia", [ANSWER, ChatMessage("tool", "", "2024-01-15")])
    assert journal.get_conversation("mia") == [HELLO, ANSWER, ChatMessage("tool", "", "2024-01-15")]


def test_a_message_without_a_timestamp_gets_the_present_time(journal: DialogueJournal) -> None:
    journal.add_message("mia", ChatMessage("user", "now"))
    (message,) = journal.get_conversation("mia")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", message.timestamp)


def test_a_conversation_that_is_not_there_is_empty(journal: DialogueJournal) -> None:
    assert journal.get_conversation("nobody") == []
    assert journal.read_bytes("nobody") == b""
    assert list(journal.users()) == []
    with pytest.raises(NotFound):
        journal.read_bytes("nobody", "refund")
    with pytest.raises(NotFound):
        list(journal.read_conversation("nobody", "refund"))


def test_what_another_process_added_is_seen(journal: DialogueJournal, root: Path) -> None:
    journal.add_message("mia", HELLO)
    with open_journal(f"file://{root}", create=False) as other:
        other.add_message("mia", ANSWER)
    assert journal.get_conversation("mia") == [HELLO, ANSWER]


# Duplicates


def test_a_message_given_again_with_its_timestamp_is_stored_once(journal: DialogueJournal) -> None:
    for _ in range(3):
        journal.add_messages("mia", [HELLO, ANSWER, HELLO])
    assert journal.get_conversation("mia") == [HELLO, ANSWER]
    journal.archive_conversation("mia")
    journal.add_messages("mia", [HELLO, ANSWER])
    assert journal.get_conversation("mia") == []


@pytest.mark.parametrize(
    "other",
    [
        ChatMessage("assistant", HELLO.content, HELLO.timestamp),
        ChatMessage("user", "Hello!", HELLO.timestamp),
        ChatMessage("user", HELLO.content, "2024-01-15T10:30:00.001Z"),
    ],
)
def test_another_role_content_or_timestamp_is_another_message(journal: DialogueJournal, other: ChatMessage) -> None:
    journal.add_messages("mia", [HELLO, other])
    assert journal.get_conversation("mia") == [HELLO, other]


def test_messages_without_a_timestamp_are_never_the_same(journal: DialogueJournal) -> None:
    journal.add_messages("mia", [ChatMessage("user", "again")] * 3)
    assert [message.content for message in journal.get_conversation("mia")] == ["again"] * 3


def test_messages_of_two_users_are_never_the_same(journal: DialogueJournal) -> None:
    for user in ("mia", "noah"):
        journal.add_message(user, HELLO)
        assert journal.get_conversation(user) == [HELLO]


# All or none


def test_of_messages_with_a_bad_one_none_is_stored(journal: DialogueJournal) -> None:
    bad = ChatMessage("user", "a", "", {"key": object()})
    with pytest.raises(InvalidMessage):
        journal.add_messages("mia", [HELLO, bad])
    assert journal.get_conversation("mia") == []


def test_damage_is_stepped_over_and_told_of(journal: DialogueJournal, root: Path) -> None:
    journal.add_message("mia", HELLO)
    with (root / "users/mia/dialogs/current.yaml").open("ab") as file:
        file.write(b"no message\n---\n")
    journal.add_message("mia", ANSWER)
    entries = list(journal.read_conversation("mia"))
    assert [type(entry) for entry in entries] == [ChatMessage, Damage, ChatMessage]


@pytest.mark.expects_warning("user 'mia': damage at byte [0-9]+: ")
def test_a_conversation_with_damage_has_its_messages_and_a_warning(journal: DialogueJournal, root: Path) -> None:
    journal.add_message("mia", HELLO)
    with (root / "users/mia/dialogs/current.yaml").open("ab") as file:
        file.write(b"torn")
    assert journal.get_conversation("mia") == [HELLO]


# Archives


def test_an_archived_conversation_has_its_messages_and_a_new_one_begins(journal: DialogueJournal) -> None:
    journal.add_message("mia", HELLO)
    assert journal.archive_conversation("mia", "refund") == "refund"
    assert journal.get_conversation("mia") == []
    journal.add_message("mia", ANSWER)
    assert list(journal.read_conversation("mia", "refund")) == [HELLO]
    assert journal.get_conversation("mia") == [ANSWER]


def test_an_archive_without_a_name_is_called_by_the_time(journal: DialogueJournal) -> None:
    journal.add_message("mia", HELLO)
    name = journal.archive_conversation("mia")
    assert re.fullmatch(r"\d{8}T\d{6}\.\d{3}Z", name)
    assert list(journal.read_conversation("mia", name)) == [HELLO]


def test_what_cannot_be_archived_stays(journal: DialogueJournal) -> None:
    for user in ("nobody", "mia"):
        with pytest.raises(NotFound):
            journal.archive_conversation(user)
        journal.ensure_user("mia")
    journal.add_message("mia", HELLO)
    journal.archive_conversation("mia", "refund")
    journal.add_message("mia", ANSWER)
    for name, error in (("refund", AlreadyExists), ("current", InvalidName), ("", InvalidName)):
        with pytest.raises(error):
            journal.archive_conversation("mia", name)
    assert journal.get_conversation("mia") == [ANSWER]


def test_a_hundred_messages_are_archived_by_themselves(journal: DialogueJournal) -> None:
    for number in range(99):
        journal.add_message("mia", ChatMessage("user", str(number)))
    journal.add_messages("mia", [ChatMessage("user", "99"), ChatMessage("user", "100")])
    (archive,) = journal.backend.archives("mia")
    assert len(list(journal.read_conversation("mia", archive.name))) == 101
    assert journal.get_conversation("mia") == []


# Users


def test_users_are_those_that_were_made_or_have_spoken(journal: DialogueJournal) -> None:
    journal.create_user("mia")
    journal.add_message("../noah", HELLO)
    assert sorted(journal.users()) == ["../noah", "mia"]
    journal.must_have_user("mia")
    journal.ensure_user("mia")
    with pytest.raises(AlreadyExists):
        journal.create_user("mia")
    with pytest.raises(NotFound, match="'zoe'"):
        journal.must_have_user("zoe")
    journal.ensure_user("zoe")
    journal.must_have_user("zoe")


def test_an_id_that_cannot_be_is_refused(journal: DialogueJournal) -> None:
    for user, error in (("", InvalidName), ("a" * 256, NameTooLong), ("\ud800", InvalidName)):
        with pytest.raises(error):
            journal.create_user(user)
        with pytest.raises(error):
            journal.add_message(user, HELLO)
    assert list(journal.users()) == []


# Opening


def test_a_journal_is_made_where_there_is_none_unless_told_not_to(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="check the path"):
        open_journal(f"file://{tmp_path}/a/b", create=False)
    with open_journal(f"file://{tmp_path}/a/b"):
        assert (tmp_path / "a/b/users").is_dir()
    with pytest.raises(ConfigError):
        open_journal(str(tmp_path))


@pytest.mark.expects_warning("user 'mia': 5 bytes that are no message are kept in rejected/")
def test_an_appender_takes_bytes_and_keeps_what_is_no_message(journal: DialogueJournal) -> None:
    appender = journal.appender("mia")
    appender.write(b"role: user\ncontent: a\ntimestamp: 2024-01-15\n---\nrole:")
    appender.close()
    assert journal.get_conversation("mia") == [ChatMessage("user", "a", "2024-01-15")]
    (aside,) = journal.backend.set_asides("mia")
    assert aside.stat.size == 5


@pytest.mark.parametrize(
    "operation",
    [
        lambda journal: journal.users(),
        lambda journal: journal.create_user("noah"),
        lambda journal: journal.must_have_user("mia"),
        lambda journal: journal.ensure_user("mia"),
        lambda journal: journal.user_metadata("mia"),
        lambda journal: journal.get_conversation("mia"),
        lambda journal: journal.read_conversation("mia"),
        lambda journal: journal.read_bytes("mia"),
        lambda journal: journal.add_message("mia", HELLO),
        lambda journal: journal.add_messages("mia", [HELLO]),
        lambda journal: journal.append("mia", []),
        lambda journal: journal.append_pieces("mia", [b"role: user\ncontent: a\n---\n"]),
        lambda journal: journal.appender("mia"),
        lambda journal: journal.clear_conversation("mia"),
        lambda journal: journal.archive_conversation("mia"),
        lambda journal: journal.get_archived_conversations("mia"),
        lambda journal: journal.restore_conversation("mia", "refund"),
        lambda journal: journal.get_stats(),
        lambda journal: journal.cleanup(),
        lambda journal: journal.fsck(),
        lambda journal: journal.export_conversation("mia", "json"),
        lambda journal: journal.export_pieces("mia", "json"),
        lambda journal: journal.import_conversation("mia", "[]", "json"),
        lambda journal: journal.import_pieces("mia", [], "json"),
        lambda journal: journal.backend,
    ],
)
@pytest.mark.parametrize("url", ["file://{}", "memory:"])
def test_a_closed_journal_takes_no_more(root: Path, url: str, operation: Callable[[DialogueJournal], object]) -> None:
    journal = open_journal(url.format(root))
    journal.add_message("mia", HELLO)
    journal.close()
    with pytest.raises(PotofsError, match="the journal is closed"):
        operation(journal)
    journal.close()


def test_an_iterator_ends_with_its_journal(root: Path) -> None:
    journal = open_journal(f"file://{root}")
    journal.add_messages("mia", [HELLO, ANSWER])
    journal.add_message("noah", HELLO)
    users, entries = journal.users(), journal.read_conversation("mia")
    next(users)
    next(entries)
    journal.close()
    for iterator in (users, entries):
        with pytest.raises(PotofsError, match="the journal is closed"):
            next(iterator)


def test_an_appender_stores_nothing_once_its_journal_is_closed(root: Path) -> None:
    journal = open_journal(f"file://{root}")
    appender = journal.appender("mia")
    journal.close()
    with pytest.raises(PotofsError, match="the journal is closed"):
        appender.write(b"role: user\ncontent: a\n---\n")
    assert not (root / "users/mia").exists()
