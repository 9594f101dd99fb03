"""DialogueJournal's operations beside reading and adding: clear, archives, restore, stats."""

import re

import pytest

from potofs import (
    ArchivedConversation,
    Capability,
    ChatMessage,
    CleanupOptions,
    DialogueJournal,
    DialogueJournalStats,
    PotoUser,
    open_journal,
)
from potofs.backends.base import Reader
from potofs.errors import InvalidName, NotFound, Unsupported
from potofs.journal import record
from tests.journal.archiving import ArchivingBackend

MIA = PotoUser("mia", "Mia")
HELLO = ChatMessage("user", "Hello", "2024-01-15T10:30:00.000Z")
ANSWER = ChatMessage("assistant", "Hi!", "2024-01-15T10:30:01.000Z")
LATER = ChatMessage("user", "Again", "2024-02-01T08:00:00.000Z")


@pytest.fixture
def archiving() -> DialogueJournal:
    """A journal with every capability."""
    return DialogueJournal(ArchivingBackend())


def test_a_user_is_an_id_or_a_user_of_the_application(archiving: DialogueJournal) -> None:
    archiving.create_user(MIA)
    archiving.ensure_user(MIA)
    archiving.must_have_user(MIA)
    archiving.add_message(MIA, HELLO)
    archiving.add_messages(MIA, [ANSWER])
    archiving.append_pieces(MIA, [b"role: user\ncontent: a\ntimestamp: 2024-01-15\n---\n"])
    with_appender = archiving.appender(MIA)
    with_appender.write(b"role: user\ncontent: b\ntimestamp: 2024-01-15\n---\n")
    assert [message.content for message in archiving.get_conversation(MIA)] == ["Hello", "Hi!", "a", "b"]
    assert archiving.get_conversation(MIA) == archiving.get_conversation("mia")
    assert archiving.user_metadata(MIA) == archiving.user_metadata("mia")
    assert archiving.read_bytes(MIA) == archiving.read_bytes("mia")
    archiving.archive_conversation(MIA, "refund")
    assert archiving.get_archived_conversations(MIA) == archiving.get_archived_conversations("mia")
    archiving.restore_conversation(MIA, "refund")
    archiving.clear_conversation(MIA)
    assert list(archiving.users()) == ["mia"]


# Clearing


def test_clearing_archives_where_there_is_archival(archiving: DialogueJournal) -> None:
    archiving.add_message("mia", HELLO)
    archiving.clear_conversation("mia")
    assert archiving.get_conversation("mia") == []
    (archive,) = archiving.get_archived_conversations("mia")
    assert list(archiving.read_conversation("mia", archive.id)) == [HELLO]


def test_clearing_on_files_archives(journal: DialogueJournal) -> None:
    journal.add_message("mia", HELLO)
    journal.clear_conversation("mia")
    assert journal.get_conversation("mia") == []
    (archive,) = journal.get_archived_conversations("mia")
    assert list(journal.read_conversation("mia", archive.id)) == [HELLO]


def test_clearing_forgets_where_there_is_no_archival() -> None:
    with open_journal("memory:") as journal:
        journal.add_message("mia", HELLO)
        journal.clear_conversation("mia")
        assert journal.get_conversation("mia") == []
        journal.add_message("mia", HELLO)
        assert journal.get_conversation("mia") == [HELLO]


def test_clearing_what_is_not_there_is_no_error(archiving: DialogueJournal) -> None:
    with open_journal("memory:") as memory:
        for journal in (archiving, memory):
            journal.clear_conversation("nobody")
            journal.create_user("mia")
            journal.clear_conversation("mia")
            assert list(journal.users()) == ["mia"]


def test_clearing_for_an_id_that_cannot_be_is_refused(journal: DialogueJournal) -> None:
    with pytest.raises(InvalidName):
        journal.clear_conversation("")


# Archives


def test_archives_are_listed_with_their_figures_first_archived_first(archiving: DialogueJournal) -> None:
    put = archiving.backend.put_archive
    put("mia", "refund", record.encode(LATER), 1_706_774_400_123_456_789)
    put("mia", "20240115T110000.000Z-2", record.encode(HELLO) + record.encode(ANSWER), 7)
    put("mia", "20240115T110000.000Z", record.encode(ANSWER), 5)
    assert archiving.get_archived_conversations("mia") == [
        ArchivedConversation(
            id="20240115T110000.000Z",
            user_id="mia",
            archived_at="2024-01-15T11:00:00.000Z",
            message_count=1,
            first_message_time="2024-01-15T10:30:01.000Z",
            last_message_time="2024-01-15T10:30:01.000Z",
            size=len(record.encode(ANSWER)),
        ),
        ArchivedConversation(
            id="20240115T110000.000Z-2",
            user_id="mia",
            archived_at="2024-01-15T11:00:00.000Z",
            message_count=2,
            first_message_time="2024-01-15T10:30:00.000Z",
            last_message_time="2024-01-15T10:30:01.000Z",
            size=len(record.encode(HELLO) + record.encode(ANSWER)),
        ),
        ArchivedConversation(
            id="refund",
            user_id="mia",
            archived_at="2024-02-01T08:00:00.123Z",
            message_count=1,
            first_message_time="2024-02-01T08:00:00.000Z",
            last_message_time="2024-02-01T08:00:00.000Z",
            size=len(record.encode(LATER)),
        ),
    ]
    assert archiving.get_archived_conversations("nobody") == []


@pytest.mark.parametrize("name", ["20241315T110000.000Z", "20240115T110000Z", "20240115T110000.000Z-a", "x20240115"])
def test_a_name_that_is_no_time_leaves_the_time_of_the_last_append(archiving: DialogueJournal, name: str) -> None:
    archiving.backend.put_archive("mia", name, record.encode(HELLO), 0)
    (archive,) = archiving.get_archived_conversations("mia")
    assert archive.archived_at == "1970-01-01T00:00:00.000Z"


def test_an_archive_without_a_message_has_no_times(archiving: DialogueJournal) -> None:
    archiving.backend.put_archive("mia", "torn", b"torn\n---\n", 0)
    (archive,) = archiving.get_archived_conversations("mia")
    assert (archive.message_count, archive.first_message_time, archive.last_message_time) == (0, None, None)


def test_an_archive_is_read_once_however_often_it_is_listed(
    archiving: DialogueJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    archiving.backend.put_archive("mia", "large", record.encode(HELLO) * 1000, 0)
    first = archiving.get_archived_conversations("mia")
    sizes: list[int] = []
    opened = archiving.backend.open("mia", "large")
    read = type(opened).read

    def counted(reader: Reader, offset: int, size: int) -> bytes:
        sizes.append(size)
        return read(reader, offset, size)

    monkeypatch.setattr(type(opened), "read", counted)
    assert archiving.get_archived_conversations("mia") == first
    assert sum(sizes) < 1000


def test_an_archive_that_is_gone_while_it_is_listed_is_left_out(
    archiving: DialogueJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    archiving.backend.put_archive("mia", "one", record.encode(HELLO), 0)
    archiving.backend.put_archive("mia", "two", record.encode(ANSWER), 0)
    listed = archiving.backend.archives("mia")
    archiving.restore_conversation("mia", "one")
    monkeypatch.setattr(archiving.backend, "archives", lambda user: listed)
    assert [archive.id for archive in archiving.get_archived_conversations("mia")] == ["two"]


# Restoring


def test_a_restored_archive_is_the_running_conversation_again(archiving: DialogueJournal) -> None:
    archiving.add_messages("mia", [HELLO, ANSWER])
    archiving.archive_conversation("mia", "refund")
    assert archiving.restore_conversation("mia", "refund") is None
    assert archiving.get_conversation("mia") == [HELLO, ANSWER]
    assert archiving.get_archived_conversations("mia") == []


def test_a_running_conversation_becomes_an_archive_when_another_is_restored(archiving: DialogueJournal) -> None:
    archiving.add_message("mia", HELLO)
    archiving.archive_conversation("mia", "refund")
    archiving.add_message("mia", LATER)
    swapped = archiving.restore_conversation("mia", "refund")
    assert swapped is not None
    assert re.fullmatch(r"\d{8}T\d{6}\.\d{3}Z", swapped)
    assert archiving.get_conversation("mia") == [HELLO]
    assert list(archiving.read_conversation("mia", swapped)) == [LATER]


def test_an_archive_that_is_not_there_is_not_restored_and_nothing_moves(archiving: DialogueJournal) -> None:
    archiving.add_message("mia", HELLO)
    with pytest.raises(NotFound):
        archiving.restore_conversation("mia", "refund")
    assert archiving.get_conversation("mia") == [HELLO]


# Capabilities


def test_capabilities_are_those_of_the_backend(journal: DialogueJournal, archiving: DialogueJournal) -> None:
    assert {Capability.PERSISTENCE, Capability.ARCHIVAL} <= journal.capabilities
    assert archiving.capabilities == {Capability.ARCHIVAL, Capability.COMPRESSION}
    with open_journal("memory:") as memory:
        assert memory.capabilities == frozenset()


def test_what_a_backend_without_archival_cannot_do_is_unsupported() -> None:
    with open_journal("memory:") as journal:
        journal.add_message("mia", HELLO)
        with pytest.raises(Unsupported, match="no archival: it cannot archive"):
            journal.archive_conversation("mia")
        with pytest.raises(Unsupported, match="no archival: it cannot list archives"):
            journal.get_archived_conversations("mia")
        with pytest.raises(Unsupported, match="no archival: it cannot restore"):
            journal.restore_conversation("mia", "refund")
        assert journal.get_conversation("mia") == [HELLO]


# Stats


def test_stats_of_an_empty_journal_are_nothing() -> None:
    with open_journal("memory:") as journal:
        assert journal.get_stats() == DialogueJournalStats(
            total_users=0,
            total_messages=0,
            total_archived_conversations=0,
            average_messages_per_user=0,
            storage_usage=0,
            backend="memory",
        )


def test_stats_count_all_users_and_all_conversations(journal: DialogueJournal) -> None:
    journal.create_user("zoe")
    journal.add_messages("mia", [HELLO, ANSWER])
    journal.archive_conversation("mia", "refund")
    journal.add_message("mia", LATER)
    journal.add_messages("noah", [HELLO, ANSWER, LATER])
    stats = journal.get_stats()
    size = sum(len(record.encode(message)) for message in (HELLO, ANSWER, LATER))
    assert stats == DialogueJournalStats(
        total_users=3,
        total_messages=6,
        total_archived_conversations=1,
        average_messages_per_user=2,
        storage_usage=2 * size,
        oldest_message="2024-01-15T10:30:00.000Z",
        newest_message="2024-02-01T08:00:00.000Z",
        backend="filesystem",
    )


def test_stats_tell_of_the_last_clean_up_that_changed_something() -> None:
    with open_journal("memory:") as journal:
        journal.cleanup(CleanupOptions(dry_run=True))
        assert journal.get_stats().last_cleanup is None
        journal.cleanup()
        assert re.fullmatch(r"\d{4}-.*Z", journal.get_stats().last_cleanup or "")
